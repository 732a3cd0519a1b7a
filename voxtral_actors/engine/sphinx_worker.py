"""One recogniser process of the embedded engine: audio on stdin, events on stdout.

The decoder holds the GIL while it computes, so every stream has a process of its own. A worker is
disposable: it serves one stream and is then killed, so nothing that one speaker said (cepstral
means, noise levels) reaches the next. Neither trio nor anything else of the server is loaded here.

Rules:

1. To the worker: LENGTH, then as many bytes of PCM16. Length 0 says that no more audio comes.
2. From the worker: HEADER (kind, samples consumed, length), then as many bytes of UTF-8 text.
   READY first; then TEXT and PROGRESS; FINISHED last, after the last TEXT.
3. `consumed` counts samples that were decoded or found silent, never samples merely read: the pipe
   is read one small piece at a time, so what waits is seen to wait.
4. The parent alone decides when a worker ends: SIGINT and SIGTERM, which a terminal and a service
   manager send to the whole group, are ignored. The end of stdin means that the parent is gone.
   (PR_SET_PDEATHSIG is no help: it fires when the *thread* that started the process ends, and trio
   starts processes in threads that come and go.)
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections import deque
from typing import IO, TYPE_CHECKING, Final

from voxtral_actors import limits
from voxtral_actors.engine import sphinx_limits

if TYPE_CHECKING:
    from pocketsphinx import Decoder, Vad

LENGTH: Final = struct.Struct("<I")
HEADER: Final = struct.Struct("<cQI")
READY, TEXT, PROGRESS, FINISHED = KINDS = b"R", b"T", b"P", b"F"

MODULE: Final = "voxtral_actors.engine.sphinx_worker"


class Recogniser:
    """Cuts a stream into speech segments and decodes each while it is spoken.

    The voice detector votes on every frame. Enough votes among the last few start a segment, which
    begins with the frames kept from before, so that no first consonant is lost; almost none end it.
    The text of a segment is final: nothing is ever said about one that still goes on.
    """

    def __init__(self, decoder: Decoder, vad: Vad) -> None:
        self._decoder = decoder
        self._vad = vad
        self.frame_bytes: int = vad.frame_bytes
        self._before: deque[bytes] = deque(maxlen=sphinx_limits.PREROLL_FRAMES)
        self._votes: deque[bool] = deque(maxlen=sphinx_limits.VOTES)
        self._speaking = False
        self._segment_frames = 0

    def frame(self, pcm: bytes) -> str:
        """Take one whole frame; the text of the segment that ended with it, or nothing."""
        self._votes.append(self._vad.is_speech(pcm))
        if self._speaking:
            self._decoder.process_raw(pcm)
            self._segment_frames += 1
            if sum(self._votes) <= sphinx_limits.END_VOTES:
                return self._end()
            if self._must_cut():
                text = self._end()
                self._start()  # the speech goes on
                return text
            return ""
        self._before.append(pcm)
        if sum(self._votes) >= sphinx_limits.START_VOTES:
            self._start()
        return ""

    def finish(self, tail: bytes) -> str:
        """The stream ends with `tail`, less than a frame; the text of what was left, or nothing."""
        if not self._speaking and sum(self._votes) >= sphinx_limits.TAIL_VOTES:
            self._start()
        if not self._speaking:
            return ""
        if tail:
            self._decoder.process_raw(tail)
        return self._end()

    def _start(self) -> None:
        self._decoder.start_utt()
        for pcm in self._before:
            self._decoder.process_raw(pcm)
        self._segment_frames = len(self._before)
        self._before.clear()
        self._speaking = True

    def _end(self) -> str:
        self._decoder.end_utt()
        self._speaking = False
        self._segment_frames = 0
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr.strip() if hypothesis else ""

    def _must_cut(self) -> bool:
        if self._segment_frames >= sphinx_limits.SEGMENT_MAX_FRAMES:
            return True
        return self._segment_frames >= sphinx_limits.SEGMENT_LONG_FRAMES and not any(
            list(self._votes)[-sphinx_limits.LULL_FRAMES :]
        )


def make_recogniser() -> Recogniser:
    """Load the model: a third of a second and 100 MB."""
    from pocketsphinx import Decoder, Vad

    # The second pass (fwdflat) would start at the segment's end and take a twentieth of its length,
    # and on read speech neither it nor the lattice search (bestpath) finds more of the words.
    decoder = Decoder(loglevel="FATAL", fwdflat=False, bestpath=False)
    vad = Vad(sphinx_limits.VAD_MODE, limits.SAMPLE_RATE, sphinx_limits.FRAME_S)
    return Recogniser(decoder, vad)


def serve(audio: IO[bytes], events: IO[bytes], recogniser: Recogniser) -> None:
    """Transcribe one stream; returns after FINISHED, or when the parent is gone."""
    consumed = reported = 0
    said = False
    pending = bytearray()

    def tell(kind: bytes, text: str = "") -> None:
        payload = text.encode()
        events.write(HEADER.pack(kind, consumed, len(payload)) + payload)
        events.flush()

    def say(text: str) -> None:
        nonlocal said
        if text:
            tell(TEXT, f" {text}" if said else text)
            said = True

    tell(READY)
    size = recogniser.frame_bytes
    while len(length := audio.read(LENGTH.size)) == LENGTH.size:
        (count,) = LENGTH.unpack(length)
        if count == 0:
            consumed += len(pending) // limits.BYTES_PER_SAMPLE
            say(recogniser.finish(bytes(pending)))
            tell(FINISHED)
            return
        pending += audio.read(count)
        while len(pending) >= size:
            text = recogniser.frame(bytes(pending[:size]))
            del pending[:size]
            consumed += size // limits.BYTES_PER_SAMPLE
            if text:
                say(text)
                reported = consumed
        if consumed - reported >= sphinx_limits.PROGRESS_SAMPLES:
            tell(PROGRESS)
            reported = consumed


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints in this process must not end up among the events
    try:
        serve(sys.stdin.buffer, events, make_recogniser())
    except BrokenPipeError:
        os._exit(
            0
        )  # the parent is gone: nobody is left to tell, not even at a flush on the way out


if __name__ == "__main__":
    main()
