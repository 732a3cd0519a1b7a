// Every reason for which a connection or an utterance ends, in plain words. The only place for them.
//
// `CLOSES` has a row for each row of the server's table of close codes; a test holds the two
// together. A close is known by its reason, the slug in the Close frame. `next` says what the page
// does: "retry" by itself after a pause, "ask" when somebody next wants to speak, "stop" until
// something has been changed.

export const CLOSES = {
  end: { code: 1000, next: "ask", title: "The session is over.", advice: "Press Speak to begin another." },
  authentication_failed: {
    code: 1008,
    next: "stop",
    title: "The key was not accepted.",
    advice: "Look for a missing or an extra character, or ask whoever runs this server for a new one.",
  },
  origin_not_allowed: {
    code: 1008,
    next: "stop",
    title: "The server does not take this page.",
    advice: "Open the page at the server’s own address. If it is meant to be here, its address has to be added to WS_ALLOWED_ORIGINS on the server.",
  },
  message_too_big: {
    code: 1009,
    next: "stop",
    title: "A message was larger than the server takes.",
    advice: "WS_MAX_MESSAGE_BYTES on the server must leave room for 80 ms of audio: 2560 bytes.",
  },
  internal_error: {
    code: 1011,
    next: "retry",
    title: "The server failed.",
    advice: "The fault is not yours; its log says more.",
  },
  shutting_down: {
    code: 1012,
    next: "retry",
    title: "The server is being restarted.",
    advice: "The page connects again as soon as it, or the one that takes over, is there.",
  },
  server_at_capacity: {
    code: 1013,
    next: "retry",
    title: "All places are taken.",
    advice: "The server has as many connections as it may have. You get the next one that is free.",
  },
  engine_unavailable: {
    code: 1013,
    next: "retry",
    title: "The recogniser is starting.",
    advice: "A large model takes about a minute.",
  },
  idle_timeout: {
    code: 4000,
    next: "ask",
    title: "Paused, since nothing was said for a while.",
    advice: "Press Speak to go on.",
  },
  max_duration: {
    code: 4003,
    next: "retry",
    title: "This connection was open for as long as one may be.",
    advice: "The page opens another.",
  },
  slow_consumer: {
    code: 4008,
    next: "retry",
    title: "Your browser did not take the text for too long.",
    advice: "That happens when a computer sleeps or a network breaks off.",
  },
  too_many_bad_messages: {
    code: 4009,
    next: "stop",
    title: "The server could not make sense of this page.",
    advice: "The page may be older than the server: reload it.",
  },
};

// What the browser itself says of a connection that ended without a Close of the server.
const UNREACHABLE = {
  next: "retry",
  title: "The server cannot be reached.",
  advice: "It may be down, or a firewall or proxy in between does not let WebSockets through.",
};
const LOST = {
  next: "retry",
  title: "The connection was lost.",
  advice: "The network broke off, or the server was stopped.",
};

/** The words for a close. `opened`: whether the WebSocket had been open at all. */
export function whyClosed({ code, reason, opened }) {
  const row = Object.hasOwn(CLOSES, reason) ? CLOSES[reason] : undefined;
  if (row?.code === code) return row;
  return opened ? LOST : UNREACHABLE;
}

// Errors that end an utterance, by their code.
export const ERRORS = {
  authentication_failed: "The key was not accepted.",
  origin_not_allowed: "The server does not take this page.",
  server_at_capacity: "The recogniser has no place free just now. Try again.",
  engine_unavailable: "The recogniser stopped. Say it again in a moment.",
  shutting_down: "The server is being restarted.",
  invalid_message: "The server did not understand this page.",
  invalid_payload: "The server did not understand this page.",
  rate_limited: "Too many utterances in a short time. Wait a little.",
  backlog_exceeded: "The recogniser could not keep up.",
  slow_consumer: "Your browser did not take the text for too long.",
  internal_error: "The server failed.",
};

/** The words for an error event; one that is not known speaks for itself. */
export function whyFailed({ code, message }) {
  return Object.hasOwn(ERRORS, code) ? ERRORS[code] : String(message);
}

// Reasons of `cancelled` that need no more words than these.
const CANCELS = {
  superseded: "interrupted",
  client_request: "cancelled",
  end: "cancelled",
};

/** The words for a cancelled utterance: those of the close that took it along, if one did. */
export function whyCancelled(reason) {
  if (Object.hasOwn(CANCELS, reason)) return CANCELS[reason];
  return Object.hasOwn(CLOSES, reason) ? CLOSES[reason].title : "cancelled";
}
