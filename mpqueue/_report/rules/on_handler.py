"""Rules on the handler's use of time: it waits, has no CPU, has threads, shares a bottleneck, or fails."""

from __future__ import annotations

from typing import NamedTuple

from mpqueue._output.words import counted, percent, seconds, size
from mpqueue._report.figures import Figures
from mpqueue._report.rules.rule import INFERRED, LIMITS, MEASURED, Finding, rule

#: The least peak of an item, in bytes, for which needs are proposed; and the percentage of the peak to propose.
LEAST_MEMORY, SPARE = 200_000_000, 115


def handler_waits(figures: Figures) -> float | None:
    """Return the part of its time that the handler waits; None if it does not, or if that is not known."""
    sums, items = figures.sums, figures.items
    if not sums.cpu or not sums.handling or items is None or items.mean < LIMITS.short_item:
        return None
    if more_would_not_help(figures):
        return None
    waited = figures.in_hand - sums.cpu - sums.delayed - sums.setup - sums.loading
    share = min(1.0, waited / sums.handling)
    return share if share >= LIMITS.waits else None


def more_would_not_help(figures: Figures) -> bool:
    """Tell whether workers share something that is too scarce for more of them."""
    return find_slowdown(figures) is not None or memory_is_short(figures)


def _has_threads(figures: Figures) -> bool:
    """True if more CPU time was used than the main threads can have: they were without a CPU for a while."""
    extra = figures.sums.cpu + figures.sums.delayed - figures.in_hand
    return extra > LIMITS.threads * figures.in_hand > 0


@rule("threads", INFERRED, workers="fewer", handler="computes", cpu="threads")
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


@rule("busy machine", INFERRED, cpu="other programs")
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
    many, few = figures.many, figures.few
    if alone is not None and alone.sums.items and figures.sums.items:
        busy = figures.sums.handling / max(figures.wall, 1e-9)
        one = alone.sums.handling / alone.sums.items
        each = figures.sums.handling / figures.sums.items
        reference = f"alone an item took {seconds(one)} (job {alone.job_id!r}), here {seconds(each)}"
        doubt = ""
    elif few is None or many is None or min(few.items, many.items) < LIMITS.evidence:
        return None
    else:
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


@rule("shared bottleneck", INFERRED, workers="fewer", handler="shares", cpu="a bottleneck")
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


@rule("memory", INFERRED, workers="fewer", handler="swaps")
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


@rule("failed tries", MEASURED)
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


@rule("waits for retries", MEASURED, end="retries")
def waits_for_retries(figures: Figures) -> Finding | None:
    """Nothing ran, because the remaining items waited for their next tries."""
    if not figures.retries or figures.grows or figures.shared or figures.sums.paused:
        return None
    saved = min(figures.retry_waits / figures.whole, figures.saved("idle", "tail"))
    return Finding(
        f"For {seconds(figures.retry_waits)}, {percent(saved)} of the time, nothing ran: "
        f"{counted(figures.retries, 'try')} had failed, and "
        "the next ones waited. A shorter base_delay of the RetryPolicy ends that sooner.",
        saved,
    )


@rule("listeners", MEASURED, pool=None)
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
