"""When an utterance goes over to another engine stream by itself: what the operator wants and what
the engine is, as one `Policy`.

An engine whose streams wear out is rolled without being asked: in a pause after so many seconds, at
the latest a fifth of that later, and when it falls silent over speech. Other engines are rolled
only if VOXTRAL_SEGMENT_S is set, and only in pauses: where text comes per phrase there is no good
place in the middle of one, and nothing that silence over speech could be told from.
"""

from __future__ import annotations

import math
from typing import Final
from zlib import crc32

from voxtral_actors.engine.port import EngineInfo
from voxtral_actors.settings import Settings
from voxtral_actors.utterance.segmenter import Policy

SEGMENT_S: Final = 300.0
"""Where nothing else is set; `Policy.target_s` says why."""

LATEST: Final = 1.2
"""Times the length: when a stream ends even if nobody pauses."""

SPREAD: Final = 0.1
"""Lengths differ by up to this share from utterance to utterance. After a restart all streams are
of one age, and who speaks over a noise that never pauses would roll at the same moment."""


def policy(settings: Settings, info: EngineInfo, label: str) -> Policy:
    """For one utterance; the same for each that has this label."""
    if not info.spare:
        return Policy(target_s=0, mute_s=0)
    asked = settings.segment_s
    length = (SEGMENT_S if info.rolls else 0.0) if asked is None else asked
    share = 2 * crc32(label.encode()) / 2**32 - 1  # -1 to 1
    return Policy(
        target_s=length * (1 + SPREAD * share),
        limit_s=LATEST * length if info.rolls else math.inf,
        mute_s=settings.mute_s if info.rolls else 0,
    )
