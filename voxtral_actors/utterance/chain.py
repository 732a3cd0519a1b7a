"""One utterance as a chain of engine streams: what is accepted is transcribed, whatever happens to
the streams.

The chain joins the three others: every sample goes into the journal, the segmenter says where the
next stream begins, the stitcher makes one text of all. It does nothing by itself. Each method
returns what has to be done, in order; `Open` is answered with `opened` or `refused` before anything
else is done.

    accepted audio --> journal --> the last stream ... the one before it (its last words)
                          ^                 |                 |
                          +---- lost -------+-----------------+--> stitcher --> Say

There are two streams at most, and the second only until the first has said its last words. If a
stream is lost, all are let go, and when the engine is there again (`resume`) one stream hears
everything that is not settled. Until then audio is kept; nothing else is different.

An utterance whose audio is complete ends in `Complete`, or in `GiveUp` if there is no way to hear
some of it again.
"""

from __future__ import annotations

import attrs

from voxtral_actors.limits import BYTES_PER_SAMPLE, SAMPLE_RATE
from voxtral_actors.utterance.actions import (
    Action,
    Complete,
    Feed,
    Finish,
    GiveUp,
    LetGo,
    Open,
    Say,
)
from voxtral_actors.utterance.journal import Gap, Journal, JournalStatistics, Replay, Said
from voxtral_actors.utterance.segmenter import Pause, Policy, Reason, Roll, Segmenter
from voxtral_actors.utterance.stitch import Stitcher
from voxtral_actors.utterance.timing import Timing

PIECE_BYTES = SAMPLE_RATE * BYTES_PER_SAMPLE
"""Audio that is looked at in one go: a stream ends at the end of a piece, so a second of audio is
how late a roll may be noticed in a message that brings a minute."""


@attrs.define
class _Stream:
    """A living stream; it hears the utterance from `begins` on."""

    begins: int
    finished: bool = False


@attrs.frozen
class ChainStatistics:
    """What became of one utterance so far."""

    journal: JournalStatistics
    rolls: dict[Reason, int]
    replays: int
    replayed: int
    """Samples that were handed over more than once because a stream was lost."""
    refused: int
    """Streams that the engine had no room for."""
    waiting: bool
    """No stream hears what comes: the engine is away or full."""


class Chain:
    """See the module. `cap` is the journal's, in samples."""

    def __init__(self, policy: Policy, timing: Timing, cap: int) -> None:
        self._timing = timing
        self._journal = Journal(cap, timing)
        self._segmenter = Segmenter(policy, timing)
        self._stitcher = Stitcher(timing)
        self._streams: dict[int, _Stream] = {}
        self._key = 0
        self._opening: Roll | None = None
        """Why the stream that is being opened is: None for the first one and for a replay."""
        self._coming = b""
        """Audio that came while a stream was being opened."""
        self._fed = 0
        """How much of the utterance the last stream has had."""
        self._consumed = self._position = self._tokens_in = self._tokens_out = 0
        self._complete = self._over = False
        self._rolls = dict.fromkeys(Reason, 0)
        self._replays = self._replayed = self._refused = 0

    @property
    def waiting(self) -> bool:
        """No stream hears what comes: `open` as soon as the engine may have room."""
        return not (self._streams or self._over)

    @property
    def consumed(self) -> int:
        """How far the engine is, or was when it was furthest."""
        return self._consumed

    @property
    def position(self) -> int:
        """How far the stream is that said something last."""
        return self._position

    @property
    def behind_s(self) -> float:
        """Seconds of audio that the engine has not used yet."""
        return (self._journal.end - self._consumed) / SAMPLE_RATE

    @property
    def said_until(self) -> int:
        """All text about the audio before was said."""
        return self._journal.said_until

    @property
    def journal(self) -> JournalStatistics:
        return self._journal.statistics()

    def statistics(self) -> ChainStatistics:
        return ChainStatistics(
            journal=self._journal.statistics(),
            rolls=dict(self._rolls),
            replays=self._replays,
            replayed=self._replayed,
            refused=self._refused,
            waiting=self.waiting,
        )

    # --- The client's side -------------------------------------------------------------------

    def audio(self, pcm: bytes) -> list[Action]:
        """More audio: any number of whole samples."""
        self._coming += pcm
        return self._advance()

    def finish(self) -> list[Action]:
        """No more audio comes."""
        self._complete = True
        return self._advance()

    def abandon(self) -> list[Action]:
        """The utterance is over, however far it is: let go of all streams."""
        self._over = True
        return self._let_go()

    # --- The engine's side -------------------------------------------------------------------

    def open(self) -> list[Action]:
        """Open the first stream, or one in place of those that were lost."""
        assert self.waiting, "streams are open"  # noqa: S101 - a bug of ours
        return self._open(None)

    def opened(self, stream: int) -> list[Action]:
        roll, self._opening = self._opening, None
        if roll is None or roll.reason is Reason.MUTE:
            todo = self._let_go()
            replay = self._journal.replay()
            assert isinstance(replay, Replay)  # noqa: S101 - else nothing was opened
            begins = replay.at
            self._stitcher.again(stream, replay.said)
            if self._fed:
                self._replays += 1
                self._replayed += max(self._fed - begins, 0)
        else:
            begins = max(roll.at, self._journal.start)
            old, hearing = next(iter(self._streams.items()))
            hearing.finished = True
            todo = [Finish(old)]
            if roll.reason is Reason.PAUSE:
                self._stitcher.after_pause(stream)
            else:
                self._stitcher.overlapping(stream, begins, roll.end)
        if roll is not None:
            self._rolls[roll.reason] += 1
        self._segmenter.begin(begins, mute=roll is not None and roll.reason is Reason.MUTE)
        self._streams[stream] = _Stream(begins)
        self._fed = self._position = begins
        return [*todo, *self._feed(self._journal.end), *self._advance()]

    def refused(self, stream: int) -> list[Action]:
        """The engine has no room for this stream, or is away."""
        assert stream == self._key  # noqa: S101 - it is the one being opened
        self._refused += 1
        roll, self._opening = self._opening, None
        return [] if roll is None else [*self._feed(self._journal.end), *self._advance()]

    def heard(self, stream: int, text: str, consumed: int) -> list[Action]:
        """A stream has used `consumed` samples of what it was fed, and has final text or none."""
        hearing = self._streams.get(stream)
        if hearing is None:
            return []
        consumed += hearing.begins
        self._position = consumed
        late = self._timing.delay if hearing.finished else 0
        said = Said(text, consumed - self._timing.delay, late)
        todo = self._say(self._stitcher.hear(stream, said), consumed)
        newest = stream == next(reversed(self._streams))
        mute = self._segmenter.heard(consumed, text=bool(text.strip())) if newest else None
        if len(self._streams) > 1:
            return todo
        if not self._stitcher.waiting:
            self._journal.settle(consumed, self._segmenter.unheard_from)
        replayable = isinstance(self._journal.replay(), Replay)
        if mute is not None and replayable:
            todo += self._open(mute)
        return todo

    def ended(self, stream: int, prompt_tokens: int, completion_tokens: int) -> list[Action]:
        """A stream has said everything."""
        hearing = self._streams.get(stream)
        if hearing is None:
            return []
        if not hearing.finished:  # nobody told it to: what was not heard is heard by another one
            return self.lost(stream)
        self._tokens_in += prompt_tokens
        self._tokens_out += completion_tokens
        todo = self._say(self._stitcher.end(stream), self._consumed)
        del self._streams[stream]
        if not self._streams:
            self._over = True
            todo.append(Complete(self._tokens_in, self._tokens_out))
        return todo

    def lost(self, stream: int) -> list[Action]:
        """A stream is gone. Those beside it are let go: one stream hears again what all had."""
        if self._streams.pop(stream, None) is None:
            return []
        todo = self._let_go()
        replay = self._journal.replay()
        return [*todo, *self._give_up(replay)] if isinstance(replay, Gap) else todo

    # --- What all of them do -----------------------------------------------------------------

    def _advance(self) -> list[Action]:
        """Take the audio that has come, up to where a stream has to be opened first."""
        todo: list[Action] = []
        while self._coming and self._opening is None and not self._over:
            piece, self._coming = self._coming[:PIECE_BYTES], self._coming[PIECE_BYTES:]
            todo += self._take(piece)
        if self._complete and not self._coming and self._opening is None and self._streams:
            last, hearing = next(reversed(self._streams.items()))
            if not hearing.finished:
                hearing.finished = True
                todo.append(Finish(last))
        return todo

    def _take(self, piece: bytes) -> list[Action]:
        forgotten = self._journal.append(piece)
        if forgotten and self.waiting and isinstance(gap := self._journal.replay(), Gap):
            return self._give_up(gap)
        roll: Roll | None = None
        for note in self._segmenter.push(piece):
            if isinstance(note, Pause):
                self._journal.pause(note.at)
            elif roll is None and len(self._streams) == 1:
                roll = note
        if roll is None:
            return self._feed(self._journal.end)
        return [*self._feed(roll.end), *self._open(roll)]

    def _feed(self, end: int) -> list[Action]:
        """Hand over what the last stream has not had, up to a position."""
        if not self._streams or self._fed >= end:
            return []
        begins, self._fed = self._fed, end
        return [Feed(next(reversed(self._streams)), self._journal.audio(begins, end))]

    def _open(self, roll: Roll | None) -> list[Action]:
        self._key += 1
        self._opening = roll
        return [Open(self._key)]

    def _say(self, texts: list[Said], consumed: int) -> list[Action]:
        self._consumed = max(self._consumed, consumed)
        text = ""
        for said in texts:
            self._journal.say(said)
            text += said.text
        return [Say(text, self._consumed)] if text else []

    def _let_go(self) -> list[Action]:
        living = list(self._streams)
        self._streams.clear()
        return [LetGo(stream) for stream in living]

    def _give_up(self, gap: Gap) -> list[Action]:
        self._over = True
        return [GiveUp(gap)]
