// A recording: decoded by the browser, and played out as frames at the pace of speech or faster.

import { FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE, toPcm16 } from "./pcm.js";

const MAX_BYTES = 200 * 2 ** 20; // decoding holds all of it in memory, several times over
const MAX_BACKLOG_BYTES = 256 * 1024; // 8 s of audio that the network has not taken: wait for it
const LOOK_MS = 20;

/** The message is for the reader of the page. */
export class RecordingError extends Error {}

/** All of a file's audio as samples at 16 kHz, its channels mixed into one. Raises RecordingError. */
export async function decode(file) {
  if (file.size > MAX_BYTES) {
    throw new RecordingError("It is too large for a browser. Use “voxtral-actors transcribe”.");
  }
  // A context of that rate resamples whatever it decodes.
  const context = new OfflineAudioContext(1, 1, SAMPLE_RATE);
  let audio;
  try {
    audio = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new RecordingError("The browser cannot read it as audio.");
  }
  const samples = new Float32Array(audio.length);
  for (let channel = 0; channel < audio.numberOfChannels; channel += 1) {
    const part = audio.getChannelData(channel);
    for (let i = 0; i < part.length; i += 1) samples[i] += part[i] / audio.numberOfChannels;
  }
  return samples;
}

export class Player {
  #timer = 0;

  /** Starts to hand frames to `onFrame`; `onEnd` is called after the last one. `backlog()` tells
   *  how many bytes wait for the network. */
  constructor({ samples, fast, backlog, onFrame, onEnd }) {
    const startedAt = performance.now();
    let sent = 0;
    const isDue = () => fast || performance.now() >= startedAt + (sent / FRAME_SAMPLES + 1) * FRAME_MS;
    const step = () => {
      while (sent < samples.length && isDue() && backlog() < MAX_BACKLOG_BYTES) {
        onFrame(toPcm16(samples.subarray(sent, sent + FRAME_SAMPLES)));
        sent += FRAME_SAMPLES;
      }
      if (sent < samples.length) this.#timer = setTimeout(step, LOOK_MS);
      else onEnd();
    };
    this.#timer = setTimeout(step, 0);
  }

  drop() {
    clearTimeout(this.#timer);
  }
}
