// The transcript on the page: one list item an utterance, text in it as text nodes and nothing else.
//
// Words that have just come stand apart for a moment, each piece in a span that fades into the text;
// when there are many, the older ones become plain text. An utterance that is over is one piece.

const MAX_FRESH = 24;
const MAX_ITEMS = 500;
const NEAR_END_PX = 120; // who has scrolled further up is reading, and is left alone

const LABELS = {
  waiting: "waiting for the connection",
  live: "listening",
  finalising: "finishing",
  ending: "stopping",
};

export class TranscriptView {
  #list;
  #onTrim;
  #items = new Map();

  /** `onTrim` is called when the oldest item has been taken away. */
  constructor(list, onTrim) {
    this.#list = list;
    this.#onTrim = onTrim;
  }

  show(utterance) {
    const following = this.#isAtEnd();
    const item = this.#items.get(utterance.id) ?? this.#add(utterance);
    const over = !(utterance.state in LABELS);
    item.root.dataset.state = utterance.state;
    item.label.textContent = LABELS[utterance.state] ?? describe(utterance);
    if (utterance.fresh) this.#append(item.text, utterance.fresh);
    else if (over) item.text.textContent = utterance.text.trim();
    if (over) this.#items.delete(utterance.id);
    if (following) window.scrollTo({ top: document.documentElement.scrollHeight });
  }

  #add({ id, source, startedAt }) {
    const root = document.createElement("li");
    const text = element("p", "text");
    text.dir = "auto";
    const about = element("p", "about");
    const time = element("time", "", startedAt.toLocaleTimeString([], { timeStyle: "short" }));
    time.dateTime = startedAt.toISOString();
    const label = element("span", "label");
    about.append(time, " · ", element("span", "source", source), " · ", label);
    root.append(text, about);
    this.#list.append(root);
    if (this.#list.childElementCount > MAX_ITEMS) {
      this.#list.firstElementChild.remove();
      this.#onTrim();
    }
    const item = { root, text, label };
    this.#items.set(id, item);
    return item;
  }

  #append(text, delta) {
    const words = text.childNodes.length ? delta : delta.trimStart();
    text.append(element("span", "fresh", words));
    if (text.childElementCount <= MAX_FRESH) return;
    const oldest = text.firstElementChild;
    oldest.replaceWith(oldest.textContent);
    text.normalize();
  }

  #isAtEnd() {
    const { scrollHeight } = document.documentElement;
    return scrollHeight - window.scrollY - window.innerHeight < NEAR_END_PX;
  }
}

function describe({ state, why, text, audioMs }) {
  if (state !== "done") return why;
  const seconds = `${(audioMs / 1_000).toFixed(1)} s`;
  return text.trim() ? seconds : `${seconds}, no speech in it`;
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}
