// The part of the microphone that runs in the browser's audio thread: blocks of 128 samples in,
// frames of PCM16 at 16 kHz out, resampled if the thread has another rate.
//
// Any message to it means "that was all": the last frame, which may be short, and then `null` come
// back, and it ends.

import { Framer, SAMPLE_RATE } from "./pcm.js";
import { Resampler } from "./resampler.js";

class Capture extends AudioWorkletProcessor {
  #framer = new Framer((pcm) => this.port.postMessage(pcm, [pcm.buffer]));
  #resampler = sampleRate === SAMPLE_RATE ? null : new Resampler(sampleRate, SAMPLE_RATE);
  #over = false;

  constructor() {
    super();
    this.port.onmessage = () => this.#finish();
  }

  process([channels]) {
    if (this.#over) return false;
    const samples = channels[0]; // the node mixes down to one; none while the source is silent
    if (samples) this.#framer.push(this.#resampler ? this.#resampler.push(samples) : samples);
    return true;
  }

  #finish() {
    if (this.#over) return;
    this.#over = true;
    if (this.#resampler) this.#framer.push(this.#resampler.flush());
    this.#framer.flush();
    this.port.postMessage(null);
  }
}

registerProcessor("capture", Capture);
