// What to do when there is no microphone: for each kind of failure the exact next step.

const KINDS = {
  denied: {
    title: "The microphone is not allowed for this page.",
    advice: "Allow it in the site settings, behind the icon to the left of the address, and press Speak again. If it is allowed there, look in the privacy settings of the system.",
  },
  missing: {
    title: "There is no microphone.",
    advice: "Plug one in, or choose one in the sound settings of the system, and press Speak again.",
  },
  busy: {
    title: "The microphone is in use.",
    advice: "Another program or tab holds it. End the call or recording there and press Speak again.",
  },
  unsupported: {
    title: "This browser has no microphone for pages.",
    advice: "Use a current Chrome, Edge, Firefox or Safari.",
  },
  lost: {
    title: "The microphone is gone.",
    advice: "It was unplugged or taken away. What was said until then is being finished.",
  },
  silent: {
    title: "The microphone gives no sound.",
    advice: "It may be muted, by a switch on it or in the sound settings of the system.",
  },
  failed: {
    title: "The microphone could not be started.",
    advice: "",
  },
};

/** {title, advice, command?} for a MicrophoneError, or for one of the kinds above. */
export function microphoneAdvice({ kind, message }) {
  if (kind === "insecure") return insecure();
  const { title, advice } = KINDS[kind];
  return { title, advice: advice || `The browser says: ${message}` };
}

/** Browsers give the microphone to pages over https, and to this machine's own. */
function insecure() {
  const port = location.port || "80";
  return {
    title: "The microphone needs https, or localhost.",
    advice: `This page came over plain http from ${location.host}, and browsers keep the microphone from such pages. Put a TLS proxy in front of the server and open https://${location.hostname}/ – or run this on your own machine and open http://localhost:${port}/ :`,
    command: `ssh -N -L ${port}:localhost:${port} ${location.hostname}`,
  };
}
