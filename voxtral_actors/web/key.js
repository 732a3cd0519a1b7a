// The key: where it comes from, where it is kept, and what it may consist of.
//
// It may come in the fragment of the address (`/#key=…`), which browsers do not send to servers; it
// is taken out of the address bar at once, so that it is neither copied along nor bookmarked. It is
// kept in the tab's session storage: a reload does not ask for it again, closing the tab forgets it.

const STORED = "voxtral-key";

// What RFC 9110 calls a token: the key travels in Sec-WebSocket-Protocol, the one header of the
// handshake that a page can set, and an item of it cannot hold anything else.
const NOT_IN_TOKENS = /[^!#$%&'*+\-.^_`|~0-9A-Za-z]/u;

/** The key from the address or from before the reload; empty if there is none. */
export function recallKey() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given === null) return sessionStorage.getItem(STORED) ?? "";
  history.replaceState(null, "", location.pathname + location.search);
  return given.trim();
}

export function keepKey(key) {
  sessionStorage.setItem(STORED, key);
}

export function forgetKey() {
  sessionStorage.removeItem(STORED);
}

/** Why a browser cannot send this key, or an empty text if it can. */
export function whyNotSendable(key) {
  if (!key) return "Enter a key.";
  const odd = NOT_IN_TOKENS.exec(key)?.[0];
  if (odd === undefined) return "";
  const shown = odd.trim() ? `“${odd}”` : "a space";
  return `A browser cannot send a key with ${shown} in it. Ask for one of letters, digits, “-” and “_”; “openssl rand -hex 32” makes one.`;
}
