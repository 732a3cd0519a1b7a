// The controls at the lower edge: which of them work at the moment, the level of the microphone, and
// how far the text is behind what is said.

const FALL = 0.82; // of the level, a frame: it rises at once and falls slowly, as meters do
const LATE_MS = 3_000;

const ACTIVITIES = {
  waiting: "Kept until connected",
  live: "Listening",
  finalising: "Finishing",
};

export class DockView {
  #speak;
  #startOver;
  #cancel;
  #choose;
  #files;
  #activity;
  #level;
  #shown = 0;

  /** `find` gives an element by its id. */
  constructor(find) {
    this.#speak = find("speak");
    this.#startOver = find("start-over");
    this.#cancel = find("cancel");
    this.#choose = find("choose");
    this.#files = find("files");
    this.#activity = find("activity");
    this.#level = find("level");
  }

  /** `usable`: there is, or will be, a connection; `speaking`: the microphone is on; `busy`: an
   *  utterance could be cancelled; `changing`: the words for what is being started or stopped. */
  show({ usable, changing, speaking, busy }) {
    // Not while changing: a button that is disabled loses the focus, and who is at the keyboard
    // would have to look for it. A press that comes too early is ignored.
    this.#speak.disabled = !usable;
    this.#speak.textContent = speaking ? "Stop" : "Speak";
    this.#speak.classList.toggle("on", speaking);
    this.#disable(this.#startOver, !speaking);
    this.#disable(this.#cancel, !busy);
    this.#choose.disabled = Boolean(changing) || !usable;
    this.#files.hidden = busy; // its place is the activity's; a file can be dropped at any time
    if (changing) this.#activity.textContent = changing;
    else if (!busy) this.#activity.textContent = "";
    if (!busy) this.level(0);
  }

  /** A button that goes hands the focus to the one that is always there. */
  #disable(button, gone) {
    if (gone && button === document.activeElement) this.#speak.focus();
    button.disabled = gone;
  }

  /** From 0 to 1. */
  level(loudness) {
    this.#shown = loudness === 0 ? 0 : Math.max(loudness, this.#shown * FALL);
    this.#level.style.setProperty("--level", this.#shown.toFixed(3));
  }

  lag({ live, state, lagMs }) {
    if (!(state in ACTIVITIES)) return;
    const known = state === "live" && live && lagMs !== null;
    this.#activity.classList.toggle("late", known && lagMs > LATE_MS);
    this.#activity.textContent = known
      ? `Text ${(Math.max(0, lagMs) / 1_000).toFixed(1)} s behind`
      : ACTIVITIES[state];
  }
}
