"""One picture for each table of `results/`: SVG, drawn from the JSON beside it.

    python -m bench.charts

A report that is not there has no picture. Text stays text, and nothing in a file depends on when or
where it was drawn, so a picture changes only when its figures do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import figures

OURS, OTHERS, SECOND = "#0b6e4f", "#9aa5b1", "#5b8def"
STYLE = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "voxtral-actors",
}


def web_tier(plt: Any, report: Mapping[str, Any]) -> Any:
    """Microseconds a message, ours beside the others; and growth with the connections."""
    figure, axes = plt.subplots(
        1, 3, figsize=(11, 3.2), layout="constrained", width_ratios=[3, 3, 2]
    )
    for axis, name in zip(axes, ("swallowed", "answered"), strict=False):
        servers = list(report[name]["text"])
        series = {
            kind: [report[name][kind][server]["us"] for server in servers]
            for kind in ("text", "binary")
        }
        _bars(axis, servers, series, (OURS, SECOND), lying=True)
        axis.set_title(name)
        axis.set_xlabel("µs")
        axis.invert_yaxis()
    for kind, colour in (("text", OURS), ("binary", SECOND)):
        by_number = report["growth"][kind]["us"]
        medians = [spread["median"] for spread in by_number.values()]
        errors = _errors(by_number.values())
        axes[2].errorbar(
            list(by_number), medians, errors, marker="o", capsize=3, color=colour, label=kind
        )
    axes[2].set_title("ours, by connections")
    axes[2].set_ylabel("µs a message")
    axes[2].set_ylim(bottom=0)
    axes[2].legend()
    figure.suptitle("CPU of the server a message of 80 ms of audio, no engine", fontsize=10)
    return figure


def against_vllm(plt: Any, report: Mapping[str, Any]) -> Any:
    """Frontend CPU a step and the lag of text, by sessions."""
    figure, (cost, lag) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    levels = report["levels"]
    servers = [name for name in next(iter(levels.values())) if name != "ours_by_theirs"]
    _bars(
        cost,
        list(levels),
        {s: [level[s]["cpu_ms_a_step"] for level in levels.values()] for s in servers},
        (OURS, OTHERS),
    )
    tallest = cost.get_ylim()[1]
    for place, level in enumerate(levels.values()):
        cost.text(place, tallest, f"{level['ours_by_theirs']['median']:.2f}x", ha="center")
    cost.set_title("CPU of the server process a step (the engine's left out)", pad=14)
    cost.set_ylabel("ms")
    cost.set_xlabel("live sessions")
    cost.legend()
    _bars(
        lag,
        list(levels),
        {s: [level[s]["lag_ms"]["p99"] for level in levels.values()] for s in servers},
        (OURS, OTHERS),
    )
    lag.set_yscale("log")
    lag.set_title("lag of the text, p99", pad=14)
    lag.set_ylabel("ms")
    lag.set_xlabel("live sessions")
    return figure


def session_age(plt: Any, report: Mapping[str, Any]) -> Any:
    """A step's time by the age of its session."""
    figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
    styles = {"worker process": "-", "in process": "--"}
    for row in report["age"]:
        ages = {age: ms for age, ms in row["median_ms"].items() if age.isdigit()}
        label = f"{row['executor']}, {'with' if row['plugin'] else 'without'} the plugin"
        axis.plot(
            [int(age) for age in ages],
            list(ages.values()),
            styles[row["executor"]],
            marker="o",
            color=OURS if row["plugin"] else OTHERS,
            label=label,
        )
    axis.set_title("a step of one session, by its age")
    axis.set_xlabel("s")
    axis.set_ylabel("ms")
    axis.set_ylim(bottom=0)
    axis.legend()
    return figure


CHARTS: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "web_tier": web_tier,
    "against_vllm": against_vllm,
    "session_age": session_age,
}


def draw(folder: Path) -> list[Path]:
    """Draw every report that is in `folder`; returns the pictures."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(STYLE)
    import matplotlib.pyplot as plt

    drawn = []
    for name, chart in CHARTS.items():
        report = figures.load(folder / f"{name}.json")
        if report:
            figure = chart(plt, report)
            path = folder / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None, "Creator": None})
            plt.close(figure)
            drawn.append(path)
    return drawn


def _bars(
    axis: Any,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Mapping[str, float]]],
    colours: Sequence[str],
    *,
    lying: bool = False,
) -> None:
    """Bars of several rounds: the median, with a whisker from the lowest to the highest."""
    thick = 0.8 / len(series)
    for number, (label, spreads) in enumerate(series.items()):
        places = [at + (number - (len(series) - 1) / 2) * thick for at in range(len(groups))]
        medians = [spread["median"] for spread in spreads]
        look = {"color": colours[number], "label": label, "error_kw": {"lw": 0.8}}
        if lying:
            axis.barh(places, medians, thick, xerr=_errors(spreads), **look)
        else:
            axis.bar(places, medians, thick, yerr=_errors(spreads), **look)
    if lying:
        axis.set_yticks(range(len(groups)), groups)
    else:
        axis.set_xticks(range(len(groups)), groups)


def _errors(spreads: Any) -> list[list[float]]:
    pairs = [(s["median"] - s["low"], s["high"] - s["median"]) for s in spreads]
    return [[below for below, _ in pairs], [above for _, above in pairs]]


def main() -> None:
    for path in draw(figures.RESULTS):
        print(f"{figures.RESULTS.name}/{path.name}")


if __name__ == "__main__":
    main()
