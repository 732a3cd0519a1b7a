// One WebSocket, from its opening to its close, and the envelope that its messages share.
//
// The page cannot set headers on a WebSocket, so the key travels as a second subprotocol. Audio goes
// as binary frames: they belong to the active utterance and need no base64.

const SUBPROTOCOL = "voxtral.v1";
const KEY_PREFIX = "voxtral-api-key.";

/** The WebSocket that belongs to the page: `/ws` beside it, over TLS if the page came over TLS. */
function address() {
  const url = new URL("ws", document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = url.hash = "";
  return url;
}

export class Link {
  #socket;
  #sessionId;
  #opened = false;
  #advised; // seconds after which the server says to come back

  /** `onEvent` gets each message of the server, `onClose` {code, reason, opened, advised}, once. */
  constructor({ key, sessionId, onEvent, onClose }) {
    this.#sessionId = sessionId;
    this.#socket = new WebSocket(address(), [SUBPROTOCOL, KEY_PREFIX + key]);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => (this.#opened = true);
    this.#socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.type === "error") this.#advised = event.payload.details?.retry_after_s;
      onEvent(event, this);
    };
    this.#socket.onclose = ({ code, reason }) => {
      onClose({ code, reason, opened: this.#opened, advised: this.#advised }, this);
    };
  }

  /** Bytes that the network has not taken yet. */
  get backlog() {
    return this.#socket.bufferedAmount;
  }

  send(type, requestId, payload = {}) {
    const message = { type, session_id: this.#sessionId, request_id: requestId, payload };
    this.#socket.send(JSON.stringify(message)); // closed meanwhile: it is discarded
  }

  sendAudio(pcm) {
    this.#socket.send(pcm);
  }

  /** Leave; `onClose` is not called any more. */
  drop() {
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
  }
}
