"""The plots of a report's page: SVG. Only shapes, which stretch with the page; words are beside them.

Colours are variables, so that the page's style says what they are by day and by night.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from mpqueue._core.state.timings import Event, Span
from mpqueue._output.words import number, percent, seconds
from mpqueue._report.figures import Figures, ItemTimes, Part
from mpqueue._report.paces import PHASES, a_second, phases

#: Columns of the timeline; fewer if there are many workers, so that a page stays below 2 MB.
COLUMNS, MOST_CELLS = 500, 20_000
#: The steps by which a cell of the timeline is filled.
STEPS = 10
#: The most marks of events that are drawn.
MOST_MARKS = 200
#: The events that are marked.
MARKED = frozenset({"paused", "resumed", "worker died"})

#: What a worker does, bottom up in the timeline: the colours, each with the phases that it stands for.
_LAYERS = {"handler": ("handling",), "unpickling": ("unpacking", "packing"), "setup": ("loading", "setup")}
#: A span in which a worker was busy for this part of its length is one chunk.
WHOLE = 0.95


def bar_of_parts(parts: Sequence[Part], whole: float) -> str:
    """Draw a bar that is divided like the whole."""
    shapes: list[str] = []
    at = 0.0
    for part in parts:
        width = 1000 * part.seconds / whole
        title = f"{part.name}: {percent(part.seconds / whole)}, {seconds(part.seconds)}"
        shapes.append(_rect(at, 0, width, 10, part.key, title))
        at += width
    return _svg(1000, 10, shapes, "Where the workers' time went, as one bar. The table below has the same figures.")


def timeline(figures: Figures) -> str:
    """Draw a row for each worker: its work over time."""
    lanes = figures.workers
    columns = max(20, min(COLUMNS, MOST_CELLS // max(1, lanes)))
    shapes: list[str] = []
    for lane in range(lanes):
        cells = _cells([span for span in figures.spans if span.lane == lane], figures.wall, columns)
        shapes += _row(cells, lane * (STEPS + 2), columns)
    label = f"What each of {lanes} workers did over {seconds(figures.wall)}, a row for each."
    return _svg(columns, lanes * (STEPS + 2), shapes, label)


def _cells(spans: Sequence[Span], wall: float, columns: int) -> list[tuple[int, ...]]:
    """Return how full each column is of each layer, in steps."""
    segments = [segment for span in spans for segment in _segments(span)]
    layers = [
        a_second(((start, end, spent) for phase, start, end, spent in segments if phase in layer), wall, columns)
        for layer in _LAYERS.values()
    ]
    return [tuple(min(STEPS, round(part * STEPS)) for part in column) for column in zip(*layers, strict=True)]


def _segments(span: Span) -> Iterator[tuple[str, float, float, float]]:
    """Return each phase with its start, end and seconds. For merged chunks only the sums are known."""
    if span.busy >= WHOLE * (span.ended - span.begun):
        yield from ((phase, start, end, end - start) for phase, start, end in phases(span))
    else:
        yield from ((phase, span.begun, span.ended, getattr(span, phase)) for phase in PHASES)


def _row(cells: Sequence[tuple[int, ...]], top: int, columns: int) -> Iterator[str]:
    """One worker's row: equal neighbouring cells are one shape."""
    yield _rect(0, top, columns, STEPS, "empty")
    at = 0
    for levels, run in groupby(cells):
        width, base = len(list(run)), STEPS
        for level, name in zip(levels, _LAYERS, strict=True):
            height = min(level, base)
            if height:
                yield _rect(at, top + base - height, width, height, name)
            base -= height
        at += width


def busy_workers(figures: Figures) -> str:
    """Draw the number of busy workers over time, with marks for events."""
    points, top = len(figures.busy), max(1, figures.workers)
    heights = [100 - 100 * min(busy / top, 1.0) for busy in figures.busy]
    steps = " ".join(f"L{at} {height:.1f} L{at + 1} {height:.1f}" for at, height in enumerate(heights))
    shapes = [f'<path class="area" d="M0 100 {steps} L{points} 100 Z"/>']
    shapes += _marks(figures.events, figures.wall, points)
    label = f"How many of {figures.workers} workers were busy over {seconds(figures.wall)}."
    return _svg(points, 100, shapes, label)


def _marks(events: Sequence[Event], wall: float, width: int) -> Iterator[str]:
    shown = [event for event in events if event.name in MARKED and event.at < wall]
    for event in shown[:MOST_MARKS]:
        at = width * event.at / wall
        kind = "lost" if event.name == "worker died" else "mark"
        where = "" if event.lane is None else f" {event.lane}"
        title = f"{event.name}{where}, at {seconds(event.at)}"
        yield f'<path class="line {kind}" d="M{at:.2f} 0 V100"><title>{escape(title)}</title></path>'


def histogram(items: ItemTimes) -> str:
    """Draw the items by time taken, in equal steps of the logarithm, with lines at the median and the percentiles."""
    tallest = max(count for _, _, count in items.bars)
    shapes = []
    for at, (start, end, count) in enumerate(items.bars):
        if count:
            height = max(1.0, 100 * count / tallest)
            title = f"{seconds(start)} to {seconds(end)}: {number(count)}"
            shapes.append(_rect(at * 10 + 0.5, 100 - height, 9, height, "handler", title))
    for value, name in ((items.median, "median"), (items.p90, "90%"), (items.p99, "99%")):
        where = 10 * _place(value, items.bars)
        title = escape(f"{name}: {seconds(value)}")
        shapes.append(f'<path class="line mark" d="M{where:.1f} 0 V100"><title>{title}</title></path>')
    return _svg(10 * len(items.bars), 100, shapes, "How many items took how long; the scale of times is logarithmic.")


def _place(value: float, bars: Sequence[tuple[float, float, int]]) -> float:
    """Return a value's place among the bars, counted in bars."""
    for at, (start, end, _) in enumerate(bars):
        if value <= end:
            return at + max(0.0, (value - start) / (end - start))
    return float(len(bars))


def _rect(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> str:
    shape = f'<rect fill="var(--{kind})" x="{x:.4g}" y="{y:.4g}" width="{width:.4g}" height="{height:.4g}"'
    return f"{shape}><title>{escape(title)}</title></rect>" if title else f"{shape}/>"


def _svg(width: float, height: float, shapes: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label, quote=True)}">{"".join(shapes)}</svg>'
    )
