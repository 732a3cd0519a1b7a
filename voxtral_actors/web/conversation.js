// The utterances of the page: what has been said, what is being said, and what became of it.
//
// At most one utterance takes audio, `current`; those before it may still wait for their last words.
// Starting one while another takes audio is barge-in: the server drops the other and says so. The
// states of an utterance:
//   waiting     there is no connection; its audio is kept here, up to `MAX_KEPT_FRAMES`
//   live        takes audio
//   finalising  all its audio is sent, the last words are still to come
//   ending      given up here, the server has yet to agree
//   done, cancelled, failed: over, with the reason in `why` unless it is done
//
// When the connection is lost, what the server had of the current utterance is lost with it, and
// that utterance says so; what is spoken from then on goes into a new one and is sent when the
// connection is back.

import { SAMPLE_RATE } from "./pcm.js";
import { whyCancelled, whyFailed } from "./reasons.js";

const MAX_KEPT_FRAMES = 375; // 30 s: as much as the server takes at once, by default
const ABOUT_A_MESSAGE = new Set(["invalid_message", "invalid_payload"]);

/** A name that nobody else has. Not `crypto.randomUUID`: without https there is none. */
export function makeSessionId() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return "page-" + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Conversation {
  current = null;
  #link = null;
  #sessionId;
  #onChange;
  #onDropped;
  #count = 0;
  #living = new Map();

  /** `onChange(utterance)`: something about it is new. `onDropped()`: the current utterance has
   *  ended though nobody here wanted it to, and its source should stop. */
  constructor({ sessionId, onChange, onDropped }) {
    this.#sessionId = sessionId;
    this.#onChange = onChange;
    this.#onDropped = onDropped;
  }

  /** Whether there is anything to cancel. */
  get busy() {
    return this.current !== null || this.#lastAwaited() !== undefined;
  }

  /** Bytes that the network has not taken yet; without a connection it takes none. */
  get backlog() {
    return this.#link ? this.#link.backlog : Infinity;
  }

  /** Start an utterance. `live`: spoken now, so that it makes sense to say how late its text is. */
  begin({ source, live }) {
    const before = this.current;
    this.#count += 1;
    const id = `${this.#sessionId}-${this.#count}`;
    const utterance = {
      id, source, live, state: "waiting", text: "", fresh: "", why: "",
      sentMs: 0, lagMs: null, audioMs: 0, kept: [], ended: false, startedAt: new Date(),
    };
    this.current = utterance;
    this.#living.set(id, utterance);
    if (before?.state === "waiting") this.#end(before, "cancelled", "interrupted");
    else if (before) this.#set(before, "ending");
    this.#set(utterance, "waiting");
    if (this.#link) this.#send(utterance);
  }

  /** Take a frame of the current utterance, an Int16Array. */
  hear(pcm) {
    const { current } = this;
    if (!current) return;
    if (current.state === "live") {
      this.#sendAudio(current, pcm);
    } else if (current.kept.length < MAX_KEPT_FRAMES) {
      current.kept.push(pcm);
    } else {
      this.#end(current, "failed", "The connection was away for too long to keep what was said.");
    }
  }

  /** The current utterance is complete. */
  finish() {
    const { current } = this;
    if (!current) return;
    current.ended = true;
    this.current = null;
    if (current.state === "live") this.#finalise(current);
    else this.#onChange(current);
  }

  /** Give up what is being said, or else what was said last. */
  cancel() {
    const utterance = this.current ?? this.#lastAwaited();
    if (!utterance) return;
    this.current = null;
    if (utterance.state === "waiting") {
      this.#end(utterance, "cancelled", "cancelled");
    } else {
      this.#link?.send("cancel", utterance.id);
      this.#set(utterance, "ending");
    }
  }

  /** The server takes audio over this link from now on. */
  connected(link) {
    this.#link = link;
    for (const utterance of [...this.#living.values()]) this.#send(utterance);
  }

  /** The link is gone. `again`: whether there will be another one. */
  disconnected(why, again) {
    this.#link = null;
    const { current } = this;
    for (const utterance of [...this.#living.values()]) {
      if (utterance.state === "ending") this.#end(utterance, "cancelled", "cancelled");
      else if (utterance.state !== "waiting" || !again) this.#end(utterance, "failed", why, again);
    }
    if (again && current && current.state === "failed") this.begin(current);
  }

  /** Something that the server says about an utterance. */
  take({ type, request_id: id, payload }) {
    const utterance = this.#living.get(id);
    if (!utterance) return;
    if (type === "transcription.delta") {
      utterance.fresh = payload.delta;
      utterance.text += payload.delta;
      utterance.lagMs = utterance.state === "live" ? utterance.sentMs - payload.audio_ms : null;
      this.#onChange(utterance);
    } else if (type === "transcription.done") {
      utterance.text = payload.text;
      utterance.audioMs = payload.usage.audio_seconds * 1_000;
      const goesOn = this.current === utterance;
      this.#end(utterance, "done", "", goesOn);
      if (goesOn) this.#goOnElsewhere(utterance);
    } else if (type === "cancelled") {
      this.#end(utterance, "cancelled", whyCancelled(payload.reason));
    } else if (type === "error" && !ABOUT_A_MESSAGE.has(payload.code)) {
      // A start or an end that was over the limit: the server never acted on it.
      if (payload.code === "rate_limited") this.#link.send("cancel", id);
      this.#end(utterance, "failed", whyFailed(payload));
    }
  }

  /** The server finished an utterance that still takes audio: it is about to close the connection
   *  and starts nothing more on it. What is spoken from now on waits for the next one. */
  #goOnElsewhere(utterance) {
    this.#link = null;
    this.begin(utterance);
  }

  #lastAwaited() {
    return [...this.#living.values()].findLast(({ state }) => state !== "ending");
  }

  #send(utterance) {
    this.#link.send("input_audio_buffer.commit", utterance.id, { final: false });
    this.#set(utterance, "live");
    for (const pcm of utterance.kept.splice(0)) this.#sendAudio(utterance, pcm);
    if (utterance.ended) this.#finalise(utterance);
  }

  #sendAudio(utterance, pcm) {
    this.#link.sendAudio(pcm);
    utterance.sentMs += (pcm.length * 1_000) / SAMPLE_RATE;
  }

  #finalise(utterance) {
    this.#link.send("input_audio_buffer.commit", utterance.id, { final: true });
    this.#set(utterance, "finalising");
  }

  #end(utterance, state, why = "", silently = false) {
    this.#living.delete(utterance.id);
    utterance.why = why;
    utterance.kept.length = 0;
    const wasCurrent = this.current === utterance;
    if (wasCurrent) this.current = null;
    this.#set(utterance, state);
    if (wasCurrent && !silently) this.#onDropped();
  }

  #set(utterance, state) {
    utterance.state = state;
    utterance.fresh = "";
    this.#onChange(utterance);
  }
}
