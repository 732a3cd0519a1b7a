// How long to wait before the next attempt to connect. Pure: chance is an argument.
//
// The pause doubles with each attempt that failed, from what the server advised, or one second, up
// to half a minute. Half of it is left to chance, so that all the pages that lost one server do not
// come back to the next one in the same moment.

const FIRST_S = 1;
const LONGEST_S = 30;

/** Seconds until the next attempt. `failures` in a row so far, from 1; `advised` by the server. */
export function pauseBefore(failures, advised, random = Math.random) {
  const doubled = (advised || FIRST_S) * 2 ** Math.min(failures - 1, 16);
  const whole = Math.max(Math.min(doubled, LONGEST_S), advised || 0);
  // Who was told when to come back comes no earlier, else the pause is cut by up to a half.
  return advised ? whole * (1 + random() / 2) : whole * (1 - random() / 2);
}
