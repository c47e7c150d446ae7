"""The plots of docs/benchmarks.md, as SVG."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from benchmarks.contenders import BY_NAME, BareLoop, MPQueue
from benchmarks.tables import Record, best, contenders_of, other_work, seconds

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "mpqueue",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#dddddd",
        "legend.frameon": False,
    }
)

#: mpqueue stands out, its relatives are close to each other in colour, the ideal is no contender.
COLOURS = {
    "ideal": "#999999",
    "mpqueue": "#d62728",
    "mpqueue.map": "#ff9896",
    "mpqueue.Pool": "#ff7f0e",
    "mpqueue.Executor": "#6ea8fe",
    "mpqueue, preload": "#e7969c",
    "multiprocessing": "#1f77b4",
    "multiprocessing, preload": "#aec7e8",
    "multiprocessing, forked anew": "#7fb2dd",
    "concurrent.futures": "#17becf",
    "loky": "#2ca02c",
    "joblib": "#98c379",
    "mpire": "#9467bd",
    "pebble": "#8c564b",
    "dask": "#e377c2",
    "dask.bag": "#f4b6dc",
    "ray": "#7f7f00",
    "ray, batched by hand": "#bcbd22",
    "ray, a task each": "#d9d97a",
    "mpqueue on dask": "#c51b7d",
    "mpqueue on ray": "#5a5a00",
}

Point = tuple[float, float]


def draw(folder: Path, questions: dict[str, Record]) -> dict[str, list[str]]:
    """Draw all that there are figures for; returns the names of the files by question."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, list[str]] = {}
    for question, record in questions.items():
        for name, figure in _PLOTS.get(question, _bars)(question, record):
            file = f"{question.replace('_', '-')}{name}.svg"
            figure.savefig(folder / file, bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)
            text = (folder / file).read_text()
            (folder / file).write_text(re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE))
            drawn.setdefault(question, []).append(file)
    return drawn


Drawn = list[tuple[str, Any]]


# -- bars ------------------------------------------------------------------------------------------------------------


def _bars(question: str, record: Record) -> Drawn:
    cases = [name for name in record["cases"] if _has_times(record, name)]
    if question == "arrays":
        ways = ("in", "out", "both")
        groups = [[name for name in cases if name.startswith(way)] for way in ways]
        return [(f"-{way}", _panels(record, group)) for way, group in zip(ways, groups, strict=True) if group]
    return [("", _panels(record, cases))] if cases else []


def _has_times(record: Record, case: str) -> bool:
    return any(best(record, case, name) is not None for name in contenders_of(record))


def _panels(record: Record, cases: Sequence[str]) -> Any:
    """A panel for each case, a bar for each contender, on a logarithmic scale."""
    names = [name for name in reversed(contenders_of(record)) if any(best(record, case, name) for case in cases)]
    figure, panels = plt.subplots(
        1, len(cases), figsize=(2.0 + 2.6 * len(cases), 0.8 + 0.26 * len(names)), sharey=True, squeeze=False
    )
    for axes, case in zip(panels[0], cases, strict=True):
        _one_panel(axes, record, case, names)
    return figure


def _one_panel(axes: Axes, record: Record, case: str, names: Sequence[str]) -> None:
    times = [best(record, case, name) for name in names]
    known = [time for time in times if time]
    low = min(known) / 2
    for at, (name, time) in enumerate(zip(names, times, strict=True)):
        if time:
            axes.barh(at, time, color=COLOURS[name])
            axes.text(time * 1.08, at, seconds(time), va="center", fontsize=7)
        else:
            entry = record["cases"][case]["contenders"].get(name, {})
            text = f"over {entry['over']:g} s" if "over" in entry else "fails" if "failed" in entry else ""
            axes.text(low * 1.1, at, text, va="center", fontsize=7, color="#666666")
    axes.set(xscale="log", xlim=(low, max(known) * 6), title=record["cases"][case]["title"])
    axes.title.set_fontsize(8)
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: seconds(value).replace(".00", "").replace(".0 ", " "))
    )
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="y", visible=False)


# -- lines -----------------------------------------------------------------------------------------------------------


def _lines(record: Record, point: Callable[[str, str], Point | None], **settings: Any) -> Any:
    """A line for each contender, over the cases; ``point`` gives x and y of a case and a contender."""
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    _draw_lines(axes, record, list(record["cases"]), point)
    axes.set(**settings)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return figure


def _draw_lines(axes: Axes, record: Record, cases: Sequence[str], point: Callable[[str, str], Point | None]) -> None:
    for name in contenders_of(record):
        points = sorted(found for case in cases if (found := point(case, name)) is not None)
        if points:
            own = name.startswith(MPQueue.name)
            axes.plot(
                *zip(*points, strict=True),
                label=name,
                color=COLOURS[name],
                linewidth=2.2 if own else 1.2,
                linestyle="--" if name == BareLoop.name else "-",
                marker="o",
                markersize=3.5,
                zorder=3 if own else 2,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")


def _durations(question: str, record: Record) -> Drawn:  # noqa: ARG001
    def overhead(case: str, name: str) -> Point | None:
        time, x = best(record, case, name), record["cases"][case]["x"]
        ideal = best(record, case, BareLoop.name)
        count = _count(record, case)
        if time is None or ideal is None or name == BareLoop.name or not count:
            return None
        return x, max((time - ideal) / count, 1e-9)

    def cost(case: str, name: str) -> Point | None:
        time, count = best(record, case, name), _count(record, case)
        return None if time is None or not count else (record["cases"][case]["x"], time / count)

    return [
        ("", _lines(record, cost, xlabel="CPU seconds an item", ylabel="seconds an item, all workers together")),
        ("-overhead", _lines(record, overhead, xlabel="CPU seconds an item", ylabel="seconds an item above the ideal")),
        ("-bars", _panels(record, [name for name in record["cases"] if _has_times(record, name)])),
    ]


def _item_count(question: str, record: Record) -> Drawn:  # noqa: ARG001
    def cost(case: str, name: str) -> Point | None:
        time, x = best(record, case, name), record["cases"][case]["x"]
        return None if time is None else (x, time / x)

    return [("", _lines(record, cost, xlabel="items (no-ops)", ylabel="seconds an item"))]


def _million(question: str, record: Record) -> Drawn:  # noqa: ARG001
    def megabytes(metric: str) -> Callable[[str, str], Point | None]:
        def point(case: str, name: str) -> Point | None:
            value, x = best(record, case, name, metric), record["cases"][case]["x"]
            return None if not value else (x, value * x / 1e6)

        return point

    return [
        ("", _lines(record, megabytes("running_bytes"), xlabel="items", ylabel="MB in the parent, at most")),
        ("-done", _lines(record, megabytes("done_bytes"), xlabel="items", ylabel="MB in the parent, when done")),
    ]


def _scaling(question: str, record: Record) -> Drawn:  # noqa: ARG001
    works: dict[str, list[str]] = {}
    for case in record["cases"]:
        works.setdefault(case.rpartition(", ")[0], []).append(case)

    def time(case: str, name: str) -> Point | None:
        taken = best(record, case, name)
        return None if taken is None else (record["cases"][case]["x"], taken)

    figure, panels = plt.subplots(1, len(works), figsize=(4.0 * len(works), 3.6), squeeze=False)
    for axes, (work, cases) in zip(panels[0], works.items(), strict=True):
        _draw_lines(axes, record, cases, time)
        axes.set(xlabel="workers", ylabel="seconds", title=work)
        ticks = [record["cases"][case]["x"] for case in cases]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return [("", figure)]


def _coordinator(question: str, record: Record) -> Drawn:  # noqa: ARG001
    other = other_work(record)
    lanes = {
        int(case["x"]): handle + other
        for name, case in record["cases"].items()
        if (handle := best(record, name, MPQueue.name, "handle")) is not None
    }
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    for chunk, colour in ((0.005, "#f4a582"), (0.02, "#d62728"), (0.1, "#92c5de"), (0.5, "#2166ac")):
        busy = [100 * number * cost / chunk for number, cost in lanes.items()]
        axes.plot(list(lanes), busy, label=f"chunks of {1000 * chunk:g} ms", color=colour, marker="o", markersize=3.5)
    axes.axhline(100, color="#666666", linestyle="--", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="% of one CPU that the coordinator is busy")
    axes.set_xticks(list(lanes), [str(number) for number in lanes])
    axes.minorticks_off()
    axes.legend()
    return [("", figure)]


def _nothing(question: str, record: Record) -> Drawn:  # noqa: ARG001
    return []


def _count(record: Record, case: str) -> int | None:
    """How many items the case had, as those said that ran it."""
    for name in BY_NAME:
        for round_ in record["cases"][case]["contenders"].get(name, {"rounds": []})["rounds"]:
            for repeat in round_:
                if "count" in repeat:
                    return int(repeat["count"])
    return None


_PLOTS: dict[str, Callable[[str, Record], Drawn]] = {
    "durations": _durations,
    "item_count": _item_count,
    "million": _million,
    "scaling": _scaling,
    "coordinator": _coordinator,
    "many_workers": _nothing,
    "tuned_chunks": _nothing,
    "payload_kinds": _nothing,  # thirty works, which a table shows better
}
