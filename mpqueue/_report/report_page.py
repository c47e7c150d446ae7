"""A report as one self-contained page of HTML: no script, font or picture is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from itertools import zip_longest

from mpqueue._output.words import counted, number, percent, seconds
from mpqueue._report import flame_graph
from mpqueue._report.figures import FailedItems, Figures, ItemTimes
from mpqueue._report.plots import MARKED, bar_of_parts, busy_workers, histogram, timeline
from mpqueue._report.profile import Profile
from mpqueue._report.report_text import (
    Table,
    further_facts,
    headline,
    heaviest_lines,
    slowest_items,
    subtitles,
    time_of_parent,
    time_of_workers,
    times_line,
)
from mpqueue._text import visible

#: Workers up to which each row of the timeline has its name.
NAMED_ROWS = 16
#: The most groups of failures that are shown.
MOST_GROUPS = 20
#: The number of ticks of an axis.
TICKS = 5

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'{policy}">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
"""


def write_page(figures: Figures, advice: Sequence[str], profile: Profile | None = None) -> str:
    """The whole page."""
    look = files("mpqueue._live_page").joinpath("static/look.css").read_text()
    style = look + files("mpqueue._report").joinpath("report.css").read_text()
    policy = ""
    if profile is not None:
        style, policy = style + flame_graph.style(), flame_graph.policy()
    title = escape(f"{figures.job_id}: why it took {seconds(figures.wall)}")
    head = _HEAD.format(title=title, style=style, policy=policy)
    return visible(head + "\n".join(_body(figures, advice, profile)) + "\n</body>\n</html>\n")


def _body(figures: Figures, advice: Sequence[str], profile: Profile | None) -> Iterator[str]:
    yield f"<header><h1>{escape(figures.job_id)}</h1><p>{escape(headline(figures))}</p>"
    yield from (f"<p>{escape(line)}</p>" for line in subtitles(figures))
    yield "</header>"
    yield "<main>"
    yield from _failures(figures.failures)
    if advice:
        yield '<h2>What could make it quicker</h2><ul class="advice">'
        yield from (f"<li>{escape(text)}</li>" for text in advice)
        yield "</ul>"
    yield from _tiles(figures)
    if figures.worker_seconds:
        yield from _time(figures)
        yield from _workers(figures)
    if profile is not None:
        yield from flame_graph.section(profile)
        if profile.stacks:
            yield "<h3>The lines with most time of their own</h3>"
            yield _table(heaviest_lines(profile), "lines")
    if figures.items is not None:
        yield from _items(figures.items)
        slowest = slowest_items(figures)
        yield f"<h2>{slowest.title}</h2>{_table(slowest)}"
    yield "<details><summary>What the parent did meanwhile, and more figures</summary>"
    if figures.worker_seconds:
        yield _table(time_of_parent(figures))
    yield _table(further_facts(figures))
    yield "</details></main>"
    yield "<footer><p>Written by mpqueue. Times are measured in each chunk of items, not sampled; an item that"
    yield "was sent with others has their average.</p></footer>"


def _failures(groups: Sequence[FailedItems]) -> Iterator[str]:
    """Yield each group of failures; it opens to the traceback of its first item."""
    if groups:
        yield "<h2>What failed</h2><ul class='failures'>"
    for at, group in enumerate(groups[:MOST_GROUPS]):
        text, trace = escape(group.text), escape(group.traceback)
        if trace:
            text = f"<details{'' if at else ' open'}><summary>{text}</summary><pre tabindex='0'>{trace}</pre></details>"
        yield f"<li>{text}</li>"
    if len(groups) > MOST_GROUPS:
        yield f"<li>and {counted(len(groups) - MOST_GROUPS, 'more group')}</li>"
    if groups:
        yield "</ul>"


def _tiles(figures: Figures) -> Iterator[str]:
    tiles = [(seconds(figures.wall), "in all"), (number(figures.total), "items")]
    if figures.worker_seconds:
        tiles.append((percent(figures.share("handler")), f"of {counted(figures.workers, 'worker')} in the handler"))
    if figures.items is not None:
        tiles.append((seconds(figures.items.median), "the median item"))
    yield '<div class="tiles">'
    yield from (f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in tiles)
    yield "</div>"


def _time(figures: Figures) -> Iterator[str]:
    whole = figures.worker_seconds
    yield f"<h2>Where the workers' time went</h2><figure class='parts'>{bar_of_parts(figures.work, whole)}"
    yield f"<figcaption>{counted(figures.workers, 'worker')}, {seconds(figures.wall)} each</figcaption></figure>"
    yield _table(time_of_workers(figures), keys=[part.key for part in figures.work])


def _workers(figures: Figures) -> Iterator[str]:
    axis = _axis([seconds(figures.wall * tick / (TICKS - 1)) if tick else "0" for tick in range(TICKS)])
    lanes = figures.workers
    names = range(lanes) if lanes <= NAMED_ROWS else (0, lanes // 2, lanes - 1)
    shown = "".join(f"<span>{lane}</span>" for lane in names)
    height = max(lanes * (1.3 if lanes <= NAMED_ROWS else 0.5), 1.6)
    yield "<h2>What each worker did</h2><figure><div class='rows'>"
    spread = "space-around" if lanes <= NAMED_ROWS else "space-between"
    yield f"<div class='names' style='justify-content: {spread}'>{shown}</div>"
    yield f"<div class='lanes' style='height: {height:.1f}rem'>{timeline(figures)}</div>"
    yield f"<div></div>{axis}</div><figcaption>"
    for key, name in (
        ("handler", "in the handler"),
        ("unpickling", "pickling and unpickling"),
        ("setup", "loading and setup"),
    ):
        yield f'<span class="legend">{_swatch(key)}{name}</span>'
    yield "</figcaption></figure>"
    yield "<h2>How many were busy</h2><figure class='plot'><div class='rows'>"
    yield f"<div class='names' style='justify-content: space-between'><span>{lanes}</span><span>0</span></div>"
    yield f"<div>{busy_workers(figures)}</div><div></div>{axis}</div>"
    if any(event.name in MARKED for event in figures.events):
        yield "<figcaption>Dashed: paused, resumed. Red: a worker died.</figcaption>"
    yield "</figure>"


def _items(items: ItemTimes) -> Iterator[str]:
    edges = [items.bars[min(at * len(items.bars) // (TICKS - 1), len(items.bars) - 1)] for at in range(TICKS - 1)]
    ticks = [seconds(start) for start, _, _ in edges] + [seconds(items.bars[-1][1])]
    yield f"<h2>How long items took</h2><figure class='plot'>{histogram(items)}{_axis(ticks)}"
    yield f"<figcaption>{times_line(items)} (dashed). The scale is logarithmic.</figcaption></figure>"


def _swatch(colour: str) -> str:
    return f'<i class="key" style="background: var(--{colour})"></i>'


def _axis(ticks: Sequence[str]) -> str:
    return "<div class='axis'>" + "".join(f"<span>{escape(tick)}</span>" for tick in ticks) + "</div>"


def _table(table: Table, kind: str = "", keys: Sequence[str] = ()) -> str:
    """The table; ``keys`` are the colours of its rows."""
    has_head = any(name for name, _ in table.columns)
    kinds = ["n" if is_number else "" for _, is_number in table.columns]
    if has_head and not table.columns[-1][0]:
        kinds[-1] = "meaning"
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(name)}</th>' if name else f'<td class="{kind}"></td>'
        for (name, _), kind in zip(table.columns, kinds, strict=True)
    )
    head = f"<thead><tr>{head}</tr></thead>" if has_head else ""
    body = []
    for row, key in zip_longest(table.rows, keys):
        cells = zip(row, kinds, [_swatch(key) if key else "", *[""] * len(row)], strict=False)
        body.append("".join(f'<td class="{kind}">{swatch}{escape(cell)}</td>' for cell, kind, swatch in cells))
    return f'<table class="{kind}">{head}<tbody>{"".join(f"<tr>{row}</tr>" for row in body)}</tbody></table>'
