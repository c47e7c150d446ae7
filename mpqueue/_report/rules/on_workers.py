"""Rules on workers: their starts and ends, their first items, and their number."""

from __future__ import annotations

from mpqueue._output.words import counted, percent, seconds, times
from mpqueue._report.figures import Figures
from mpqueue._report.rules.on_handler import handler_waits, more_would_not_help
from mpqueue._report.rules.on_items import is_too_little
from mpqueue._report.rules.rule import INFERRED, LIMITS, MEASURED, Finding, rule


@rule("setup", MEASURED)
def setup(figures: Figures) -> Finding | None:
    """``setup`` takes long compared with the job."""
    saved = figures.saved("setup") - figures.again("setup")
    return Finding(
        f"setup took {seconds(figures.sums.setup / figures.workers_ever)} a worker, {percent(saved)} of the time: "
        "put more items into one job, or keep what it makes in a global of a module, and one queue for several jobs.",
        saved,
    )


@rule("cold start", MEASURED)
def cold_start(figures: Figures) -> Finding | None:
    """The workers had to start first. If there are too many, `too_many_workers` reports the others."""
    share, enough = figures.saved("starting"), _enough_workers(figures)
    if is_too_little(figures):
        return None
    return Finding(
        f"Starting the workers took {percent(share)} of a job of {seconds(figures.wall)}: keep the queue open, then "
        "the next job finds them ready.",
        share if enough is None else share * enough / figures.workers,
    )


@rule("deaths", MEASURED)
def deaths(figures: Figures) -> Finding | None:
    """Workers died and were replaced."""
    if not figures.sums.deaths:
        return None
    saved = figures.saved("replacing", "lost") + figures.again("loading", "setup")
    where = "job.failures and item.history have" if figures.failed else "item.history of items tried again has"
    return Finding(
        f"{counted(figures.sums.deaths, 'worker')} died and had to be replaced, {percent(saved)} of the time went into "
        f"that; {where} why.",
        saved,
    )


@rule("recycling", MEASURED)
def recycling(figures: Figures) -> Finding | None:
    """Workers were replaced after a number of items."""
    if figures.sums.deaths:
        return None
    saved = figures.saved("replacing") + figures.again("loading", "setup")
    return Finding(
        f"Replacing workers took {percent(saved)} of the time: let them run more items (per_worker={{'items': ...}}).",
        saved,
    )


@rule("first items", INFERRED, pace="slow at first")
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
        f"{percent(saved)} of the time: the handler imports or loads something at its first call. Import it once for "
        "all workers, JobQueue(preload=[...]), and keep one queue for several jobs.",
        saved,
    )


@rule("slow worker", INFERRED, pace="slow on one worker")
def slow_worker(figures: Figures) -> Finding | None:
    """One worker is slower than all others."""
    slow = figures.slow_lane
    if slow is None or slow.items < LIMITS.evidence or slow.others <= 0:
        return None
    factor = slow.seconds / slow.others
    if factor * (1 - figures.delayed) < LIMITS.slowdown:
        return None  # it may be the worker without a CPU
    if figures.slowest_is_outlier(LIMITS.outlier):
        return None
    extra = slow.items * (slow.seconds - slow.others)
    saved = min(figures.of_workers(extra / figures.worker_seconds), figures.saved("handler"))
    return Finding(
        f"Worker {slow.lane} took {times(factor)} as long for an item as the others ({seconds(slow.seconds)}, "
        f"{seconds(slow.others)}): look at what it shares with other programs, a CPU, a GPU, a disk, and at what setup "
        "does there.",
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


@rule("too many workers", INFERRED, workers="fewer", handler="computes", cpu="too many workers")
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


@rule("unused CPUs", INFERRED, workers="more", handler="computes", cpu="enough")
def unused_cpus(figures: Figures) -> Finding | None:
    """Fewer workers than CPUs, for a handler that computes."""
    most = min(figures.cpus, figures.total)
    if more_would_not_help(figures):
        return None
    if figures.elsewhere or figures.shared or most <= figures.workers:
        return None
    if not LIMITS.waits <= figures.computed <= 1 + LIMITS.threads or figures.delayed >= LIMITS.no_cpu:
        return None
    saved = figures.saved("handler") * (1 - figures.workers / most)
    return Finding(
        f"{counted(figures.workers, 'worker')} for {counted(figures.cpus, 'CPU')}, and the handler computes: "
        f"JobQueue({most}), or JobQueue(None) for one worker a CPU.",
        saved,
    )


@rule("waits", INFERRED, workers="more", handler="waits", cpu="enough")
def more_workers(figures: Figures) -> Finding | None:
    """The handler waits, and more workers could wait at a time."""
    waiting = handler_waits(figures)
    if waiting is None or figures.shared or figures.elsewhere:
        return None
    used = max(figures.computed, 1 / LIMITS.most_workers)
    most = min(figures.total, int(figures.cpus / used), LIMITS.most_workers * figures.workers)
    if _pace(figures, most) < (1 + LIMITS.worth) * figures.workers:
        return None
    saved = figures.saved("handler") * (1 - figures.workers / most)
    return Finding(
        f"The handler waits {percent(waiting)} of its time (network, disk, locks, sleep). If what it waits for can do "
        f"more at a time, use more workers than CPUs, such as JobQueue({most}), or a coroutine function; if it is a "
        "lock that all of them need, hold it for less time.",
        saved,
    )
