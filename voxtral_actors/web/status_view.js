// The line on top: whether the page is connected, and to which engine; and the words for those who
// hear the page instead of seeing it.
//
// A screen reader is told each utterance once, when it is over: text that comes in twelve pieces a
// second cannot be listened to beside one's own voice.

const STATES = {
  offline: "Not connected",
  connecting: "Connecting",
  open: "Ready",
  waiting: "Waiting to reconnect",
  asleep: "Paused",
};

export class StatusView {
  #state;
  #words;
  #server;
  #announcer;

  /** `find` gives an element by its id. */
  constructor(find) {
    this.#state = find("state");
    this.#words = find("state-words");
    this.#server = find("server");
    this.#announcer = find("announcer");
  }

  /** `session` is the payload of `session.created`, if the connection has just been opened. */
  show(state, session) {
    this.#state.dataset.state = state;
    this.#words.textContent = STATES[state];
    if (!session) return;
    const { engine, model, transcription_delay_ms: delay, note } = session;
    const served = [engine, model, delay ? `${delay} ms of delay` : ""].filter(Boolean).join(" · ");
    this.#server.textContent = note ? `${served}. ${note}` : served;
  }

  announce({ state, text, why }) {
    if (state === "done") this.#announcer.textContent = text.trim() || "No speech was heard.";
    else if (state === "failed" || state === "cancelled") this.#announcer.textContent = why;
  }
}
