// What goes over the wire as audio: PCM16 little endian, 16 kHz, one channel, 80 ms a frame, which
// is the step of the model. Used by the page and, inside the audio thread, by worklet.js.

export const SAMPLE_RATE = 16_000;
export const FRAME_SAMPLES = 1_280;
export const FRAME_MS = (FRAME_SAMPLES / SAMPLE_RATE) * 1_000;

/** Samples of -1 to 1 as 16-bit integers; what is louder is clipped. 1 is the largest of them and
 *  -1 the smallest, which undoes exactly what Chromium does when it decodes 16-bit audio. Typed
 *  arrays have the machine's byte order: little endian, wherever browsers run. */
export function toPcm16(samples) {
  const pcm = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; i += 1) {
    const sample = Math.max(-1, Math.min(1, samples[i]));
    pcm[i] = Math.round(sample * (sample < 0 ? 32_768 : 32_767));
  }
  return pcm;
}

/** Cuts samples that come in pieces of any length into frames. */
export class Framer {
  #emit;
  #frame = new Float32Array(FRAME_SAMPLES);
  #filled = 0;

  /** `emit` gets each frame as an Int16Array of its own. */
  constructor(emit) {
    this.#emit = emit;
  }

  push(samples) {
    let taken = 0;
    while (taken < samples.length) {
      const piece = samples.subarray(taken, taken + FRAME_SAMPLES - this.#filled);
      this.#frame.set(piece, this.#filled);
      this.#filled += piece.length;
      taken += piece.length;
      if (this.#filled === FRAME_SAMPLES) this.flush();
    }
  }

  /** Emit what there is of the last frame. */
  flush() {
    if (this.#filled === 0) return;
    this.#emit(toPcm16(this.#frame.subarray(0, this.#filled)));
    this.#filled = 0;
  }
}

const QUIETEST_DB = -60;

/** How loud a frame is, for a meter: 0 at -60 dB and below, 1 at full scale, even steps in dB. */
export function loudness(pcm) {
  let energy = 0;
  for (const sample of pcm) energy += sample * sample;
  const rms = Math.sqrt(energy / Math.max(1, pcm.length)) / 32_768;
  return Math.max(0, Math.min(1, 1 - (20 * Math.log10(rms + 1e-9)) / QUIETEST_DB));
}
