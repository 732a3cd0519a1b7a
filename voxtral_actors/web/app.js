// The page: puts the parts together, and turns what the user does into what they do.
//
// Who owns what: `connection.js` the link and its reconnects, `conversation.js` the utterances, the
// views their elements. Here is the source of the audio, of which there is at most one, the
// microphone or a recording, and what the buttons mean at each moment.

import { Connection } from "./connection.js";
import { Conversation, makeSessionId } from "./conversation.js";
import { DockView } from "./dock_view.js";
import { forgetKey, keepKey, recallKey, whyNotSendable } from "./key.js";
import { Link } from "./link.js";
import { openMicrophone } from "./microphone.js";
import { microphoneAdvice } from "./microphone_advice.js";
import { NoticeView } from "./notice_view.js";
import { loudness } from "./pcm.js";
import { decode, Player } from "./recording.js";
import { SilenceWatch } from "./silence.js";
import { StatusView } from "./status_view.js";
import { TranscriptView } from "./transcript_view.js";

const $ = (id) => document.getElementById(id);

const transcript = new TranscriptView($("transcript"), () => ($("dropped").hidden = false));
const dock = new DockView($);
const status = new StatusView($);
const notice = new NoticeView({
  root: $("notice"),
  title: $("notice-title"),
  advice: $("notice-advice"),
  command: $("notice-command"),
  next: $("notice-next"),
  countdown: $("notice-countdown"),
  dismiss: $("notice-dismiss"),
});

const sessionId = makeSessionId();
let key = recallKey();
let source = null; // {kind, audio}: what `conversation.current` is fed from
let changing = ""; // a source is being made ready, or stopped: the words for it

const conversation = new Conversation({ sessionId, onChange: showUtterance, onDropped: dropSource });
const connection = new Connection({
  openLink: (handlers) => new Link({ key, sessionId, ...handlers }),
  onEvent: (event) => conversation.take(event),
  onState: showConnection,
  isNeeded: () => conversation.current !== null,
});

// --- The connection ------------------------------------------------------------------------------

function showConnection(state, { why, at, link, session }) {
  status.show(state, session);
  const refused = state === "offline" && why !== undefined;
  if (why) notice.show(why, { at, stays: refused });
  else if (state === "open") notice.hide();
  if (refused) askForKey();
  if (state === "open") {
    keepKey(key);
    conversation.connected(link);
  } else if (state !== "connecting") {
    conversation.disconnected(why?.title ?? "cancelled", state === "waiting");
  }
  refresh();
}

function askForKey() {
  $("key-form").hidden = false;
  $("change-key").hidden = true;
  $("key").focus();
}

function useKey(candidate) {
  const problem = whyNotSendable(candidate);
  $("key-problem").textContent = problem;
  $("key-problem").hidden = !problem;
  if (problem) return askForKey();
  key = candidate;
  $("key").value = "";
  $("key-form").hidden = true;
  $("change-key").hidden = false;
  notice.hide();
  connection.disconnect(); // if it was open, with another key
  connection.connect();
}

// --- Speaking --------------------------------------------------------------------------------------

async function speak() {
  if (changing) return;
  if (source?.kind === "microphone") return stopSpeaking();
  const silence = new SilenceWatch((kind) => notice.show(microphoneAdvice({ kind })));
  const microphone = await open(() =>
    openMicrophone({
      onFrame(pcm) {
        silence.hear(pcm);
        hear(pcm);
      },
      onLost() {
        notice.show(microphoneAdvice({ kind: "lost" }));
        stopSpeaking();
      },
    }),
  );
  if (microphone) start("microphone", microphone, "Microphone", true);
}

async function stopSpeaking() {
  const { current } = conversation;
  changing = "Stopping …";
  refresh();
  await source.audio.stop(); // its last frames still come
  changing = "";
  if (conversation.current === current) finishSource();
  refresh();
}

async function playFile(file) {
  if (changing) return;
  const fast = $("fast").checked;
  const samples = await open(() => decode(file));
  if (!samples) return;
  const backlog = () => conversation.backlog;
  const player = new Player({ samples, fast, backlog, onFrame: hear, onEnd: finishSource });
  start("file", player, file.name, !fast);
}

/** Await what gives a source, and show what it says if it fails. */
async function open(make) {
  changing = "Opening …";
  refresh();
  try {
    return await make();
  } catch (error) {
    notice.show(error.kind ? microphoneAdvice(error) : { title: "The file cannot be used.", advice: error.message });
    return null;
  } finally {
    changing = "";
    refresh();
  }
}

function start(kind, audio, name, live) {
  if (connection.state !== "waiting") notice.hide();
  source?.audio.drop();
  source = { kind, audio };
  conversation.begin({ source: name, live });
  connection.wake();
  refresh();
}

function hear(pcm) {
  dock.level(loudness(pcm));
  conversation.hear(pcm);
}

function startOver() {
  if (source?.kind === "microphone") conversation.begin({ source: "Microphone", live: true });
}

function cancel() {
  conversation.cancel();
  dropSource();
}

function dropSource() {
  source?.audio.drop();
  source = null;
  refresh();
}

/** The source has given all that it has. */
function finishSource() {
  source = null;
  conversation.finish();
  refresh();
}

// --- The page --------------------------------------------------------------------------------------

function showUtterance(utterance) {
  $("empty").hidden = true;
  transcript.show(utterance);
  status.announce(utterance);
  dock.lag(utterance);
  refresh();
}

function refresh() {
  dock.show({
    usable: connection.state !== "offline",
    changing,
    speaking: source?.kind === "microphone",
    busy: conversation.busy,
  });
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value.trim());
});
$("change-key").addEventListener("click", () => {
  forgetKey();
  connection.disconnect();
  askForKey();
});
$("try-now").addEventListener("click", () => connection.hasten());
window.addEventListener("online", () => connection.hasten());
window.addEventListener("hashchange", () => {
  if (location.hash.startsWith("#key=")) useKey(recallKey());
});
$("speak").addEventListener("click", speak);
$("start-over").addEventListener("click", startOver);
$("cancel").addEventListener("click", cancel);
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", ({ target }) => {
  if (target.files.length) playFile(target.files[0]);
  target.value = ""; // the same file may be chosen again
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") cancel();
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
for (const type of ["dragleave", "drop"]) {
  document.addEventListener(type, () => document.body.classList.remove("dropping"));
}
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (file && connection.state !== "offline") playFile(file);
});

refresh();
if (key) useKey(key);
else askForKey();
