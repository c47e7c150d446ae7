"""Advice: its rules, each for one cause of slowness, with the figures that show it, its remedy, and what it saves.

A report has those that apply and don't contradict each other, the largest effect first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mpqueue._report.figures import Figures
from mpqueue._text import counted, number, percent, seconds, shown, size, times


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits from which on a finding is reported. Shares are of 1."""

    #: The least part of the user's time for a report: below, a finding is left out.
    worth: float = 0.10
    #: The part of the workers' time in the handler from which on only the handler can be improved.
    well_used: float = 0.85
    #: Bytes from which on a handler is heavy, and an item or a result is big.
    heavy_handler: int = 1_000_000
    big_item: int = 10_000
    #: Seconds of pickling and unpickling from which on objects of an item or a result are slow: numbers take 0.1 us.
    slow_pickle: float = 10e-6
    #: Seconds that the pickling and unpickling of a chunk may take on a busy machine, whatever is in it.
    pickle_of_chunk: float = 200e-6
    #: Seconds below which items are short enough to be sent together.
    short_item: float = 0.001
    #: Seconds of work below which a chunk of the user's size is too small: a chunk costs 0.3 ms.
    small_chunk: float = 0.003
    #: The waiting part of the time in the handler, from which on it is a handler that waits.
    waits: float = 0.5
    #: The part of the workers' time with a chunk that they computed or lacked a CPU: below, more workers can wait at a
    #: time.
    computes: float = 0.7
    #: The part of the items per second that fewer workers must reach too.
    as_much: float = 0.9
    #: CPU seconds beyond one thread's most, as a part of the time with a chunk: above, the handler has threads.
    threads: float = 0.3
    #: The part of the time with a chunk in which workers were ready to run and had no CPU.
    no_cpu: float = 0.15
    #: The part of the CPUs from which on all count as used.
    saturated: float = 0.75
    #: The factor by which an item takes longer while many workers are busy; and the least number of items.
    slowdown: float = 1.4
    evidence: int = 5
    #: The factor of the median, and the part of the run, from which on the slowest item is an outlier.
    outlier: float = 5.0
    outlier_of_run: float = 0.2
    #: Seconds of a loop below which no pool is worth its cost.
    short_loop: float = 0.1
    #: The most workers that are proposed for a handler that waits, as a factor.
    most_workers: int = 8


LIMITS = Thresholds()


class Finding(NamedTuple):
    """A rule that the figures support: the cause, the remedy, and the part of the time that it saves."""

    text: str
    saved: float  #: of the user's time, from 0 to 1
    anyway: bool = False  #: reported even if it saves little time: memory, or processes, are wasted


@dataclass(frozen=True, slots=True)
class Rule:
    """One cause of slowness. ``find`` gives a finding if the figures support it, else None.

    ``says`` has its claims by subject. Rules with different claims on a subject contradict each other: a report never
    has both.
    """

    name: str
    find: Callable[[Figures], Finding | None]
    says: Mapping[str, str]


#: All rules, in the order of this file.
RULES: list[Rule] = []


def rule(name: str, *, pool: str | None = "keep", **says: str) -> Callable[[Callable[[Figures], Finding | None]], Rule]:
    """Make a rule of a function.

    The subjects: the use of a ``pool`` (a plain loop against everything that improves a pool), the ``item_size``, the
    number of ``workers``, the ``handler``'s use of time, why workers had no ``cpu``, why some were idle at the ``end``,
    slow ``sending``, and when the ``source`` of the items is slow.
    """

    def make(find: Callable[[Figures], Finding | None]) -> Rule:
        RULES.append(Rule(name, find, says if pool is None else {"pool": pool, **says}))
        return RULES[-1]

    return make


def contradict(one: Rule, other: Rule) -> bool:
    """True for two rules that must not be in the same report."""
    return any(other.says.get(subject, what) != what for subject, what in one.says.items())


# -- The items: their data, how many are sent together, their source, and their sizes. ---------------------------------


@rule("loading")
def loading(figures: Figures) -> Finding | None:
    """The handler is a closure over a big object, or unpickling it imports much."""
    saved = figures.saved("loading")
    if figures.handler_bytes >= LIMITS.heavy_handler:
        saved += figures.handler_seconds / figures.whole
        what = f", most of it {figures.handler_weight}" if figures.handler_weight else ""
        return Finding(
            f"{percent(saved)} of the time went into pickling and unpickling a {size(figures.handler_bytes)} "
            f"closure{what}: mpqueue.share() it, or load it in setup.",
            saved,
        )
    saved -= figures.again("loading")
    return Finding(
        f"Each worker took {seconds(figures.sums.loading / figures.workers_ever)} to load the handler, "
        f"{percent(saved)} of the time: it imports much. Keep one queue for several jobs, or import once for all "
        "workers: JobQueue(preload=[...]).",
        saved,
    )


@rule("items pickled", sending="each item")
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


@rule("results pickled", sending="each item")
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
    if not _is_heavy(figures, *found):
        return None
    each = found[0] / max(1, figures.sums.items)
    if each >= LIMITS.big_item:
        remedy = f"they are {size(each)} each: {big}"
    else:
        remedy = f"their objects are slow to pickle: {slow}"
    return Finding(f"{percent(saved)} of the time went into pickling and unpickling {what}; {remedy}.", saved)


def _is_heavy(figures: Figures, data: float, pickling: float) -> bool:
    """Tell whether items, or results, are big or slow to pickle: by their bytes, and seconds on both sides."""
    sums = figures.sums
    if data >= LIMITS.big_item * max(1, sums.items):
        return True
    return pickling >= max(LIMITS.slow_pickle * max(1, sums.items), LIMITS.pickle_of_chunk * sums.reports)


#: Seconds of reading the items below which the source is not slow.
SLOW_SOURCE = 0.05
#: The parts of the workers' time that sending short items takes.
SENDING = ("own", "transfer", "unpickling", "pickling", "for_parent", "for_pickling", "for_unpickling")
#: Those among them that items take, however many are sent together, if they are heavy; and results.
OF_ITEMS, OF_RESULTS = ("transfer", "unpickling", "for_pickling"), ("transfer", "pickling", "for_unpickling")


@rule("short items", item_size="larger", sending="many items", handler="is short")
def short_items(figures: Figures) -> Finding | None:
    """Items are so short that sending them takes as long, or the given ``chunksize`` is too small for them."""
    sums, items = figures.sums, figures.items
    if items is None or not sums.reports or items.mean >= LIMITS.short_item or is_too_little(figures):
        return None
    of_data = OF_ITEMS * _is_heavy(figures, sums.bytes_out, sums.parent_pickling + sums.unpacking)
    of_data += OF_RESULTS * _is_heavy(figures, sums.bytes_home, sums.packing + sums.parent_unpickling)
    saved, together = figures.saved(*(key for key in SENDING if key not in of_data)), sums.items / sums.reports
    if figures.chunksize is not None and together * items.mean < LIMITS.small_chunk:
        text = (
            f"Items take {seconds(items.mean)}, and chunksize={figures.chunksize} sends {number(together)} at a time: "
            f"{percent(saved)} of the time went into sending. Leave chunksize out."
        )
    else:
        text = (
            f"Items take {seconds(items.mean)}: they were sent {number(together)} at a time, and still "
            f"{percent(saved)} of the time went into sending them. Do more in one item: a range of numbers, a "
            "whole file."
        )
    return Finding(text, saved)


@rule("slow items source", source="before")
def slow_items_source(figures: Figures) -> Finding | None:
    """The source of the items took long, before the first item ran."""
    if figures.items_seconds < max(SLOW_SOURCE, LIMITS.slow_pickle * figures.total):
        return None
    share = figures.items_seconds / figures.whole
    return Finding(
        f"It took {seconds(figures.items_seconds)} to go through the items, {percent(share)} of the time, before the "
        "first of them ran. Let the handler do that work: give it names or numbers as items. Or use imap, whose items "
        "run while others are made.",
        share * (1 - 1 / figures.workers) if figures.workers > 1 else min(share, figures.unpaused / figures.whole),
    )


@rule("starved", source="meanwhile", workers="enough")
def starved(figures: Figures) -> Finding | None:
    """Items were added more slowly than the workers took them."""
    if not figures.grows or figures.shared or figures.retry_waits > 0:
        return None
    waited = figures.saved("idle")
    return Finding(
        f"The workers waited {percent(waited)} of the time for items to be added. Let the handler do the work of "
        "making them: add names or numbers.",
        max(0.0, waited - 1 / figures.workers),  # that work, of all the time, is then the workers'
    )


@rule("few items", end="few items", item_size="smaller")
def few_items(figures: Figures) -> Finding | None:
    """Fewer items than workers."""
    if not 0 < figures.total < figures.workers or figures.shared or figures.grows or is_limited(figures):
        return None
    unused = 1 - figures.total / figures.workers
    return Finding(
        f"{counted(figures.total, 'item')} for {counted(figures.workers, 'worker')}: cut the items smaller, so that "
        "all have something to do.",
        min(
            figures.of_workers(min(unused, figures.share("idle", "tail", "starting"))), figures.beyond(_least(figures))
        ),
    )


@rule("long items", end="long items", item_size="smaller")
def long_items(figures: Figures) -> Finding | None:
    """An item still ran while the other workers had nothing to do; or all items are long for such a short job."""
    items = figures.items
    if items is None or figures.total < figures.workers or not figures.slowest or items.median <= 0:
        return None
    if figures.shared or figures.grows or is_limited(figures) or figures.retry_waits > figures.longest_tail / 2:
        return None
    slowest = figures.slowest[0]
    if slowest.seconds < figures.longest_tail / 2:
        return None  # no item ran that long meanwhile
    saved = min(figures.saved("tail"), figures.beyond(_least(figures)))
    why = f"items are long for a job of {seconds(figures.unpaused)}. Cut them smaller."
    if slowest.seconds > max(LIMITS.outlier * items.median, LIMITS.outlier_of_run * figures.unpaused):
        why = (
            f"item {slowest.name} took {seconds(slowest.seconds)}, {number(slowest.seconds / items.median)} times the "
            f"median. Cut it up{_or_first(figures)}."
        )
    return Finding(f"At the end the other workers had nothing to do for {percent(saved)} of the time: {why}", saved)


def _or_first(figures: Figures) -> str:
    """Return what to do instead of cutting the longest item; nothing if that would not help."""
    if figures.longest_first or min(figures.saved("tail"), _beyond_items(figures)) < LIMITS.worth:
        return ""
    return ", or put long items first (cost=)"


def _beyond_items(figures: Figures) -> float:
    """Return the part of the user's time that workers may save without cutting items: the longest one has to run."""
    longest = 0.0 if figures.items is None else figures.items.longest
    return figures.beyond(max(longest, _least(figures)))


def _least(figures: Figures) -> float:
    """Return the seconds that the CPUs need for what the workers computed, in any number; 0 if that is not known.

    If workers lacked CPUs, which other programs may have had, it is the part of the run in which they wanted one.
    """
    sums = figures.sums
    if figures.elsewhere or not figures.in_hand:
        return 0.0
    wanted = figures.unpaused * min(1.0, (sums.cpu + sums.delayed) / figures.in_hand)
    return max(sums.cpu / figures.cpus, wanted if figures.delayed >= LIMITS.no_cpu else 0.0)


@rule("plain loop", pool="drop", item_size="larger")
def plain_loop(figures: Figures) -> Finding | None:
    """A loop on one core would have been over sooner."""
    loop = _loop_seconds(figures)
    if loop is None or loop >= figures.whole:
        return None
    sums = figures.sums
    each, pauses = seconds(sums.handling / sums.items), " without its pauses" if sums.held else ""
    return Finding(
        f"A plain loop would take about {seconds(loop)} ({counted(sums.items, 'item')} of {each} on one core), and "
        f"this took {seconds(figures.whole)}{pauses}. Use a loop, or give each item much more to do.",
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


# -- Workers: their starts and ends, their first items, and their number. ----------------------------------------------


@rule("setup")
def setup(figures: Figures) -> Finding | None:
    """``setup`` takes long compared with the job."""
    saved = figures.saved("setup") - figures.again("setup")
    return Finding(
        f"setup took {seconds(figures.sums.setup / figures.workers_ever)} a worker, {percent(saved)} of the time: "
        "put more items into one job, or keep what it makes in a global of a module, and one queue for several jobs.",
        saved,
    )


@rule("cold start")
def cold_start(figures: Figures) -> Finding | None:
    """The workers had to start first. If there are too many, `too_many_workers` reports the others."""
    share, enough = figures.saved("starting"), _enough_workers(figures)
    if is_too_little(figures):
        return None
    return Finding(
        f"Starting the workers took {percent(share)} of a job of {seconds(figures.unpaused)}: keep the queue open, "
        "then the next job finds them ready.",
        share if enough is None else share * enough / figures.workers,
    )


@rule("replaced workers")
def replaced_workers(figures: Figures) -> Finding | None:
    """Workers were replaced: they died, or had run their number of items."""
    saved = figures.saved("replacing", "lost") + figures.again("loading", "setup")
    if not figures.sums.deaths:
        return Finding(
            f"Replacing workers took {percent(saved)} of the time: let them run more items "
            "(per_worker={'items': ...}).",
            saved,
        )
    where = "job.failures and item.history have" if figures.failed else "item.history of items tried again has"
    return Finding(
        f"{counted(figures.sums.deaths, 'worker')} died and had to be replaced, {percent(saved)} of the time went into "
        f"that; {where} why.",
        saved,
    )


@rule("first items")
def first_items(figures: Figures) -> Finding | None:
    """The first item of each worker takes much longer than later ones: it imports, or loads."""
    first = figures.first
    if first is None or first.workers < figures.workers:
        return None
    each = first.extra / first.workers
    if each < LIMITS.outlier * first.usual:
        return None
    saved = min(figures.of_workers(first.extra / figures.worker_seconds), figures.saved("handler"))
    return Finding(
        f"The first item of each worker took {seconds(each)} longer than later ones ({seconds(first.usual)}), "
        f"{percent(saved)} of the time: unless these are longer items, the handler imports or loads something at its "
        "first call. Import it once for all workers, JobQueue(preload=[...]), and keep one queue for several jobs.",
        saved,
    )


def is_limited(figures: Figures) -> bool:
    """Tell whether fewer workers than there are may run the job's items at a time, as its user has said."""
    return figures.needs or (figures.most is not None and figures.most < figures.workers)


@rule("limit", workers="a limit")
def limit(figures: Figures) -> Finding | None:
    """The job may have fewer workers than there are, and the others had nothing to do."""
    most = figures.most
    if most is None or most >= figures.workers or figures.needs or figures.shared or figures.grows:
        return None
    if figures.total <= most or figures.retry_waits > 0 or memory_is_short(figures):
        return None
    saved = min(figures.saved("idle"), _beyond_items(figures))
    return Finding(
        f"{counted(most, 'worker')} of {figures.workers} may run its items at a time (concurrency={most}), so that for "
        f"{percent(figures.share('idle'))} of their time the workers had nothing to do. Set it higher, if what it "
        "protects allows that.",
        saved,
    )


def _pace(figures: Figures, workers: int) -> float:
    """Return how many items that many workers end in the time of one item today, if all of them wait in step.

    That is the worst case: while all wait, the CPUs have no work.
    """
    waits = max(0.0, 1 - figures.computed - figures.delayed)
    return workers / (waits + figures.computed * max(1.0, workers / figures.cpus))


def _enough_workers(figures: Figures) -> int | None:
    """Return how many workers would be enough, if they compute and outnumber the CPUs; None if all are needed.

    If the handler waits, workers beyond the CPUs are useful: they wait at the same time.
    """
    if figures.elsewhere or figures.workers <= figures.cpus or not figures.computed:
        return None
    if figures.delayed < LIMITS.no_cpu or figures.computed + figures.delayed < LIMITS.computes:
        return None
    as_much = LIMITS.as_much * figures.workers
    fewer = range(figures.cpus, figures.workers)
    return next((workers for workers in fewer if _pace(figures, workers) >= as_much), None)


@rule("too many workers", workers="fewer", handler="computes", cpu="too many workers")
def too_many_workers(figures: Figures) -> Finding | None:
    """More workers than CPUs, for a handler that computes."""
    enough = _enough_workers(figures)
    if enough is None:
        return None
    saved = figures.saved("starting", "setup", "loading") * (1 - enough / figures.workers)
    return Finding(
        f"{figures.workers} workers share {counted(figures.cpus, 'CPU')}: for {percent(figures.delayed)} of their "
        f"time at work they had none. {counted(enough, 'worker')} do as much, and start sooner: JobQueue({enough}).",
        saved,
        anyway=True,
    )


@rule("unused CPUs", workers="more", handler="computes", cpu="enough")
def unused_cpus(figures: Figures) -> Finding | None:
    """Fewer workers than CPUs, for a handler that computes."""
    most = min(figures.cpus, figures.total)
    if more_would_not_help(figures) or is_limited(figures):
        return None
    if figures.elsewhere or figures.shared or most <= figures.workers:
        return None
    if not LIMITS.waits <= figures.computed <= 1 + LIMITS.threads or figures.delayed >= LIMITS.no_cpu:
        return None
    saved = min(figures.saved("handler") * (1 - figures.workers / most), _beyond_items(figures))
    return Finding(
        f"{counted(figures.workers, 'worker')} for {counted(figures.cpus, 'CPU')}, and the handler computes: "
        f"JobQueue({most}), or JobQueue(None) for one worker a CPU.",
        saved,
    )


@rule("waits", workers="more", handler="waits", cpu="enough")
def more_workers(figures: Figures) -> Finding | None:
    """The handler waits, and more workers could wait at a time."""
    sums, items = figures.sums, figures.items
    if not sums.cpu or not sums.handling or items is None or items.mean < LIMITS.short_item:
        return None
    if figures.shared or figures.elsewhere or more_would_not_help(figures) or is_limited(figures):
        return None
    waited = figures.in_hand - sums.cpu - sums.delayed - sums.setup - sums.loading
    waiting = min(1.0, waited / sums.handling)
    if waiting < LIMITS.waits:
        return None
    used = max(figures.computed, 1 / LIMITS.most_workers)
    most = min(figures.total, int(figures.cpus / used), LIMITS.most_workers * figures.workers)
    if _pace(figures, most) < (1 + LIMITS.worth) * figures.workers:
        return None
    saved = min(figures.saved("handler") * (1 - figures.workers / most), _beyond_items(figures))
    return Finding(
        f"The handler waits {percent(waiting)} of its time (network, disk, locks, sleep). If what it waits for can do "
        f"more at a time, use more workers than CPUs, such as JobQueue({most}), or a coroutine function; if it is a "
        "lock that all of them need, hold it for less time.",
        saved,
    )


# -- The handler's use of time: it waits, has no CPU, has threads, shares a bottleneck, or fails. ----------------------

#: The least peak of an item, in bytes, for which needs are proposed; and the percentage of the peak to propose.
LEAST_MEMORY, SPARE = 200_000_000, 115


def more_would_not_help(figures: Figures) -> bool:
    """Tell whether workers share something that is too scarce for more of them."""
    return find_slowdown(figures) is not None or memory_is_short(figures)


def _has_threads(figures: Figures) -> bool:
    """True if more CPU time was used than the main threads can have: they were without a CPU for a while."""
    extra = figures.sums.cpu + figures.sums.delayed - figures.in_hand
    return extra > LIMITS.threads * figures.in_hand > 0


@rule("threads", workers="fewer", handler="computes", cpu="threads")
def threads(figures: Figures) -> Finding | None:
    """The handler's own threads, times the workers, are more than there are CPUs."""
    used = figures.cpus_used
    if figures.elsewhere or not _has_threads(figures) or used is None or used < LIMITS.saturated * figures.cpus:
        return None
    delayed, busy = figures.delayed, figures.computed
    if delayed < LIMITS.no_cpu and figures.workers * busy < (1 + LIMITS.no_cpu) * figures.cpus:
        return None  # all of them have CPUs
    return Finding(
        f"The handler has threads of its own (as BLAS has) in each of {counted(figures.workers, 'worker')}, which use "
        f"{busy:.1f} CPUs each, and {counted(figures.cpus, 'CPU')} are there: "
        "JobQueue(per_worker={'threads': 1}), or fewer workers.",
        figures.saved("handler") * max(delayed, 1 - 1 / max(1.0, busy)),
    )


@rule("busy machine", cpu="other programs")
def busy_machine(figures: Figures) -> Finding | None:
    """The workers had no CPU, although there are enough for them."""
    used = figures.cpus_used
    if figures.elsewhere or used is None or not figures.in_hand or figures.workers > figures.cpus:
        return None
    own = sum(
        part.seconds for part in figures.parent
    )  # each second of it keeps one worker from a CPU for at most a second
    delayed = min(1.0, max(0.0, figures.sums.delayed - own) / figures.in_hand)
    if delayed < LIMITS.no_cpu or _has_threads(figures):
        return None
    return Finding(
        f"For {percent(delayed)} of their time at work the workers had no free CPU, and used {used:.1f} of "
        f"{figures.cpus}: other programs use the rest, or the workers may not use all of them (taskset, "
        "sched_setaffinity, a container's limit).",
        figures.saved("handler") * delayed,
    )


class Slowdown(NamedTuple):
    """A slowdown: the factor by which items take longer the more workers are busy, their number, and the evidence."""

    factor: float
    busy: float
    reference: str
    doubt: str


def find_slowdown(figures: Figures) -> Slowdown | None:
    """Find whether items take longer the more workers are busy; None if not, or if it is not known."""
    alone = figures.alone
    if alone is not None and alone.sums.items and figures.sums.items:
        busy = figures.sums.handling / max(figures.unpaused, 1e-9)
        one = alone.sums.handling / alone.sums.items
        each = figures.sums.handling / figures.sums.items
        reference = f"alone an item took {seconds(one)} (job {alone.job_id!r}), here {seconds(each)}"
        doubt = ""
    elif figures.paces is None or min(pace.items for pace in figures.paces) < LIMITS.evidence:
        return None
    else:
        few, many = figures.paces
        busy, one, each = many.busy, few.seconds, many.seconds
        reference = (
            f"while {few.busy:.1f} workers were busy an item took {seconds(one)}, while {busy:.1f} were {seconds(each)}"
        )
        doubt = (
            " Or these were other items: run some with JobQueue(concurrency=1), and give that job to report(alone=)."
        )
    if one <= 0 or each / one < LIMITS.slowdown:
        return None
    return Slowdown(each / one, min(busy, figures.workers), reference, doubt)


@rule("shared bottleneck", workers="fewer", handler="shares", cpu="a bottleneck")
def shared_bottleneck(figures: Figures) -> Finding | None:
    """Items take longer the more workers are busy: something that they share is the limit."""
    found = find_slowdown(figures)
    if found is None or figures.workers < 2:
        return None
    gain = max(1.0, found.busy / found.factor)
    return Finding(
        f"{figures.workers} workers gave {gain:.1f} times one: {found.reference}. {_bottleneck(figures)}{found.doubt}",
        figures.saved("handler") * (1 - 1 / found.factor),
    )


def _bottleneck(figures: Figures) -> str:
    if not figures.computed:
        return "They share what is the limit: a disk, a lock, memory, CPUs."
    if figures.delayed >= LIMITS.no_cpu:
        return "They had too few CPUs."
    if figures.computed < 1 - LIMITS.no_cpu:
        return (
            "The handler is bound by what it waits for, disk, network or a lock, not by CPUs: fewer workers do as well."
        )
    return (
        "The CPUs were busy all the time, so the handler is bound by memory bandwidth or caches (or two CPUs are "
        "hyperthreads of one core): fewer workers do as well, less memory for each step does better."
    )


def memory_offer(figures: Figures) -> str | None:
    """Return a ``uses=`` that limits memory, and how many items then run at once; None if it is not needed."""
    memory = figures.memory
    if memory is None or memory.supply is None or memory.most < LEAST_MEMORY:
        return None
    unit = 10 ** (len(str(memory.most)) - 2)
    need = -(-memory.most * SPARE // (100 * unit)) * unit  # rounded up to two digits
    name = f"{need / 1e9:g}GB" if need >= 1e9 else f"{need / 1e6:g}MB"
    return f'uses={{"memory": "{name}"}} lets {max(1, memory.supply // need)} run at once'


def memory_is_short(figures: Figures) -> bool:
    """Tell whether as many of the largest item as there are workers need more memory than there is."""
    memory = figures.memory
    return memory is not None and memory.supply is not None and memory.most * figures.workers > memory.supply


@rule("memory", workers="fewer", handler="swaps")
def memory(figures: Figures) -> Finding | None:
    """Items together need more memory than there is: the machine swaps, or the kernel kills workers."""
    offer = memory_offer(figures)
    found = figures.memory
    if offer is None or found is None or found.supply is None or not memory_is_short(figures):
        return None
    sums = figures.sums
    waited = max(0.0, figures.in_hand - sums.cpu - sums.delayed) / figures.worker_seconds if sums.cpu else 0.0
    return Finding(
        f"The largest item took {size(found.most)}, and {figures.workers} such at a time are more than the "
        f"{size(found.supply)} that there are, so the machine swaps, or the kernel kills workers: {offer}.",
        figures.of_workers(min(waited, figures.share("handler"))),
        anyway=True,
    )


@rule("failed tries")
def failed_tries(figures: Figures) -> Finding | None:
    """Failed tries used much of the workers' time."""
    tries = figures.tries
    if not tries.failed:
        return None
    saved = figures.of_workers(min(1.0, tries.seconds / figures.worker_seconds))
    worst = f", most often {tries.errors[0][0]}" if tries.errors else ""
    return Finding(
        f"{percent(saved)} of the time went into {counted(tries.failed, 'try')} that failed{worst}. If it is an error "
        "that comes again, name it in give_up_on, or set max_retries=0.",
        saved,
    )


@rule("waits for retries", end="retries")
def waits_for_retries(figures: Figures) -> Finding | None:
    """Nothing ran, because the remaining items waited for their next tries."""
    if not figures.retries or figures.grows or figures.shared:
        return None
    saved = min(figures.retry_waits / figures.whole, figures.saved("idle", "tail"))
    return Finding(
        f"For {seconds(figures.retry_waits)}, {percent(saved)} of the time, nothing ran: "
        f"{counted(figures.retries, 'try')} had failed, and "
        "the next ones waited. A shorter base_delay of the RetryPolicy ends that sooner.",
        saved,
    )


@rule("listeners", pool=None)
def listeners(figures: Figures) -> Finding | None:
    """Listeners are slower than the job."""
    listening = next((part.seconds for part in figures.parent if part.key == "listeners"), 0.0)
    if not listening:
        return None
    late = min(figures.told_after, listening)
    held_up = figures.share("for_parent") * figures.wall * min(1.0, listening / figures.wall)
    return Finding(
        f"Listeners took {seconds(listening)}, and the run was resolved {seconds(figures.told_after)} after the job's "
        "end. Let them do less, or call them less often: JobQueue(progress_interval=0.1).",
        (late + held_up) / figures.whole,
    )


# -- What a report says. -----------------------------------------------------------------------------------------------

#: The most pieces of advice in a report.
MAX_ADVICE = 3


class Advice(NamedTuple):
    """A rule that applies to a job."""

    rule: Rule
    finding: Finding

    @property
    def gain(self) -> float:
        """The factor by which the job would be faster, by Amdahl's law over the measured parts."""
        return 1 / (1 - min(max(self.finding.saved, 0.0), 0.999))

    @property
    def text(self) -> str:
        """The finding as text, with its gain if it has one."""
        if self.finding.saved < LIMITS.worth:
            return self.finding.text
        return f"{self.finding.text} Gain: up to {times(self.gain)}."


def advise(figures: Figures, alone: Figures | None = None) -> Sequence[Advice]:
    """Return advice to make the job quicker, the largest effect first; at most `MAX_ADVICE`, none if nothing is known.

    Of two rules that contradict each other, it has the one with the larger effect. ``alone`` are the figures of a job
    with the same handler on one worker, to compare with.
    """
    if not figures.worker_seconds:
        return ()
    compared = replace(figures, alone=alone)
    # Where no try has ended, it is of interest only why: what else takes time would be little beside the items. The
    # stages of a pipeline have different items and handlers: what is to be said of them is in their own reports.
    rules = RULES if figures.sums.items and not figures.stages else [replaced_workers]
    found = [Advice(rule, finding) for rule in rules if (finding := rule.find(compared)) is not None]
    found = [one for one in found if one.finding.saved >= LIMITS.worth or one.finding.anyway]
    chosen: list[Advice] = []
    # If another rule saves as much as using no pool at all, the other rule is chosen.
    for one in sorted(found, key=lambda one: (-one.finding.saved, one.rule.says.get("pool") == "drop")):
        if len(chosen) < MAX_ADVICE and not any(contradict(one.rule, other.rule) for other in chosen):
            chosen.append(one)
    return chosen


def conclude(figures: Figures, advice: Sequence[Advice]) -> list[str]:
    """Return the sentences of a report: the advice, or that only the handler itself can be improved.

    Of a pipeline, they name the stage that takes most.
    """
    if figures.stages and figures.worker_seconds:
        return [*(one.text for one in advice), *_heaviest_stage(figures)]
    if not advice and figures.worker_seconds and figures.share("handler") >= LIMITS.well_used:
        share = percent(figures.share("handler"))
        return [
            f"The workers were in your handler {share} of the time: only a quicker handler, or more CPUs, can help."
        ]
    return [one.text for one in advice]


def _heaviest_stage(figures: Figures) -> list[str]:
    most = max(figures.stages, key=lambda stage: stage.seconds)
    share = most.seconds / figures.worker_seconds
    if share < LIMITS.worth:
        return []
    where = f"the report of job {shown(most.job_id)} says on what"
    said = [f"Of the stages, {shown(most.name)} took most, {percent(share)} of the workers' time: {where}."]
    for stage in figures.stages:
        busy = stage.seconds / (figures.unpaused * (stage.most or figures.workers))
        if stage.most and busy >= LIMITS.well_used and figures.share("idle", "tail") >= LIMITS.worth:
            said.append(
                f"Stage {shown(stage.name)} had as many workers as it may, {stage.most}, for {percent(min(1.0, busy))} "
                "of the time, and others had nothing to do: a higher concurrency= of that stage gives it more."
            )
    return said
