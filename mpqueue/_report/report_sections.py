"""The sections of a report as plain data, in the order in which all of its forms show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from mpqueue._core.state.timings import PastRun
from mpqueue._report.figures import Figures, Part
from mpqueue._report.plots import bar_of_parts, draw_flames, histogram, throughput_of, timeline
from mpqueue._report.profile import Profile
from mpqueue._report.rules import memory_offer
from mpqueue._text import counted, day, moment, number, percent, seconds, size
from mpqueue.status import JobStatus

#: The number of causes of lost time in the headline.
MOST_LOST = 3
#: From this many times the existing CPUs on, one of the counts must be wrong.
COUNTED_WRONG = 1.05
#: The most groups of failures.
MOST_GROUPS = 20
#: The parts of the workers' time that are not lost: what runs now is in the handler, too.
AT_WORK = ("handler", "under_way")
#: The number of lines of the profile.
LINES = 12


class Section(NamedTuple):
    """A section. A form shows what it can of it: only the page has pictures."""

    title: str
    entries: Sequence[tuple[str, str]] = ()  #: texts, each with a longer one that it opens to, or ""
    picture: Callable[[], str] | None = None  #: makes HTML
    line: str = ""
    columns: Sequence[tuple[str, bool]] = ()  #: of a table: each one's heading, and True for numbers
    rows: Sequence[Sequence[str]] = ()
    keys: Sequence[str] = ()  #: the colours of the rows
    folded: bool = False  #: few readers need it


def sections(figures: Figures, advice: Sequence[str], profile: Profile | None) -> Iterator[Section]:
    """Yield the sections that the job has something for: failures first, then what to do about time, then figures."""
    if figures.failures:
        more = len(figures.failures) - MOST_GROUPS
        rest = [(f"and {counted(more, 'more group')}", "")] if more > 0 else []
        yield Section("What failed", [*figures.failures[:MOST_GROUPS], *rest])
    if advice:
        yield Section("What could make it quicker", [(text, "") for text in advice])
    if figures.worker_seconds:
        title = f"Where the workers' time went ({figures.workers} x {seconds(figures.unpaused)})"
        picture = partial(bar_of_parts, figures.work, figures.worker_seconds)
        keys = [part.key for part in figures.work]
        yield _of_parts(title, figures.work, figures.worker_seconds)._replace(picture=picture, keys=keys)
        yield Section("What each worker did", picture=partial(timeline, figures))
        if figures.sums.items and not figures.stages:  # an input is an item of each stage
            yield Section("Items per second", picture=partial(throughput_of, figures))
    if profile is not None:
        yield _where_handlers_were(profile)
    if (items := figures.items) is not None:
        line = (
            f"An item took {seconds(items.mean)} on average; the median is {seconds(items.median)}, 90% took at most "
            f"{seconds(items.p90)}, 99% {seconds(items.p99)}"
        )
        yield Section("How long items took", picture=partial(histogram, items), line=line)
        yield _slowest_items(figures)
    if figures.worker_seconds:
        title = f"What the parent did meanwhile (of {seconds(figures.wall)})"
        yield _of_parts(title, figures.parent, figures.wall)._replace(folded=True)
    if found := [*facts(figures)]:
        yield Section("More figures", columns=(("", False), ("", False)), rows=found, folded=True)


def headline(figures: Figures) -> str:
    """Return a line on the end of the job."""
    failed = f", {number(figures.failed)} failed" if figures.failed else ""
    retries = f", {counted(figures.retries, 'retry')}" if figures.retries else ""
    workers = counted(figures.workers, "worker")
    # As the live page says it.
    status = "with errors" if figures.status == JobStatus.COMPLETED_WITH_ERRORS else figures.status
    return (
        f"{status}: {number(figures.completed)} of {counted(figures.total, 'item')} completed{failed}{retries}"
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
    lost = sorted((part for part in figures.work if part.key not in AT_WORK), key=lambda part: -part.seconds)
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
        yield "paused", f"{seconds(sums.paused)}, left out of the workers' time"
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


def _of_parts(title: str, parts: Sequence[Part], whole: float) -> Section:
    rows = [(part.name, percent(part.seconds / whole), seconds(part.seconds), part.meaning) for part in parts]
    return Section(title, columns=(("", False), ("share", True), ("time", True), ("", False)), rows=rows)


def _slowest_items(figures: Figures) -> Section:
    cells = {
        ("item", False): [item.name for item in figures.slowest],
        ("time", True): [seconds(item.seconds) for item in figures.slowest],
        ("memory", True): ["" if item.peak is None else size(item.peak) for item in figures.slowest],
        ("tries", True): [number(item.attempts) for item in figures.slowest],
        ("", False): [item.status for item in figures.slowest],
    }
    if figures.memory is None:
        del cells["memory", True]
    return Section("The slowest items", columns=list(cells), rows=list(zip(*cells.values(), strict=True)))


def _where_handlers_were(profile: Profile) -> Section:
    """The flame graph, and the lines of code with most time of their own."""
    title = f"Where the handlers were ({seconds(profile.seconds)}, sampled)"
    if not profile.stacks:
        return Section(title, line="Nothing was sampled: no item that has ended ran for long enough.")
    lines = [line for line in profile.lines()[:LINES] if line.own]
    rows = [
        (percent(line.own / profile.seconds), percent(line.total / profile.seconds), str(line.frame)) for line in lines
    ]
    columns = (("own", True), ("with calls", True), ("line", False))
    return Section(title, picture=partial(draw_flames, profile), columns=columns, rows=rows)
