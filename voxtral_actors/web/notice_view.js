// The notice above the transcript: what is wrong in plain words, what to do, and, while the page
// waits for its next attempt, how long that is and a button not to wait.

const TICK_MS = 250;

export class NoticeView {
  #parts;
  #timer = 0;

  /** `parts` are the notice's elements by name. */
  constructor(parts) {
    this.#parts = parts;
    parts.dismiss.addEventListener("click", () => this.hide());
  }

  /** Show {title, advice, command?}. With `at`, a time on the page's clock, it counts down to it;
   *  without, it can be dismissed unless `stays`. */
  show({ title, advice, command = "" }, { at, stays = false } = {}) {
    const parts = this.#parts;
    parts.title.textContent = title;
    parts.advice.textContent = advice;
    parts.command.hidden = !command;
    parts.command.firstElementChild.textContent = command;
    parts.next.hidden = at === undefined;
    parts.dismiss.hidden = at !== undefined || stays;
    parts.root.hidden = false;
    clearInterval(this.#timer);
    if (at === undefined) return;
    const tick = () => {
      const seconds = Math.max(0, Math.ceil((at - performance.now()) / 1_000));
      parts.countdown.textContent = `Next attempt in ${seconds} s`;
    };
    tick();
    this.#timer = setInterval(tick, TICK_MS);
  }

  hide() {
    clearInterval(this.#timer);
    this.#parts.root.hidden = true;
  }
}
