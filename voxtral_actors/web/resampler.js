// Changes the sample rate of a stream, block by block. It is needed where the browser gives the
// microphone at its own rate only; where audio can be captured at 16 kHz it never runs.
//
// Each output sample is a weighted sum of the input around its place in time. The weights are a
// windowed sinc, which lets through what the lower of the two rates can carry and nothing above. The
// input that later samples still need is kept between calls: blocks of 128 samples give the same
// output as one long block.

const ZERO_CROSSINGS = 16; // to each side; more is steeper. For 16 kHz, 9 kHz is 60 dB down
const STEPS = 256; // of the table between two zero crossings, interpolated linearly
const PASS = 0.92; // of the band, so that the filter's slope ends where it starts to fold back
const ROUNDING = 1e-6; // samples: places in time are sums of steps that are no whole numbers

const TABLE = Float32Array.from({ length: ZERO_CROSSINGS * STEPS + 2 }, (_, i) => {
  const x = i / STEPS;
  if (x >= ZERO_CROSSINGS) return 0;
  const sinc = x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
  const turn = (Math.PI * x) / ZERO_CROSSINGS;
  return sinc * (0.42 + 0.5 * Math.cos(turn) + 0.08 * Math.cos(2 * turn)); // Blackman's window
});

function weight(x) {
  const place = Math.abs(x) * STEPS;
  const i = Math.floor(place);
  if (i >= TABLE.length - 1) return 0;
  return TABLE[i] + (place - i) * (TABLE[i + 1] - TABLE[i]);
}

export class Resampler {
  #step; // input samples an output sample
  #cutoff; // zero crossings an input sample
  #reach; // input samples to each side that one output sample looks at
  #kept; // the end of the input so far
  #next; // where in `#kept` the next output sample lies

  constructor(fromRate, toRate) {
    this.#step = fromRate / toRate;
    this.#cutoff = Math.min(1, toRate / fromRate) * PASS;
    this.#reach = Math.ceil(ZERO_CROSSINGS / this.#cutoff);
    this.#kept = new Float32Array(this.#reach); // silence before the start
    this.#next = this.#reach;
  }

  /** The output that the input so far is enough for. */
  push(block) {
    const input = new Float32Array(this.#kept.length + block.length);
    input.set(this.#kept);
    input.set(block, this.#kept.length);
    const left = (input.length - this.#reach - this.#next) / this.#step;
    const count = Math.ceil(left - ROUNDING);
    const output = new Float32Array(Math.max(0, count));
    for (let i = 0; i < output.length; i += 1) {
      output[i] = this.#sampleAt(input, this.#next + i * this.#step);
    }
    this.#next += output.length * this.#step;
    const done = Math.max(0, Math.floor(this.#next) - this.#reach);
    this.#kept = input.slice(done);
    this.#next -= done;
    return output;
  }

  /** The rest, as if silence followed. */
  flush() {
    return this.push(new Float32Array(this.#reach));
  }

  #sampleAt(input, at) {
    const first = Math.max(0, Math.ceil(at - this.#reach));
    const last = Math.min(input.length - 1, Math.floor(at + this.#reach));
    let sum = 0;
    for (let i = first; i <= last; i += 1) sum += input[i] * weight((i - at) * this.#cutoff);
    return sum * this.#cutoff;
  }
}
