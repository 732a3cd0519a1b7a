"""What happened in one schedule, line by line, and a digest of it to compare two runs by."""

from __future__ import annotations

import hashlib

import attrs
import trio


@attrs.define
class Trace:
    """Lines are `seconds who what`, on the virtual clock."""

    lines: list[str] = attrs.field(factory=list)

    def add(self, who: str, what: str) -> None:
        self.lines.append(f"{trio.current_time():10.4f} {who:<8} {what}")

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()[:16]
