"""What every measurement here does with its figures: sums up rounds, names the machine, saves.

A server that is compared with another is measured in alternating rounds, and the two are divided
round by round: what the machine does besides then hits both sides of a ratio alike. A figure of
several rounds is given as its median with the lowest and the highest.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs

RESULTS = Path(__file__).parent / "results"


@attrs.frozen
class Spread:
    """One figure over several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def show(self, digits: int = 0) -> str:
        """As `120 (110-131)`."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours divided by theirs, round by round."""
    return Spread.of([one / other for one, other in zip(ours, theirs, strict=True)])


SHOWN = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
"""The percentiles of a report."""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Those of `SHOWN`."""
    return {name: percentile(values, share) for name, share in SHOWN.items()}


def machine() -> dict[str, Any]:
    """The processor and what the process may use of it; nothing that names the machine itself."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "processor": model,
        "cpus": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def versions(*packages: str) -> dict[str, str]:
    """Of Python, of this package, and of those named that are installed."""
    found = {"python": platform.python_version()}
    for name in ("voxtral-actors", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def save(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON that can be compared line by line."""
    path.parent.mkdir(exist_ok=True)
    plain = json.dumps(_rounded(report), indent=2, default=attrs.asdict)
    path.write_text(plain + "\n", encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    """A saved report; an empty one if there is none."""
    if not path.exists():
        return {}
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lines with columns as wide as they need to be; the first to the left, the others right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _rounded(value: Any) -> Any:
    """Four digits: what comes after them is not measured."""
    match value:
        case float():
            return float(f"{value:.4g}") if math.isfinite(value) else None
        case dict():
            return {str(key): _rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [_rounded(item) for item in value]
        case _ if attrs.has(type(value)):
            return _rounded(attrs.asdict(value, recurse=False))
        case _:
            return value
