"""Plain advice, computed from the figures. Every threshold is in `Thresholds`; each piece of advice names its figures.

The gravest comes first: each has a weight, the part of the run's time that it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mpqueue._report.figures import Figures
from mpqueue._report.in_band import InBand
from mpqueue._report.words import counted, number, percent, seconds, size


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on something is worth a sentence. Shares are of 1."""

    #: Of the time that a job takes from its creation on: below, nothing is said of it.
    worth: float = 0.10
    #: Of the workers' time in the handler: from here on there is nothing to win but in the handler.
    well_used: float = 0.85
    #: Bytes from which a handler is heavy, and an item or a result is big.
    heavy_handler: int = 1_000_000
    big_item: int = 10_000
    #: Seconds for pickling and unpickling an item or a result, from which its objects are slow: numbers take 0.1 us.
    slow_pickle: float = 10e-6
    #: Seconds below which items are short enough that they travel together.
    short_item: float = 0.001
    #: Seconds of work in a chunk, below which a chunk that was asked for is too small: it costs 0.3 ms.
    small_chunk: float = 0.003
    #: CPU seconds for each second in the handler: below, it waits; above, it has threads of its own.
    waits: float = 0.5
    threads: float = 1.5
    #: Of the time in the handler, that it was ready to run and had no CPU.
    no_cpu: float = 0.15
    #: How many times longer an item takes while many workers are busy; and the items on each side that say so.
    slowdown: float = 1.4
    evidence: int = 5
    #: Seconds of a job below which starting workers is its price, whatever else.
    short_job: float = 2.0
    #: How many times the median the slowest item takes, to be called an outlier.
    outlier: float = 5.0


LIMITS = Thresholds()


#: Bytes of an item's peak from which on it is worth saying what it needs; and how many percent of it to say.
LEAST_MEMORY, SPARE = 200_000_000, 115


class Advice(NamedTuple):
    """A sentence or two, and the share of the time that it is about."""

    weight: float
    text: str


def advise(figures: Figures, alone: Figures | None = None, limits: Thresholds = LIMITS) -> list[str]:
    """What could make the job quicker, gravest first; empty where nothing is known that could.

    ``alone`` are the figures of a job with the same handler on one worker, to compare with.
    """
    if not figures.worker_seconds:
        return []
    found = [one for rule in _RULES for one in rule(figures, limits)]
    found += _slowdown(figures, alone, limits)
    found = [one for one in found if one.weight >= limits.worth]
    if not found and figures.share("handler") >= limits.well_used:
        return [_well_used(figures)]
    return [one.text for one in sorted(found, key=lambda one: -one.weight)]


def _well_used(figures: Figures) -> str:
    text = f"The workers were in your handler {percent(figures.share('handler'))} of the time"
    if figures.workers < figures.cpus:
        return f"{text}: more of them would help, {figures.cpus} CPUs are there and {figures.workers} were used."
    return f"{text}: only a quicker handler, or more CPUs, can help."


# -- what travels ------------------------------------------------------------------------------------------------------


def _handler(figures: Figures, limits: Thresholds) -> Iterator[Advice]:
    whole = figures.wall + figures.handler_seconds
    loading = figures.sums.loading / max(1, figures.workers)
    weight = (figures.handler_seconds + loading) / whole
    if figures.handler_bytes < limits.heavy_handler:
        if loading / whole >= limits.worth:
            yield Advice(
                loading / whole,
                f"Each worker took {seconds(loading)} to load the handler, {percent(loading / whole)} of the time: it "
                "imports much. Keep one queue for several jobs, so that it is imported once.",
            )
        return
    what = f", most of it {figures.handler_weight}" if figures.handler_weight else ""
    yield Advice(
        weight,
        f"{percent(weight)} of the time went into pickling and unpickling a {size(figures.handler_bytes)} "
        f"closure{what}: mpqueue.share() it, or load it in setup.",
    )


def _items_out(figures: Figures, limits: Thresholds) -> Iterator[Advice]:
    sums = figures.sums
    each = sums.bytes_out / max(1, sums.items)
    weight = max(
        figures.share("for_pickling") + figures.share("unpickling"),
        sums.parent_pickling / figures.wall if figures.share("for_pickling") > limits.worth / 2 else 0.0,
    )
    if each < limits.big_item and (sums.parent_pickling + sums.unpacking) / max(1, sums.items) < limits.slow_pickle:
        return  # there are many of them, and that is what is to be said
    if figures.item_in_band is not None:
        remedy = _send_instead(figures.item_in_band)
    elif each >= limits.big_item:
        remedy = (
            f"they are {size(each)} each: send paths or keys and read the data in the worker, or mpqueue.share() what "
            "they have in common"
        )
    else:
        remedy = "their objects are slow to pickle: send plain data, or paths and keys"
    yield Advice(weight, f"{percent(weight)} of the time went into pickling and unpickling items; {remedy}.")


def _send_instead(found: InBand) -> str:
    """An object whose content is copied into the pickle and out of it."""
    return f"the {found.name} of {size(found.size)} in one is copied into the pickle and out of it: {found.remedy}"


def _results_home(figures: Figures, limits: Thresholds) -> Iterator[Advice]:
    sums = figures.sums
    each = sums.bytes_home / max(1, sums.items)
    if each < limits.big_item and (sums.packing + sums.parent_unpickling) / max(1, sums.items) < limits.slow_pickle:
        return
    weight = figures.share("pickling", "for_unpickling")
    if figures.result_in_band is not None:
        remedy = _send_instead(figures.result_in_band)
    elif each >= limits.big_item:
        remedy = f"they are {size(each)} each: return less, or write them to files in the worker and return the paths"
    else:
        remedy = "their objects are slow to pickle: return plain data (numbers, strings, tuples, dicts) or arrays"
    yield Advice(weight, f"{percent(weight)} of the time went into pickling and unpickling results; {remedy}.")


def _short_items(figures: Figures, limits: Thresholds) -> Iterator[Advice]:
    sums, items = figures.sums, figures.items
    if items is None or not sums.reports or items.mean >= limits.short_item:
        return
    together = sums.items / sums.reports
    weight = figures.share("own", "transfer", "unpickling", "pickling", "for_parent")
    if figures.chunksize is not None and together * items.mean < limits.small_chunk:
        yield Advice(
            weight,
            f"Items take {seconds(items.mean)}, and chunksize={figures.chunksize} sends {number(together)} at a time: "
            f"{percent(weight)} of the time went into sending. Leave chunksize out.",
        )
        return
    yield Advice(
        weight,
        f"Items take {seconds(items.mean)}: they travelled by {number(together)}, and still {percent(weight)} of the "
        "time went into sending them. Do more in one item: a range of numbers, a whole file.",
    )


# -- workers -----------------------------------------------------------------------------------------------------------


def _setup(figures: Figures, _: Thresholds) -> Iterator[Advice]:
    weight = figures.share("setup")
    yield Advice(
        weight,
        f"setup took {seconds(figures.sums.setup / max(1, figures.workers))} a worker, {percent(weight)} of the time: "
        "use fewer workers, or put more items into one job.",
    )


def _start(figures: Figures, limits: Thresholds) -> Iterator[Advice]:
    sums, weight = figures.sums, figures.share("starting")
    if figures.wall < limits.short_job:
        yield Advice(
            weight,
            f"Starting the workers took {percent(weight)} of a job of {seconds(figures.wall)}: keep the queue open, "
            "the next job finds them ready.",
        )
    else:
        yield Advice(weight, f"Starting the workers took {percent(weight)} of the time: the machine was busy.")
    weight = figures.share("replacing", "lost")
    if sums.deaths:
        yield Advice(
            weight,
            f"{counted(sums.deaths, 'worker')} died and had to be replaced, {percent(weight)} of the time went into "
            "that. The items at fault are in job.failures, and in the history of others.",
        )
    else:
        yield Advice(
            weight,
            f"Replacing workers took {percent(weight)} of the time: give them more items (max_items_per_worker).",
        )


def _few_items(figures: Figures, _: Thresholds) -> Iterator[Advice]:
    if 0 < figures.total < figures.workers:
        unused = 1 - figures.total / figures.workers
        yield Advice(
            min(unused, figures.share("idle", "tail")),
            f"{counted(figures.total, 'item')} for {counted(figures.workers, 'worker')}: cut the items smaller, so "
            "that all have something to do.",
        )


def _tail(figures: Figures, limits: Thresholds) -> Iterator[Advice]:
    items = figures.items
    if items is None or figures.total < figures.workers or not figures.slowest:
        return
    weight, slowest = figures.tail / figures.worker_seconds, figures.slowest[0]
    text = f"At the end the other workers had nothing to do for {percent(weight)} of the time"
    if slowest.seconds > limits.outlier * items.median and slowest.seconds > 0.2 * figures.wall:
        yield Advice(
            weight,
            f"{text}: item {slowest.name} took {seconds(slowest.seconds)}, "
            f"{number(slowest.seconds / items.median)} times the median. Put long items first, or cut them up.",
        )
    elif figures.tries.failed and figures.retries:
        yield Advice(weight, f"{text}: the last items waited for their retries. A shorter base_delay ends that sooner.")
    else:
        yield Advice(weight, f"{text}: items are long for a job of {seconds(figures.wall)}. Cut them smaller.")


def _listeners(figures: Figures, _: Thresholds) -> Iterator[Advice]:
    listening = next((part.seconds for part in figures.parent if part.key == "listeners"), 0.0)
    weight = max(listening, figures.told_after) / figures.wall
    late = f", and the run was resolved {seconds(figures.told_after)} after the job's end"
    yield Advice(
        weight,
        f"Listeners took {seconds(listening)}, {percent(listening / figures.wall)} of the time"
        f"{late if figures.told_after > 0.1 * figures.wall else ''}: JobQueue(progress_interval=0.1) calls them less "
        "often.",
    )


def _retries(figures: Figures, _: Thresholds) -> Iterator[Advice]:
    tries = figures.tries
    weight = tries.seconds / figures.worker_seconds
    worst = f", most often {tries.errors[0][0]}" if tries.errors else ""
    yield Advice(
        weight, f"{percent(weight)} of the workers' time went into {counted(tries.failed, 'try')} that failed{worst}."
    )


def _waiting(figures: Figures, limits: Thresholds) -> Iterator[Advice]:
    sums = figures.sums
    if sums.cpu <= 0 or sums.handling <= 0:
        return
    working = sums.handling + sums.unpacking + sums.packing
    used, delayed = sums.cpu / working, min(sums.delayed / working, 1.0)
    handler = figures.share("handler")
    if delayed >= limits.no_cpu:
        crowd = (
            f"{figures.workers} workers share {counted(figures.cpus, 'CPU')}: use fewer"
            if figures.workers > figures.cpus
            else "other programs, or threads of the handler's own, use them"
        )
        yield Advice(
            handler * delayed, f"For {percent(delayed)} of the handler's time the workers had no free CPU; {crowd}."
        )
    if used + delayed < limits.waits:
        yield Advice(
            handler * (1 - used - delayed),
            f"The handler waits {percent(1 - used - delayed)} of its time (disk, network, locks, sleep): it uses a CPU "
            f"for {percent(used)}. More workers than CPUs help then, where what it waits for can do more at a time.",
        )
    elif used > limits.threads and figures.workers * used > 1.2 * figures.cpus:
        yield Advice(
            handler * (1 - 1 / used),
            f"The handler uses {used:.1f} CPUs in each of {figures.workers} workers, and {figures.cpus} are there: "
            "limit its threads (threads_per_worker=1), or use fewer workers.",
        )


def _slowdown(figures: Figures, alone: Figures | None, limits: Thresholds) -> list[Advice]:
    """Items that take longer the more workers are busy: what the workers share is the limit."""
    many, few = figures.many, figures.few
    if alone is not None and alone.sums.items and figures.sums.items:
        busy = figures.sums.handling / max(figures.wall, 1e-9)
        one = alone.sums.handling / alone.sums.items
        each = figures.sums.handling / figures.sums.items
        reference = f"alone an item took {seconds(one)} (job {alone.job_id!r}), here {seconds(each)}"
        doubt = ""
    elif few is None or many is None or min(few.items, many.items) < limits.evidence:
        return []
    else:
        busy, one, each = many.busy, few.seconds, many.seconds
        reference = (
            f"while {few.busy:.1f} workers were busy an item took {seconds(one)}, while {busy:.1f} were {seconds(each)}"
        )
        doubt = (
            " Or these were other items: run some with JobQueue(concurrency=1), and give that job to report(alone=)."
        )
    slower = each / max(one, 1e-9)
    if slower < limits.slowdown:
        return []
    gain = busy / slower
    return [
        Advice(
            figures.share("handler") * (1 - 1 / slower),
            f"{figures.workers} workers gave {gain:.1f} times one: {reference}. {_bottleneck(figures, limits)}{doubt}",
        )
    ]


def _bottleneck(figures: Figures, limits: Thresholds) -> str:
    sums = figures.sums
    if sums.delayed / sums.handling >= limits.no_cpu:
        return "They had too few CPUs."
    if sums.cpu / sums.handling < 1 - limits.no_cpu:
        return (
            "The handler is bound by what it waits for, disk, network or a lock, not by CPUs: fewer workers do as well."
        )
    return (
        "The CPUs were busy all the time, so the handler is bound by memory bandwidth or caches: fewer workers do as "
        "well."
    )


def memory_offer(figures: Figures) -> Iterator[str]:
    """How ``memory=`` could be said, and how many items that lets run at once; nothing where there is no need of it."""
    memory = figures.memory
    if memory is None or memory.supply is None or memory.most < LEAST_MEMORY:
        return
    unit = 10 ** (len(str(memory.most)) - 2)
    need = -(-memory.most * SPARE // (100 * unit)) * unit  # two digits
    name = f"{need / 1e9:g}GB" if need >= 1e9 else f"{need / 1e6:g}MB"
    yield f"memory={name!r} lets {max(1, memory.supply // need)} run at once"


def _memory(figures: Figures, limits: Thresholds) -> Iterator[Advice]:
    memory = figures.memory
    for offer in memory_offer(figures):
        if memory is not None and memory.supply is not None and memory.most * figures.workers > memory.supply:
            yield Advice(
                limits.worth,
                f"The largest item took {size(memory.most)}, and {figures.workers} such at a time are more than the "
                f"{size(memory.supply)} that there are: {offer}.",
            )


_RULES: tuple[Callable[[Figures, Thresholds], Iterator[Advice]], ...] = (
    _handler,
    _items_out,
    _results_home,
    _short_items,
    _setup,
    _start,
    _few_items,
    _tail,
    _listeners,
    _retries,
    _waiting,
    _memory,
)
