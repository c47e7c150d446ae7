"""Rules on what is sent: the handler, the items, the results, and how many of them go at a time."""

from __future__ import annotations

from mpqueue._output.words import number, percent, seconds, size
from mpqueue._report.in_band import InBand
from mpqueue._report.rules.on_items import is_too_little
from mpqueue._report.rules.rule import LIMITS, Evidence, Finding


def heavy_handler(evidence: Evidence) -> Finding | None:
    """The handler is a closure over something big."""
    figures = evidence.figures
    if figures.handler_bytes < LIMITS.heavy_handler:
        return None
    saved = evidence.saved("loading") + figures.handler_seconds / figures.whole
    what = f", most of it {figures.handler_weight}" if figures.handler_weight else ""
    return Finding(
        f"{percent(saved)} of the time went into pickling and unpickling a {size(figures.handler_bytes)} closure{what}"
        ": mpqueue.share() it, or load it in setup.",
        saved,
    )


def imports(evidence: Evidence) -> Finding | None:
    """Unpickling the handler imports much."""
    figures, saved = evidence.figures, evidence.saved("loading") - evidence.again("loading")
    if figures.handler_bytes >= LIMITS.heavy_handler:
        return None
    each = figures.sums.loading / figures.workers_ever
    return Finding(
        f"Each worker took {seconds(each)} to load the handler, {percent(saved)} of the time: it imports much. Keep "
        "one queue for several jobs, or import once for all workers: JobQueue(preload=[...]).",
        saved,
    )


def items_pickled(evidence: Evidence) -> Finding | None:
    """Items are big, or slow to pickle."""
    figures = evidence.figures
    sums = figures.sums
    each = sums.bytes_out / max(1, sums.items)
    if each < LIMITS.big_item and (sums.parent_pickling + sums.unpacking) / max(1, sums.items) < LIMITS.slow_pickle:
        return None  # there are many of them, and that is what is to be said
    saved = evidence.saved("for_pickling", "unpickling")
    if evidence.saved("for_pickling") > LIMITS.worth / 2:  # others had nothing to do while it pickled one's
        saved = max(saved, min(sums.parent_pickling / figures.whole, saved + evidence.saved("idle")))
    if figures.item_in_band is not None:
        remedy = _send_instead(figures.item_in_band)
    elif each >= LIMITS.big_item:
        remedy = (
            f"they are {size(each)} each: send paths or keys and read the data in the worker, or mpqueue.share() what "
            "they have in common"
        )
    else:
        remedy = "their objects are slow to pickle: send plain data, or paths and keys"
    return Finding(f"{percent(saved)} of the time went into pickling and unpickling items; {remedy}.", saved)


def _send_instead(found: InBand) -> str:
    """An object whose content is copied into the pickle and out of it."""
    return f"the {found.name} of {size(found.size)} in one is copied into the pickle and out of it: {found.remedy}"


def results_pickled(evidence: Evidence) -> Finding | None:
    """Results are big, or slow to pickle."""
    figures = evidence.figures
    sums = figures.sums
    each = sums.bytes_home / max(1, sums.items)
    if each < LIMITS.big_item and (sums.packing + sums.parent_unpickling) / max(1, sums.items) < LIMITS.slow_pickle:
        return None
    saved = evidence.saved("pickling", "for_unpickling")
    if figures.result_in_band is not None:
        remedy = _send_instead(figures.result_in_band)
    elif each >= LIMITS.big_item:
        remedy = f"they are {size(each)} each: return less, or write them to files in the worker and return the paths"
    else:
        remedy = "their objects are slow to pickle: return plain data (numbers, strings, tuples, dicts) or arrays"
    return Finding(f"{percent(saved)} of the time went into pickling and unpickling results; {remedy}.", saved)


#: Seconds that items take to come, below which it is no matter.
SLOW_SOURCE = 0.05
#: The parts of the workers' time that go with sending short items.
SENDING = ("own", "transfer", "unpickling", "pickling", "for_parent", "for_pickling", "for_unpickling")


def short_items(evidence: Evidence) -> Finding | None:
    """Items are so short that sending them takes as long."""
    figures = evidence.figures
    sums, items = figures.sums, figures.items
    if items is None or not sums.reports or items.mean >= LIMITS.short_item or _has_small_chunks(evidence):
        return None
    if is_too_little(evidence):
        return None
    saved = evidence.saved(*SENDING)
    return Finding(
        f"Items take {seconds(items.mean)}: they were sent {number(sums.items / sums.reports)} at a time, and still "
        f"{percent(saved)} of the time went into sending them. Do more in one item: a range of numbers, a whole file.",
        saved,
    )


def small_chunks(evidence: Evidence) -> Finding | None:
    """A ``chunksize`` was asked for that is too small for items so short."""
    figures = evidence.figures
    if figures.items is None or not _has_small_chunks(evidence) or is_too_little(evidence):
        return None
    saved = evidence.saved(*SENDING)
    together = figures.sums.items / figures.sums.reports
    return Finding(
        f"Items take {seconds(figures.items.mean)}, and chunksize={figures.chunksize} sends {number(together)} at a "
        f"time: {percent(saved)} of the time went into sending. Leave chunksize out.",
        saved,
    )


def _has_small_chunks(evidence: Evidence) -> bool:
    figures = evidence.figures
    sums, items = figures.sums, figures.items
    if figures.chunksize is None or items is None or not sums.reports or items.mean >= LIMITS.short_item:
        return False
    return sums.items / sums.reports * items.mean < LIMITS.small_chunk


def slow_items_source(evidence: Evidence) -> Finding | None:
    """What the items come from took long, before the first of them ran."""
    figures = evidence.figures
    if figures.items_seconds < max(SLOW_SOURCE, LIMITS.slow_pickle * figures.total):
        return None
    share = figures.items_seconds / figures.whole
    return Finding(
        f"It took {seconds(figures.items_seconds)} to go through the items, {percent(share)} of the time, before the "
        "first of them ran. Let the handler do that work: give it names or numbers as items. Or use imap, whose items "
        "run while others are made.",
        share * (1 - 1 / figures.workers) if figures.workers > 1 else share / 2,
    )


def starved(evidence: Evidence) -> Finding | None:
    """Items were added more slowly than the workers took them."""
    figures = evidence.figures
    if not figures.grows or figures.shared or figures.retry_waits > 0:
        return None
    saved = evidence.saved("idle")
    return Finding(
        f"The workers waited {percent(saved)} of the time for items to be added. Let the handler do the work of making "
        "them: add names or numbers.",
        saved,
    )
