"""Audio made of words, a recogniser for it, and a room in which a `Chain` works with both; pure.

Each word spoken has a loudness of its own, by which the recogniser knows it. A word that it hears
as a whole is said in tokens of a few letters, one a step, from the model's delay after the word's
end on. Of a word that was cut it hears what is left, its first letters or its last ones, unless
that is less than a quarter.

`Room` plays the bridge: it carries out what the chain wants, and its engine loses streams, has no
room, or falls silent when a test says so.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Final

import attrs

from voxtral_actors.limits import SAMPLE_RATE
from voxtral_actors.utterance import actions
from voxtral_actors.utterance.actions import Action
from voxtral_actors.utterance.chain import Chain
from voxtral_actors.utterance.segmenter import Policy
from voxtral_actors.utterance.timing import Timing

GRAIN: Final = SAMPLE_RATE // 100
"""Words and silences are whole grains of 10 ms, and the recogniser looks at each grain once."""
STEP: Final = 8 * GRAIN
DELAY: Final = 6 * STEP
TIMING: Final = Timing(delay=DELAY, lag=DELAY + 6 * STEP)
CAP: Final = 120 * SAMPLE_RATE
TOKEN_LETTERS: Final = 3

_LEVEL, _BETWEEN = 6000, 10
_FIRST, _MIDDLE, _LAST = 1, 2, 3
# fmt: off
VOCABULARY: Final = [
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet",
    "kilo", "lima", "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango",
    "uniform", "victor", "whiskey", "xray", "yankee", "zulu", "no", "yes", "the", "an",
]
# fmt: on


@attrs.frozen
class Spoken:
    """A word, how long it takes, and the silence before it, in grains."""

    word: str
    length: int = 30
    silence: int = 8


def sentence(count: int, *, length: int = 30, silence: int = 8) -> list[Spoken]:
    """So many words, no two neighbours alike."""
    size = len(VOCABULARY)
    return [Spoken(VOCABULARY[7 * n % size], length, silence) for n in range(count)]


def text_of(speech: Sequence[Spoken]) -> str:
    return " ".join(spoken.word for spoken in speech)


def audio_of(speech: Sequence[Spoken], silence_after: int = 0) -> bytes:
    """A square wave for each word, with the marks that the recogniser knows it by."""
    samples = array("h")
    for number, spoken in enumerate(speech):
        samples.extend([0] * (spoken.silence * GRAIN))
        level = _LEVEL + number * _BETWEEN
        marks = [_FIRST, *[_MIDDLE] * (spoken.length - 2), _LAST]
        for mark in marks:
            samples.extend(([level + mark] * 8 + [-level - mark] * 8) * (GRAIN // 16))
    samples.extend([0] * (silence_after * GRAIN))
    return samples.tobytes()


class Hearing:
    """One stream of the recogniser."""

    def __init__(self, speech: Sequence[Spoken], accent: Callable[[str], str]) -> None:
        self.finished = self.over = False
        self.consumed = 0
        self._speech = speech
        self._accent = accent
        self._audio = array("h")
        self._scanned = 0
        self._burst: list[int] = []
        self._tokens: deque[tuple[int, str]] = deque()
        self._said = False

    def feed(self, pcm: bytes) -> None:
        assert not self.finished, "fed after its end"
        self._audio.frombytes(pcm)

    def step(self) -> str | None:
        """Use 80 ms; returns what is said, or None where there is nothing to do."""
        left = len(self._audio) - self.consumed
        if self.over or (left < STEP and not self.finished):
            return None
        self.consumed += min(STEP, left)
        while self._scanned + GRAIN <= self.consumed:
            self._grain(abs(self._audio[self._scanned + GRAIN // 2]))
            self._scanned += GRAIN
        ended = self.finished and self.consumed == len(self._audio)
        if ended:
            self._grain(0)
        said = ""
        if self._tokens and (ended or self._tokens[0][0] <= self.consumed):
            said = self._tokens.popleft()[1]
        self.over = ended and not self._tokens
        return said

    def _grain(self, level: int) -> None:
        number, mark = divmod(level - _LEVEL, _BETWEEN) if level else (-1, _FIRST)
        if self._burst and (mark == _FIRST or self._burst[-1] % _BETWEEN == _LAST):
            self._hear(self._burst)
            self._burst = []
        if number >= 0:
            self._burst.append(number * _BETWEEN + mark)

    def _hear(self, burst: list[int]) -> None:
        spoken = self._speech[burst[0] // _BETWEEN]
        word = self._accent(spoken.word)
        share = (
            round(len(word) * len(burst) / spoken.length) if len(burst) * 4 >= spoken.length else 0
        )
        if burst[0] % _BETWEEN != _FIRST:
            word = word[len(word) - share :] if burst[-1] % _BETWEEN == _LAST else ""
        elif burst[-1] % _BETWEEN != _LAST:
            word = word[:share]
        if not word:
            return
        text = f" {word}" if self._said else word
        self._said = True
        cuts = [*range(0, len(text), TOKEN_LETTERS), len(text)]
        due = self._scanned + DELAY
        self._tokens.extend((due, text[begins:ends]) for begins, ends in pairwise(cuts))


class Room:
    """A chain, its streams, and what came of it."""

    def __init__(
        self,
        speech: Sequence[Spoken],
        policy: Policy | None = None,
        *,
        timing: Timing = TIMING,
        cap: int = CAP,
        accents: Sequence[Callable[[str], str]] = (),
    ) -> None:
        self.chain = Chain(policy or Policy(), timing, cap)
        self.streams: dict[int, Hearing] = {}
        self.opened = 0
        self.full = False
        self.mute: Collection[int] = ()
        """Streams that have nothing to say."""
        self.deltas: list[str] = []
        self.end: actions.Complete | actions.GiveUp | None = None
        self._speech = speech
        self._accents = accents
        self.do(self.chain.open())

    @property
    def text(self) -> str:
        return "".join(self.deltas)

    def do(self, todo: Sequence[Action]) -> None:
        rest = deque(todo)
        while rest:
            assert self.end is None, "more to do after the end"
            match rest.popleft():
                case actions.Open(stream=key):
                    assert not rest, "an Open is answered first"
                    if self.full:
                        rest.extend(self.chain.refused(key))
                    else:
                        self.streams[key] = Hearing(self._speech, self._accent())
                        rest.extend(self.chain.opened(key))
                        assert len(self.streams) <= 2
                case actions.Feed(stream=key, pcm=pcm):
                    assert pcm
                    self.streams[key].feed(pcm)
                case actions.Finish(stream=key):
                    assert not self.streams[key].finished
                    self.streams[key].finished = True
                case actions.LetGo(stream=key):
                    del self.streams[key]
                case actions.Say(text=text):
                    assert text
                    self.deltas.append(text)
                case actions.Complete() | actions.GiveUp() as end:
                    self.end = end

    def say(self, pcm: bytes) -> None:
        """Audio comes, and every stream takes what it can of it."""
        self.do(self.chain.audio(pcm))
        self.work()

    def work(self, steps: int | None = None) -> None:
        """Each stream takes so many steps, or all that it can."""
        while steps is None or steps > 0:
            steps = None if steps is None else steps - 1
            stepped = [self._step(key) for key in list(self.streams)]
            if not any(stepped):
                break

    def _step(self, key: int) -> bool:
        hearing = self.streams.get(key)  # what another one says may be this one's end
        if hearing is None or (text := hearing.step()) is None:
            return False
        self.do(self.chain.heard(key, "" if key in self.mute else text, hearing.consumed))
        if hearing.over and self.streams.get(key) is hearing:
            del self.streams[key]
            self.do(self.chain.ended(key, 1, hearing.consumed // STEP))
        return True

    def lose(self) -> None:
        """The engine dies."""
        lost, self.streams = list(self.streams), {}
        for key in lost[:1]:
            # Those beside it are let go: they have to be there for that.
            self.streams = dict.fromkeys(lost[1:], Hearing((), str))
            self.do(self.chain.lost(key))
        assert not self.streams

    def finish(self) -> None:
        """No more audio comes; everybody says the last of it."""
        self.do(self.chain.finish())
        if self.chain.waiting and self.end is None:
            self.do(self.chain.open())
        self.work()
        assert self.end is not None

    def _accent(self) -> Callable[[str], str]:
        self.opened += 1
        return self._accents[self.opened - 1] if self.opened <= len(self._accents) else str
