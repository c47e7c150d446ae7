"""A report as text, for a terminal: at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mpqueue._report.figures import Figures, ItemTimes, Part
from mpqueue._report.rules.on_handler import memory_offer
from mpqueue._report.words import counted, number, percent, seconds, size
from mpqueue._text import visible

#: Characters of the longest bar.
BAR = 24
#: Lines of the histogram.
ROWS = 8


def write_text(figures: Figures, advice: Sequence[str]) -> str:
    """The whole report."""
    return visible("\n".join(line.rstrip() for line in _lines(figures, advice)).rstrip())


def headline(figures: Figures) -> str:
    """What became of the job, in a line."""
    failed = f", {number(figures.failed)} failed" if figures.failed else ""
    retries = f", {counted(figures.retries, 'retry')}" if figures.retries else ""
    return (
        f"{figures.status}: {number(figures.completed)} of {counted(figures.total, 'item')} completed{failed}{retries}"
        f", in {seconds(figures.wall)} on {counted(figures.workers, 'worker')}"
    )


def facts(figures: Figures) -> Iterator[tuple[str, str]]:
    """What else is known, each with its name."""
    sums = figures.sums
    in_hand = figures.in_hand
    if in_hand and sums.cpu:
        share = percent(sums.cpu / in_hand)
        yield "CPU time", f"{seconds(sums.cpu)}, {share} of the time that workers had chunks in hand"
    if in_hand and sums.delayed > 0.001 * in_hand:
        yield "no CPU free", f"{seconds(sums.delayed)}, {percent(min(1.0, sums.delayed / in_hand))} of that time"
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


def _lines(figures: Figures, advice: Sequence[str]) -> Iterator[str]:
    yield f"Job {figures.job_id!r} {headline(figures)}"
    yield ""
    yield from _advice(advice)
    whole = figures.worker_seconds
    if whole:
        yield f"Where the workers' time went ({figures.workers} x {seconds(figures.wall)})"
        yield from (_part(part, whole, bar=True) for part in figures.work)
        yield ""
        yield f"What the parent did meanwhile (of {seconds(figures.wall)})"
        yield from (_part(part, figures.wall) for part in figures.parent)
        yield ""
        yield "Also"
        yield from (f"  {name:<23} {value}" for name, value in facts(figures))
    if figures.items is not None:
        yield ""
        yield from _item_times(figures.items)
        yield ""
        yield "The slowest items"
        for item in figures.slowest:
            peak = "" if item.peak is None else f"  {size(item.peak)}"
            tries = f"  {counted(item.attempts, 'try')}" if item.attempts > 1 else ""
            failed = f"  {item.status}" if item.status != "completed" else ""
            yield f"  {seconds(item.seconds):>10}  {item.name}{peak}{tries}{failed}"


def _advice(advice: Sequence[str]) -> Iterator[str]:
    for text in advice:
        words = text.split()
        line = "  -"
        for word in words:
            if len(line) + 1 + len(word) > 100:
                yield line
                line = "   "
            line += f" {word}"
        yield line
    if advice:
        yield ""


def _part(part: Part, whole: float, *, bar: bool = False) -> str:
    share = part.seconds / whole if whole else 0.0
    drawn = "█" * round(share * BAR) if bar else ""
    return f"  {part.name:<23} {percent(share):>7} {seconds(part.seconds):>10}  {drawn or part.meaning}"


def _item_times(items: ItemTimes) -> Iterator[str]:
    yield (
        f"An item took {seconds(items.mean)} on average; the median is {seconds(items.median)}, 90 % took at most "
        f"{seconds(items.p90)}, 99 % {seconds(items.p99)}"
    )
    step = len(items.bars) // ROWS
    rows = [items.bars[at : at + step] for at in range(0, len(items.bars), step)]
    counts = [sum(count for _, _, count in row) for row in rows]
    for row, count in zip(rows, counts, strict=True):
        if count:
            drawn = "█" * max(1, round(count / max(counts) * BAR))
            yield f"  {seconds(row[0][0]):>10} to {seconds(row[-1][1]):>9} {number(count):>9}  {drawn}"
