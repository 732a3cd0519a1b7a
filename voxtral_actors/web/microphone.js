// The microphone, as frames of PCM16 at 16 kHz.
//
// The browser is asked for a 16 kHz audio context. One that cannot join it to the microphone's own
// rate (Firefox) gets a context at that rate, and the worklet resamples.

import { SAMPLE_RATE } from "./pcm.js";

// Loudness is evened out; echo and noise are left alone, since taking them away takes some of the
// speech too, and recognisers are trained on speech as it is.
const WISHES = { channelCount: 1, autoGainControl: true, echoCancellation: false, noiseSuppression: false };
const LAST_FRAME_MS = 500; // the audio thread answers within one block; a suspended one never does

const KINDS = {
  NotAllowedError: "denied",
  SecurityError: "denied",
  NotFoundError: "missing",
  OverconstrainedError: "missing",
  NotReadableError: "busy",
  AbortError: "busy",
};

/** `kind` is a row of microphone_advice.js. */
export class MicrophoneError extends Error {
  constructor(kind, message = kind) {
    super(message);
    this.kind = kind;
  }
}

/** Ask for the microphone and start it. `onFrame` gets each frame, `onLost` is called once if it
 *  is unplugged or taken away. Raises MicrophoneError. */
export async function openMicrophone({ onFrame, onLost }) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new MicrophoneError(window.isSecureContext ? "unsupported" : "insecure");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: WISHES });
    return new Microphone(stream, await join(stream), onFrame, onLost);
  } catch (error) {
    stream?.getTracks().forEach((track) => track.stop());
    throw new MicrophoneError(KINDS[error.name] ?? "failed", error.message);
  }
}

/** The capture node of a running context that the stream leads into. */
async function join(stream) {
  try {
    return await joinIn(new AudioContext({ sampleRate: SAMPLE_RATE }), stream);
  } catch (error) {
    if (error.name !== "NotSupportedError") throw error;
    return joinIn(new AudioContext(), stream);
  }
}

async function joinIn(context, stream) {
  try {
    const source = context.createMediaStreamSource(stream);
    await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    const capture = new AudioWorkletNode(context, "capture", {
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit",
    });
    source.connect(capture);
    await context.resume();
    return capture;
  } catch (error) {
    await context.close();
    throw error;
  }
}

class Microphone {
  #stream;
  #capture;
  #flushed;

  constructor(stream, capture, onFrame, onLost) {
    this.#stream = stream;
    this.#capture = capture;
    this.#flushed = new Promise((resolve) => {
      capture.port.onmessage = ({ data }) => (data === null ? resolve() : onFrame(data));
    });
    for (const track of stream.getTracks()) track.onended = onLost;
  }

  /** Stop, after the last frame has been handed out. */
  async stop() {
    this.#capture?.port.postMessage("stop");
    const patience = new Promise((resolve) => setTimeout(resolve, LAST_FRAME_MS));
    await Promise.race([this.#flushed, patience]);
    this.drop();
  }

  /** Stop at once; once is enough. */
  drop() {
    const capture = this.#capture;
    if (!capture) return;
    this.#capture = null;
    capture.port.onmessage = null;
    for (const track of this.#stream.getTracks()) {
      track.onended = null;
      track.stop();
    }
    capture.context.close();
  }
}
