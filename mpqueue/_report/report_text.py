"""The texts and tables of a report, which all its forms have; and its form for a terminal, at most 100 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mpqueue._core.state.timings import PastRun
from mpqueue._output.words import counted, day, moment, number, percent, seconds, size
from mpqueue._report.figures import Figures, ItemTimes, Part
from mpqueue._report.profile import Profile
from mpqueue._report.rules.on_handler import memory_offer
from mpqueue._text import visible, visible_line

#: Characters of a line, and of a cell that others follow.
WIDTH, WIDEST = 100, 50
#: The number of causes of lost time in the headline.
MOST_LOST = 3
#: From this many times the existing CPUs on, one of the counts must be wrong.
COUNTED_WRONG = 1.05
#: The number of groups of failures, and of lines of each one's traceback.
MOST_GROUPS, TRACEBACK = 5, 6
#: The number of lines of the profile.
LINES = 12


def write_text(figures: Figures, advice: Sequence[str], profile: Profile | None = None) -> str:
    """The whole report."""
    lines = _lines(figures, advice, profile)
    return visible("\n".join(line.rstrip() for line in lines).rstrip())


def headline(figures: Figures) -> str:
    """Return a line on the end of the job."""
    failed = f", {number(figures.failed)} failed" if figures.failed else ""
    retries = f", {counted(figures.retries, 'retry')}" if figures.retries else ""
    workers = counted(figures.workers, "worker")
    return (
        f"{figures.status}: {number(figures.completed)} of {counted(figures.total, 'item')} completed{failed}{retries}"
        f", in {seconds(figures.wall)}{f' on {workers}' if figures.workers else ''}"
    )


def cpus(figures: Figures) -> str:
    """Effective CPUs: ``3.6 of 4 CPUs``; or a text that they can't be measured, or are more than exist."""
    used = figures.cpus_used
    if used is None:
        return "CPUs were not measured"
    if figures.elsewhere:
        return f"{used:.1f} CPUs, on several machines"
    if used > figures.cpus * COUNTED_WRONG:
        return f"{used:.1f} CPUs, more than the {figures.cpus} that are counted"
    return f"{min(used, figures.cpus):.1f} of {counted(figures.cpus, 'CPU')}"


def subtitles(figures: Figures) -> Iterator[str]:
    """Lines under the headline: causes of lost time, the time and place of the run, and the last run."""
    whole = figures.worker_seconds
    lost = sorted((part for part in figures.work if part.key != "handler"), key=lambda part: -part.seconds)
    if whole:
        yield f"used: {cpus(figures)}"
    if whole and lost:
        worst = [f"{part.name} {percent(part.seconds / whole)}" for part in lost[:MOST_LOST] if part.seconds > 0]
        share = percent(min(1.0, sum(part.seconds for part in lost) / whole))
        yield f"outside the handler: {share} of the workers' time: {', '.join(worst)}"
    began = "" if figures.started_at is None else moment(figures.started_at)
    handler = f"handler {figures.handler_name}" if figures.handler_name else ""
    python = f"Python {figures.python}" if figures.python else ""
    yield ", ".join(filter(None, (figures.host, began, python, handler)))
    if figures.past is not None:
        yield f"last run: {', '.join(_past(figures.past))}"


def _past(run: PastRun) -> Iterator[str]:
    yield day(run.started_at)
    if run.seconds is None:
        yield "not known when it ended"
        return
    yield seconds(run.seconds)
    if run.cpu is not None and run.seconds > 0:
        yield f"{run.cpu / run.seconds:.1f} CPUs"
    if run.items is not None:
        yield counted(run.items, "item")


def facts(figures: Figures) -> Iterator[tuple[str, str]]:
    """Yield the other facts of the report, each with its name."""
    sums = figures.sums
    if figures.computed:
        share = percent(figures.computed)
        yield "CPU time", f"{seconds(sums.cpu)}, {share} of the time that workers had chunks in hand"
    if figures.delayed > 0.001:
        yield "no CPU free", f"{seconds(sums.delayed)}, {percent(figures.delayed)} of that time"
    if sums.reports:
        yield "chunks", f"{number(sums.reports)}, of {sums.items / sums.reports:,.1f} items on average"
        yield "sent, received", f"{size(sums.bytes_out)}, {size(sums.bytes_home)}"
        yield "queued", f"{seconds(sums.queued / sums.reports)} a chunk, at a worker that was busy with the one before"
    if figures.handler_bytes:
        took = f", pickled in {seconds(figures.handler_seconds)}" if figures.handler_seconds > 0.001 else ""
        yield "the handler", f"{size(figures.handler_bytes)}{took}"
    yield from _memory(figures)
    if sums.paused:
        yield "paused", seconds(sums.paused)
    if sums.deaths:
        yield "workers that died", number(sums.deaths)
    if figures.tries.failed:
        yield "failed tries", f"{number(figures.tries.failed)}, {seconds(figures.tries.seconds)} in the handler"
        for error, count in figures.tries.errors:
            yield "", f"{number(count)} x {error}"


def _memory(figures: Figures) -> Iterator[tuple[str, str]]:
    memory = figures.memory
    if memory is None:
        return
    yield (
        "the most memory",
        f"{size(memory.most)}, in item {memory.greediest}; the median is {size(memory.median)}",
    )
    if (offer := memory_offer(figures)) is not None:
        yield "to say so", offer


# -- tables ------------------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    """A table. ``columns`` has each one's heading, and True for numbers."""

    title: str
    columns: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[str]]


def time_of_workers(figures: Figures) -> Table:
    """Return the table of the parts of the workers' time."""
    title = f"Where the workers' time went ({figures.workers} x {seconds(figures.wall)})"
    return _of_parts(title, figures.work, figures.worker_seconds)


def time_of_parent(figures: Figures) -> Table:
    """Return the table of the parts of the program's own time."""
    return _of_parts(f"What the parent did meanwhile (of {seconds(figures.wall)})", figures.parent, figures.wall)


def _of_parts(title: str, parts: Sequence[Part], whole: float) -> Table:
    rows = [(part.name, percent(part.seconds / whole), seconds(part.seconds), part.meaning) for part in parts]
    return Table(title, (("", False), ("share", True), ("time", True), ("", False)), rows)


def further_facts(figures: Figures) -> Table:
    """The other facts."""
    return Table("Also", (("", False), ("", False)), [*facts(figures)])


def slowest_items(figures: Figures) -> Table:
    """The slowest items."""
    cells = {
        ("item", False): [item.name for item in figures.slowest],
        ("time", True): [seconds(item.seconds) for item in figures.slowest],
        ("memory", True): ["" if item.peak is None else size(item.peak) for item in figures.slowest],
        ("tries", True): [number(item.attempts) for item in figures.slowest],
        ("", False): [item.status for item in figures.slowest],
    }
    if figures.memory is None:
        del cells["memory", True]
    return Table("The slowest items", list(cells), list(zip(*cells.values(), strict=True)))


def heaviest_lines(profile: Profile) -> Table:
    """The lines of code with most time of their own."""
    whole = profile.seconds or 1.0
    lines = [line for line in profile.lines()[:LINES] if line.own]
    rows = [(percent(line.own / whole), percent(line.total / whole), str(line.frame)) for line in lines]
    title = f"Where the handlers were ({seconds(profile.seconds)}, sampled)"
    return Table(title, (("own", True), ("with calls", True), ("line", False)), rows)


def times_line(items: ItemTimes) -> str:
    """Say how long items took."""
    return (
        f"An item took {seconds(items.mean)} on average; the median is {seconds(items.median)}, 90% took at most "
        f"{seconds(items.p90)}, 99% {seconds(items.p99)}"
    )


# -- the text ----------------------------------------------------------------------------------------------------------


def _lines(figures: Figures, advice: Sequence[str], profile: Profile | None) -> Iterator[str]:
    yield f"Job {figures.job_id!r} {headline(figures)}"
    for line in subtitles(figures):
        yield from _wrapped(f"  {line}")
    yield ""
    yield from _failures(figures)
    yield from _advice(advice)
    if figures.worker_seconds:
        for table in (time_of_workers(figures), time_of_parent(figures), further_facts(figures)):
            yield from _aligned(table)
    if figures.items is not None:
        yield times_line(figures.items)
        yield ""
        yield from _aligned(slowest_items(figures))
    if profile is not None and profile.stacks:
        yield from _aligned(heaviest_lines(profile))


def _failures(figures: Figures) -> Iterator[str]:
    """Yield each group of failures with the end of its traceback."""
    if figures.failures:
        yield "What failed"
    for group in figures.failures[:MOST_GROUPS]:
        trace = group.traceback.rstrip().splitlines()[-TRACEBACK:]
        yield from (_cut(line) for line in (f"  {group.text}", *(f"      {line}" for line in trace)))
    if len(figures.failures) > MOST_GROUPS:
        yield f"  ... and {counted(len(figures.failures) - MOST_GROUPS, 'more group')}"
    if figures.failures:
        yield ""


def _advice(advice: Sequence[str]) -> Iterator[str]:
    for text in advice:
        yield from _wrapped(f"  - {text}")
    if advice:
        yield ""


def _aligned(table: Table) -> Iterator[str]:
    """Yield the table with its title, and an empty line behind it."""
    yield table.title
    names = [name for name, _ in table.columns]
    rows = [_cells(row) for row in (([names] if any(names) else []) + [*table.rows])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, table.columns, strict=True)
        aligned = [cell.rjust(width) if is_number else cell.ljust(width) for cell, width, (_, is_number) in cells]
        yield _cut("  " + "  ".join(aligned).rstrip())
    yield ""


def _cells(row: Sequence[str]) -> list[str]:
    """The cells as one line each. Only the last one may fill the line: the others would push it beyond the end."""
    *heads, last = map(visible_line, row)
    return [*(_cut(cell, WIDEST) for cell in heads), last]


def _cut(line: str, width: int = WIDTH) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _wrapped(text: str) -> Iterator[str]:
    return iter(textwrap.wrap(text, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))
