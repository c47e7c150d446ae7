"""Rules on how the work is cut into items: too few, one too long, all too long, or not worth a pool at all."""

from __future__ import annotations

from mpqueue._output.words import counted, number, percent, seconds
from mpqueue._report.rules.rule import LIMITS, Evidence, Finding


def few_items(evidence: Evidence) -> Finding | None:
    """Fewer items than workers."""
    figures = evidence.figures
    if not 0 < figures.total < figures.workers or figures.shared or figures.grows:
        return None
    unused = 1 - figures.total / figures.workers
    return Finding(
        f"{counted(figures.total, 'item')} for {counted(figures.workers, 'worker')}: cut the items smaller, so that "
        "all have something to do.",
        evidence.of_workers(min(unused, figures.share("idle", "tail", "starting"))),
    )


def giant_item(evidence: Evidence) -> Finding | None:
    """One item ran on while the other workers had nothing to do."""
    figures, items = evidence.figures, evidence.figures.items
    if not _items_explain_the_end(evidence) or items is None:
        return None
    slowest = figures.slowest[0]
    if not figures.slowest_is_outlier(LIMITS.outlier):
        return None
    saved = evidence.saved("tail")
    return Finding(
        f"At the end the other workers had nothing to do for {percent(saved)} of the time: item {slowest.name} "
        f"took {seconds(slowest.seconds)}, {number(slowest.seconds / items.median)} times the median. Cut it up, or "
        "put long items first (cost=).",
        saved,
    )


def coarse_items(evidence: Evidence) -> Finding | None:
    """All items are long for a job so short, so that some workers had one more than others."""
    figures = evidence.figures
    if not _items_explain_the_end(evidence) or figures.slowest_is_outlier(LIMITS.outlier):
        return None
    saved = evidence.saved("tail")
    return Finding(
        f"At the end the other workers had nothing to do for {percent(saved)} of the time: items are long for a job of "
        f"{seconds(figures.wall)}. Cut them smaller.",
        saved,
    )


def _items_explain_the_end(evidence: Evidence) -> bool:
    """Whether workers were idle at the end because an item ran that long on another one."""
    figures = evidence.figures
    if figures.items is None or figures.total < figures.workers or not figures.slowest or figures.items.median <= 0:
        return False
    if figures.shared or figures.grows or figures.retry_waits > figures.longest_tail / 2:
        return False
    return figures.slowest[0].seconds >= figures.longest_tail / 2


def plain_loop(evidence: Evidence) -> Finding | None:
    """A loop on one core would have been over sooner."""
    figures, loop = evidence.figures, _loop_seconds(evidence)
    if loop is None or loop >= figures.whole:
        return None
    sums = figures.sums
    each = seconds(sums.handling / sums.items)
    return Finding(
        f"A plain loop would take about {seconds(loop)} ({counted(sums.items, 'item')} of {each} on one core), and "
        f"this took {seconds(figures.whole)}. Use a loop, or give each item much more to do.",
        1 - loop / figures.whole,
    )


def is_too_little(evidence: Evidence) -> bool:
    """Whether a loop is so short that no pool could be quicker, however well it is used."""
    loop = _loop_seconds(evidence)
    return loop is not None and loop < min(LIMITS.short_loop, evidence.figures.whole)


def _loop_seconds(evidence: Evidence) -> float | None:
    """Seconds that a loop on one core would take; None if that is not known, or is not the point."""
    figures, sums = evidence.figures, evidence.figures.sums
    if not sums.items or figures.items is None or sums.deaths or figures.grows or figures.elsewhere:
        return None
    if figures.workers < 2:
        return None  # one worker is there for other reasons: timeouts, crashes
    once = sums.setup / figures.workers_ever
    return sums.handling + once + figures.items_seconds + figures.retry_waits + figures.told_after
