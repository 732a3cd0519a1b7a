// Notices a microphone that gives nothing at all: muted, or the wrong one. A quiet room is not that.

import { FRAME_MS } from "./pcm.js";

const NOTHING = 8; // of 32768: the last bits of a microphone are never still
const SUSPICIOUS_MS = 3_000;

export class SilenceWatch {
  #silentMs = 0;
  #onSilence;

  /** `onSilence("silent")` is called once each time that a silence has become suspicious. */
  constructor(onSilence) {
    this.#onSilence = onSilence;
  }

  hear(pcm) {
    if (pcm.some((sample) => Math.abs(sample) > NOTHING)) {
      this.#silentMs = 0;
      return;
    }
    const before = this.#silentMs;
    this.#silentMs += FRAME_MS;
    if (before < SUSPICIOUS_MS && this.#silentMs >= SUSPICIOUS_MS) this.#onSilence("silent");
  }
}
