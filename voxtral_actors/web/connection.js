// Keeps the page connected: opens links, one at a time, and decides after each close what comes next.
//
// States, as `onState` tells them:
//   offline     there is no key yet, or the last close says that trying again is of no use
//   connecting  a WebSocket is being opened, and has not been let in
//   open        `session.created` came: the server takes audio
//   waiting     until `at`, on the page's clock, for the next attempt
//   asleep      closed for want of anything to say; the next `wake` connects again

import { pauseBefore } from "./backoff.js";
import { whyClosed } from "./reasons.js";

const STEADY_MS = 10_000; // open for so long: the next failure is the first again

export class Connection {
  state = "offline";
  #openLink;
  #onState;
  #onEvent;
  #isNeeded;
  #link = null;
  #failures = 0;
  #openedAt = Infinity;
  #timer = 0;

  /** `openLink({onEvent, onClose})` makes a Link. `isNeeded()`: whether somebody waits to speak. */
  constructor({ openLink, onState, onEvent, isNeeded }) {
    this.#openLink = openLink;
    this.#onState = onState;
    this.#onEvent = onEvent;
    this.#isNeeded = isNeeded;
  }

  /** Connect now, whatever was waited for. */
  connect() {
    this.#leave();
    this.#set("connecting");
    this.#link = this.#openLink({
      onEvent: (event) => this.#hear(event),
      onClose: (close) => this.#closed(close),
    });
  }

  /** Somebody wants to speak. */
  wake() {
    if (this.state === "asleep") this.connect();
  }

  /** What the page waits for may be there: do not wait any longer. */
  hasten() {
    if (this.state === "waiting") this.connect();
  }

  disconnect() {
    this.#leave();
    this.#set("offline");
  }

  #leave() {
    clearTimeout(this.#timer);
    this.#link?.drop();
    this.#link = null;
  }

  #hear(event) {
    if (event.type === "session.created") {
      this.#openedAt = performance.now();
      this.#set("open", { link: this.#link, session: event.payload });
    } else {
      this.#onEvent(event);
    }
  }

  #closed(close) {
    this.#link = null;
    if (performance.now() - this.#openedAt >= STEADY_MS) this.#failures = 0;
    this.#openedAt = Infinity;
    const why = whyClosed(close);
    if (why.next === "stop") {
      this.#set("offline", { why });
    } else if (why.next === "ask" && !this.#isNeeded()) {
      this.#set("asleep", { why });
    } else {
      this.#failures += 1;
      const pause_ms = 1_000 * pauseBefore(this.#failures, close.advised);
      this.#timer = setTimeout(() => this.connect(), pause_ms);
      this.#set("waiting", { why, at: performance.now() + pause_ms });
    }
  }

  #set(state, details = {}) {
    this.state = state;
    this.#onState(state, details);
  }
}
