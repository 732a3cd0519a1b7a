"""The statistics of the measurements, and how their figures are kept."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bench import figures
from bench.figures import Spread


def test_a_spread_is_the_median_between_the_lowest_and_the_highest() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(median=2.0, low=1.0, high=3.0)
    assert Spread(120.4, 110.0, 131.0).show() == "120 (110-131)"


def test_a_ratio_is_taken_round_by_round() -> None:
    """A round in which the machine was half as fast is as good as any other."""
    assert figures.ratio([10.0, 20.0], [20.0, 40.0]) == Spread(0.5, 0.5, 0.5)


def test_rounds_without_a_partner_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        figures.ratio([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0)]
)
def test_a_percentile_is_a_value_that_occurred(share: float, expected: float) -> None:
    assert figures.percentile([float(n) for n in range(100, 0, -1)], share) == expected


def test_a_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(figures.percentile([], 0.5))


def test_a_saved_report_comes_back_with_four_digits(tmp_path: Path) -> None:
    path = tmp_path / "results" / "one.json"

    figures.save(path, {"us": Spread(1.23456, 1.0, math.inf), "by": {8: [0.000123456]}, "n": 5000})

    us = {"median": 1.235, "low": 1.0, "high": None}
    assert figures.load(path) == {"us": us, "by": {"8": [0.0001235]}, "n": 5000}
    assert figures.load(tmp_path / "none.json") == {}


def test_the_machine_is_described_and_not_named() -> None:
    machine = figures.machine()

    assert set(machine) == {"processor", "cpus", "system"}
    assert machine["cpus"] >= 1


def test_versions_are_of_what_is_installed() -> None:
    found = figures.versions("trio", "no-such-distribution")

    assert {"python", "trio", "voxtral-actors"} == set(found)


def test_a_table_is_aligned() -> None:
    shown = figures.table(["server", "us"], [["ours", 12], ["another", 3]])

    assert shown.splitlines() == [
        "server   us",
        "-----------",
        "ours     12",
        "another   3",
    ]
