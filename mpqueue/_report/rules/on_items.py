"""Rules on the items: their data, how many are sent together, their source, and their sizes."""

from __future__ import annotations

from mpqueue._output.words import counted, number, percent, seconds, size
from mpqueue._report.figures import Figures
from mpqueue._report.rules.rule import INFERRED, LIMITS, MEASURED, Finding, rule


@rule("heavy handler", MEASURED, loading="bytes")
def heavy_handler(figures: Figures) -> Finding | None:
    """The handler is a closure over a big object."""
    if figures.handler_bytes < LIMITS.heavy_handler:
        return None
    saved = figures.saved("loading") + figures.handler_seconds / figures.whole
    what = f", most of it {figures.handler_weight}" if figures.handler_weight else ""
    return Finding(
        f"{percent(saved)} of the time went into pickling and unpickling a {size(figures.handler_bytes)} closure{what}"
        ": mpqueue.share() it, or load it in setup.",
        saved,
    )


@rule("imports", MEASURED, loading="imports")
def imports(figures: Figures) -> Finding | None:
    """Unpickling the handler imports much."""
    saved = figures.saved("loading") - figures.again("loading")
    if figures.handler_bytes >= LIMITS.heavy_handler:
        return None
    each = figures.sums.loading / figures.workers_ever
    return Finding(
        f"Each worker took {seconds(each)} to load the handler, {percent(saved)} of the time: it imports much. Keep "
        "one queue for several jobs, or import once for all workers: JobQueue(preload=[...]).",
        saved,
    )


@rule("items pickled", MEASURED, sending="each item")
def items_pickled(figures: Figures) -> Finding | None:
    """Items are big, or slow to pickle."""
    sums = figures.sums
    saved = figures.saved("for_pickling", "unpickling")
    if figures.saved("for_pickling") > LIMITS.worth / 2:  # workers were idle while it pickled another's items
        saved = max(saved, min(sums.parent_pickling / figures.whole, saved + figures.saved("idle")))
    return _pickled(
        "items",
        figures,
        (sums.bytes_out, sums.parent_pickling + sums.unpacking),
        saved,
        big="put numbers into a numpy array, and text into one str, send paths or keys and read the data in the "
        "worker, or mpqueue.share() what they have in common",
        slow="send plain data, or paths and keys",
    )


@rule("results pickled", MEASURED, sending="each item")
def results_pickled(figures: Figures) -> Finding | None:
    """Results are big, or slow to pickle."""
    sums = figures.sums
    saved = figures.saved("pickling", "for_unpickling")
    return _pickled(
        "results",
        figures,
        (sums.bytes_home, sums.packing + sums.parent_unpickling),
        saved,
        big="put numbers into a numpy array, and text into one str, return less, or write them to files in the worker "
        "and return the paths",
        slow="return plain data (numbers, strings, tuples, dicts) or arrays",
    )


def _pickled(
    what: str, figures: Figures, found: tuple[float, float], saved: float, *, big: str, slow: str
) -> Finding | None:
    """Advise on a replacement for items or results that are big or slow to pickle; None if they are neither."""
    count = max(1, figures.sums.items)
    each, pickling = found[0] / count, found[1] / count
    if each < LIMITS.big_item and pickling < LIMITS.slow_pickle:
        return None
    if each >= LIMITS.big_item:
        remedy = f"they are {size(each)} each: {big}"
    else:
        remedy = f"their objects are slow to pickle: {slow}"
    return Finding(f"{percent(saved)} of the time went into pickling and unpickling {what}; {remedy}.", saved)


#: Seconds of reading the items below which the source is not slow.
SLOW_SOURCE = 0.05
#: The parts of the workers' time that sending short items takes.
SENDING = ("own", "transfer", "unpickling", "pickling", "for_parent", "for_pickling", "for_unpickling")


@rule("short items", MEASURED, item_size="larger", sending="many items", handler="is short")
def short_items(figures: Figures) -> Finding | None:
    """Items are so short that sending them takes as long."""
    sums, items = figures.sums, figures.items
    if items is None or not sums.reports or items.mean >= LIMITS.short_item or _has_small_chunks(figures):
        return None
    if is_too_little(figures):
        return None
    saved = figures.saved(*SENDING)
    return Finding(
        f"Items take {seconds(items.mean)}: they were sent {number(sums.items / sums.reports)} at a time, and still "
        f"{percent(saved)} of the time went into sending them. Do more in one item: a range of numbers, a whole file.",
        saved,
    )


@rule("small chunks", MEASURED, item_size="as it is", sending="many items", handler="is short", end="small chunks")
def small_chunks(figures: Figures) -> Finding | None:
    """The given ``chunksize`` is too small for items so short."""
    if figures.items is None or not _has_small_chunks(figures) or is_too_little(figures):
        return None
    saved = figures.saved(*SENDING)
    together = figures.sums.items / figures.sums.reports
    return Finding(
        f"Items take {seconds(figures.items.mean)}, and chunksize={figures.chunksize} sends {number(together)} at a "
        f"time: {percent(saved)} of the time went into sending. Leave chunksize out.",
        saved,
    )


def _has_small_chunks(figures: Figures) -> bool:
    sums, items = figures.sums, figures.items
    if figures.chunksize is None or items is None or not sums.reports or items.mean >= LIMITS.short_item:
        return False
    return sums.items / sums.reports * items.mean < LIMITS.small_chunk


@rule("slow items source", INFERRED, source="before")
def slow_items_source(figures: Figures) -> Finding | None:
    """The source of the items took long, before the first item ran."""
    if figures.items_seconds < max(SLOW_SOURCE, LIMITS.slow_pickle * figures.total):
        return None
    share = figures.items_seconds / figures.whole
    return Finding(
        f"It took {seconds(figures.items_seconds)} to go through the items, {percent(share)} of the time, before the "
        "first of them ran. Let the handler do that work: give it names or numbers as items. Or use imap, whose items "
        "run while others are made.",
        share * (1 - 1 / figures.workers) if figures.workers > 1 else share / 2,
    )


@rule("starved", MEASURED, source="meanwhile", workers="enough")
def starved(figures: Figures) -> Finding | None:
    """Items were added more slowly than the workers took them."""
    if not figures.grows or figures.shared or figures.retry_waits > 0:
        return None
    saved = figures.saved("idle")
    return Finding(
        f"The workers waited {percent(saved)} of the time for items to be added. Let the handler do the work of making "
        "them: add names or numbers.",
        saved,
    )


@rule("few items", MEASURED, end="few items", item_size="smaller")
def few_items(figures: Figures) -> Finding | None:
    """Fewer items than workers."""
    if not 0 < figures.total < figures.workers or figures.shared or figures.grows:
        return None
    unused = 1 - figures.total / figures.workers
    return Finding(
        f"{counted(figures.total, 'item')} for {counted(figures.workers, 'worker')}: cut the items smaller, so that "
        "all have something to do.",
        figures.of_workers(min(unused, figures.share("idle", "tail", "starting"))),
    )


@rule("giant item", MEASURED, end="giant item")
def giant_item(figures: Figures) -> Finding | None:
    """One item still ran while the other workers had nothing to do."""
    items = figures.items
    if not _items_explain_the_end(figures) or items is None:
        return None
    slowest = figures.slowest[0]
    if not figures.slowest_is_outlier(LIMITS.outlier):
        return None
    saved = figures.saved("tail")
    return Finding(
        f"At the end the other workers had nothing to do for {percent(saved)} of the time: item {slowest.name} "
        f"took {seconds(slowest.seconds)}, {number(slowest.seconds / items.median)} times the median. Cut it up, or "
        "put long items first (cost=).",
        saved,
    )


@rule("coarse items", MEASURED, end="coarse items", item_size="smaller")
def coarse_items(figures: Figures) -> Finding | None:
    """All items are long for such a short job, so that some workers had one more than others."""
    if not _items_explain_the_end(figures) or figures.slowest_is_outlier(LIMITS.outlier):
        return None
    saved = figures.saved("tail")
    return Finding(
        f"At the end the other workers had nothing to do for {percent(saved)} of the time: items are long for a job of "
        f"{seconds(figures.wall)}. Cut them smaller.",
        saved,
    )


def _items_explain_the_end(figures: Figures) -> bool:
    """Tell whether workers were idle at the end because an item ran that long on another worker."""
    if figures.items is None or figures.total < figures.workers or not figures.slowest or figures.items.median <= 0:
        return False
    if figures.shared or figures.grows or figures.retry_waits > figures.longest_tail / 2:
        return False
    return figures.slowest[0].seconds >= figures.longest_tail / 2


@rule("plain loop", MEASURED, pool="drop", item_size="larger")
def plain_loop(figures: Figures) -> Finding | None:
    """A loop on one core would have been over sooner."""
    loop = _loop_seconds(figures)
    if loop is None or loop >= figures.whole:
        return None
    sums = figures.sums
    each = seconds(sums.handling / sums.items)
    return Finding(
        f"A plain loop would take about {seconds(loop)} ({counted(sums.items, 'item')} of {each} on one core), and "
        f"this took {seconds(figures.whole)}. Use a loop, or give each item much more to do.",
        1 - loop / figures.whole,
    )


def is_too_little(figures: Figures) -> bool:
    """Tell whether a loop is so short that no pool could be faster."""
    loop = _loop_seconds(figures)
    return loop is not None and loop < min(LIMITS.short_loop, figures.whole)


def _loop_seconds(figures: Figures) -> float | None:
    """Seconds that a loop on one core would take; None if that is not known, or not relevant."""
    sums = figures.sums
    if not sums.items or figures.items is None or sums.deaths or figures.grows or figures.elsewhere:
        return None
    if figures.workers < 2:
        return None  # the user has one worker for other reasons: timeouts, crashes
    once = sums.setup / figures.workers_ever
    return sums.handling + once + figures.items_seconds + figures.retry_waits + figures.told_after
