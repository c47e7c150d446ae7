"""Plots for pages, and flame graphs: SVG, whose shapes stretch with the page, and words beside them.

Colours are variables, so that the page's style says what they are by day and by night.
"""

from __future__ import annotations

import base64
import hashlib
import linecache
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from operator import add

from mpqueue._core.state.timings import Event, Span
from mpqueue._report.figures import Figures, ItemTimes, Part, a_second
from mpqueue._report.profile import Profile, speedscope_of
from mpqueue._text import number, percent, rate, seconds, shown_json

#: Units of the timeline: its width, the height of a worker's row, and the space below that.
WIDTH, ROW, SPACE = 1000, 10, 2
#: The most marks of events that are drawn.
MOST_MARKS = 200
#: The events that are marked, each with what is said of its mark.
MARKED = dict.fromkeys(("paused", "resumed"), "Dashed: paused, resumed.") | {
    "worker died": "A red line: a worker died."
}
#: The number of equal stretches of time of a throughput.
STRETCHES = 120
#: Workers up to which each row of the timeline has its name.
NAMED_ROWS = 16
#: The number of ticks of an axis.
TICKS = 5

#: What a worker does: the colours, each with its meaning; and the colours of a chunk's phases, in their order.
_KINDS = {"handler": "in the handler", "unpickling": "pickling and unpickling", "setup": "loading and setup"}
_PHASES = {
    "loading": "setup",
    "setup": "setup",
    "unpacking": "unpickling",
    "handling": "handler",
    "packing": "unpickling",
}
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
    bar = _svg(1000, 10, shapes, "Where the workers' time went, as one bar. The table below has the same figures.")
    return f"<figure class='parts'>{bar}</figure>"


def timeline(figures: Figures) -> str:
    """Draw a row for each worker: its work over time."""
    lanes = figures.workers
    shapes = [_rect(0, lane * (ROW + SPACE), WIDTH, ROW, "empty") for lane in range(lanes)]
    for span in figures.spans:
        shapes += _work(span, span.lane * (ROW + SPACE), WIDTH / figures.wall)
    label = f"What each of {lanes} workers did over {seconds(figures.wall)}, a row for each."
    rows = _svg(WIDTH, lanes * (ROW + SPACE), shapes, label)
    has_names = lanes <= NAMED_ROWS
    named = range(lanes) if has_names else (0, lanes // 2, lanes - 1)
    names = "".join(f"<span>{lane}</span>" for lane in named)
    height = max(lanes * (1.3 if has_names else 0.5), 1.6)
    legend = "".join(f'<span class="legend">{swatch(kind)}{name}</span>' for kind, name in _KINDS.items())
    return (
        f"<figure><div class='rows'><div class='names{' few' * (not has_names)}'>{names}</div>"
        f"<div class='lanes' style='height: {height:.1f}rem'>{rows}</div><div></div>{_axis(_times(figures.wall))}</div>"
        f"<figcaption>{legend}</figcaption></figure>"
    )


def _work(span: Span, top: float, scale: float) -> Iterator[str]:
    """Draw a chunk's phases one after another. Of merged chunks only the sums are known: they are above each other."""
    length, at, base = span.ended - span.begun, span.begun, top + ROW
    for phase, kind in _PHASES.items():
        spent = min(getattr(span, phase), span.ended - at)
        if spent <= 0:
            continue
        if span.busy >= WHOLE * length:
            yield _rect(at * scale, top, spent * scale, ROW, kind)
            at += spent
        else:
            base -= ROW * spent / length
            yield _rect(span.begun * scale, base, length * scale, ROW * spent / length, kind)


def throughput_of(figures: Figures) -> str:
    """Draw the items per second of the job, with a mark for each pause and each death."""
    drawn, pace = throughput(figures.spans, 0.0, figures.wall, figures.events)
    marked = {event.name for event in figures.events}
    meanings = [meaning for name, meaning in MARKED.items() if name in marked]
    caption = " ".join([f"Per second: {pace}.", *dict.fromkeys(meanings)])
    axis = _axis(_times(figures.wall))
    return f"<figure class='plot'>{drawn}{axis}<figcaption>{caption}</figcaption></figure>"


def throughput(spans: Sequence[Span], start: float, length: float, events: Sequence[Event]) -> tuple[str, str]:
    """Draw the completed items and failed tries per second, on top of each other; returns that, and its range as text.

    The tries of a report are spread evenly over its worker's time for them. Costs 2 us per report.
    """

    def paces(count: Callable[[Span], float]) -> list[float]:
        return a_second(((span.begun - start, span.ended - start, count(span)) for span in spans), length, STRETCHES)

    good, bad = paces(lambda span: span.items - span.failures), paces(lambda span: span.failures)
    most = max(map(add, good, bad))
    shapes: list[str] = []
    for at, (well, ill) in enumerate(zip(good, bad, strict=True)):
        title = f"from {seconds(at * length / STRETCHES)} on: {rate(well)}{f', and {rate(ill)} failed' if ill else ''}"
        top = 100 - 100 * well / most
        shapes += [_rect(at, top, 0.9, 100 - top, "completed-bar", title)] if well else []
        shapes += [_rect(at, top - 100 * ill / most, 0.9, 100 * ill / most, "failed-bar", title)] if ill else []
    shapes += _marks([event._replace(at=event.at - start) for event in events], length, STRETCHES)
    last = next((well for well in reversed(good) if well), 0.0)
    pace = f"at most {rate(most)}, last {rate(last)}"
    return _svg(STRETCHES, 100, shapes, f"Items per second over the whole run: {pace}"), pace


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
    tallest, low, high = max(count for _, _, count in items.bars), items.bars[0][0], items.bars[-1][1]
    shapes = []
    for at, (start, end, count) in enumerate(items.bars):
        if count:
            height = max(1.0, 100 * count / tallest)
            title = f"{seconds(start)} to {seconds(end)}: {number(count)}"
            shapes.append(_rect(at * 10 + 0.5, 100 - height, 9, height, "handler", title))
    for value, name in ((items.median, "median"), (items.p90, "90%"), (items.p99, "99%")):
        where = 10 * len(items.bars) * math.log(max(value, low) / low) / math.log(high / low)
        title = escape(f"{name}: {seconds(value)}")
        shapes.append(f'<path class="line mark" d="M{where:.1f} 0 V100"><title>{title}</title></path>')
    label = "How many items took how long; the scale of times is logarithmic."
    edges = [items.bars[min(at * len(items.bars) // (TICKS - 1), len(items.bars) - 1)][0] for at in range(TICKS - 1)]
    axis = _axis([seconds(edge) for edge in (*edges, items.bars[-1][1])])
    caption = "<figcaption>Dashed: the median, 90% and 99%. The scale is logarithmic.</figcaption>"
    return f"<figure class='plot'>{_svg(10 * len(items.bars), 100, shapes, label)}{axis}{caption}</figure>"


def swatch(colour: str) -> str:
    """A square of that colour."""
    return f'<i class="key" style="background: var(--{colour})"></i>'


def _times(wall: float) -> list[str]:
    return [seconds(wall * tick / (TICKS - 1)) if tick else "0" for tick in range(TICKS)]


def _axis(ticks: Sequence[str]) -> str:
    return "<div class='axis'>" + "".join(f"<span>{escape(tick)}</span>" for tick in ticks) + "</div>"


def _rect(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> str:
    shape = f'<rect fill="var(--{kind})" x="{x:.4g}" y="{y:.4g}" width="{width:.4g}" height="{height:.4g}"'
    return f"{shape}><title>{escape(title)}</title></rect>" if title else f"{shape}/>"


def _svg(width: float, height: float, shapes: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label, quote=True)}">{"".join(shapes)}</svg>'
    )


# -- A profile on a report's page, as a flame graph. Without scripts, there is only the table of the heaviest lines.
#
# The page stays self-contained: the script is in it, and the page's policy allows only that script, by its hash.

#: The most stacks of each view that are drawn: others would be too narrow to see.
MOST_STACKS = 300


@cache
def _script() -> str:
    return files("mpqueue._report").joinpath("flame_graph.js").read_text()


def script_policy() -> str:
    """Return what the page's policy has to allow for the script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()}'"


def draw_flames(profile: Profile) -> str:
    """The flame graph, with its tools and its script. The data are a file of speedscope, with the lines' text."""
    data = speedscope_of(profile, MOST_STACKS)
    for frame in data["shared"]["frames"]:
        frame["source"] = linecache.getline(frame.get("file", ""), frame.get("line", 0)).strip()
    text = shown_json(data).replace("<", "\\u003c")
    return f"""<p class='quiet'>The time of all workers, sampled up to a hundred times a second. A box is as wide as the
time spent in that line and in what it called, which is below it. A colour stands for a file.</p>
<div id='flame-tools' class='flame-tools' hidden><label>Of <select id='flame-view'></select></label>
<label>Search <input id='flame-search' type='search' autocomplete='off' spellcheck='false'></label>
<button id='flame-whole' type='button' disabled>Show all</button>
<button id='flame-save' type='button'>Save for speedscope</button><output id='flame-found'></output></div>
<div id='flame' class='flame' role='tree' aria-label='Flame graph' aria-describedby='flame-help'></div>
<p id='flame-detail' class='flame-detail'></p>
<p id='flame-help' class='quiet' hidden>Click a box, or press Enter, to see it alone. Escape shows all, arrow keys move,
/ searches.</p>
<script type='application/json' id='flame-data'>{text}</script>
<script>{_script()}</script>"""
