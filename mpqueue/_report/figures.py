"""The figures of a report on one run of a job, computed from its books. No text, no opinion."""

from __future__ import annotations

import math
import platform
import statistics
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.timings import Event, PastRun, Span, Sums, Timings
from mpqueue._output.failure_groups import MOST_FAILED, Reason, alike, groups_of, line_of
from mpqueue._output.job_facts import facts_of
from mpqueue._text import shown, visible_line
from mpqueue.errors import RemoteTraceback
from mpqueue.status import ITEM_CODES

if TYPE_CHECKING:
    from mpqueue._core.state.item_table import ItemTable
    from mpqueue._core.state.job_book import JobView

#: The number of slowest items that are named.
SLOWEST = 10
#: The most characters of an error.
ERROR_LENGTH = 70
#: Bars of the histogram of item times.
BARS = 40


class Part(NamedTuple):
    """One part of a whole: its name, its seconds, and its meaning."""

    key: str
    name: str
    seconds: float
    meaning: str


class MemoryFigures(NamedTuple):
    """Peaks of workers' memory in bytes, for the items with a known peak."""

    items: int
    median: int
    most: int
    greediest: str  #: the item with the highest peak, by its id and its label
    supply: int | None = None  #: bytes that items may need together, unless they have said so themselves


class SlowItem(NamedTuple):
    """One of the slowest items. ``peak`` is in bytes, None if it is not known."""

    id: Hashable
    name: str  #: its id, with its label if that differs
    seconds: float
    peak: int | None
    attempts: int
    status: str


class ItemTimes(NamedTuple):
    """Seconds of the items, each in its last try. ``bars`` are (from, to, count), in equal steps of the logarithm."""

    items: int
    mean: float
    median: float
    p90: float
    p99: float
    longest: float
    bars: Sequence[tuple[float, float, int]]


class Tries(NamedTuple):
    """Failed tries: their number, their seconds in the handler, and the commonest errors with their counts."""

    failed: int
    seconds: float
    errors: Sequence[tuple[str, int]]


class PaceFigures(NamedTuple):
    """Seconds per item in the handler, while that many workers were busy on average."""

    busy: float
    items: int
    seconds: float


class StageTime(NamedTuple):
    """One stage of a pipeline: its name, the job that it is, and its seconds in the handler, running items included."""

    name: str
    job_id: str
    seconds: float
    most: int | None  #: the most workers that it may have at a time; None: all


class FirstItems(NamedTuple):
    """The time of the workers' first items beyond that of later ones: seconds of all workers together.

    It is that of the worker in the middle, for each: a few long items that happen to be first do not count.
    """

    workers: int
    extra: float
    usual: float  #: seconds of a later item, the median


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of a report. Times are seconds; moments count from the job's start."""

    job_id: str
    status: str
    total: int
    completed: int
    failed: int
    retries: int
    wall: float
    workers: int
    cpus: int
    shared: bool
    chunksize: int | None
    sums: Sums
    work: Sequence[Part]  #: the workers' time; adds up to ``worker_seconds``
    parent: Sequence[Part]  #: the parent's work meanwhile
    items: ItemTimes | None
    slowest: Sequence[SlowItem]
    memory: MemoryFigures | None
    tries: Tries
    paces: tuple[PaceFigures, PaceFigures] | None  #: while few workers were busy, and while many were; if known
    spans: Sequence[Span]  #: only ``begun`` and ``ended`` count from the job's start
    events: Sequence[Event]
    handler_bytes: int
    handler_weight: str
    handler_seconds: float  #: pickling the handler, before the start
    told_after: float  #: seconds from the job's end until listeners received it
    handler_name: str = ""
    started_at: float | None = None  #: seconds since the epoch
    host: str = ""
    python: str = ""
    past: PastRun | None = None  #: the run before this one
    items_seconds: float = 0.0  #: seconds of reading the items, before the start
    grows: bool = False  #: items were added while it ran
    elsewhere: bool = False  #: workers were on other machines, whose CPUs are not counted
    first: FirstItems | None = None  #: if the first items of workers differ from later ones
    retry_waits: float = 0.0  #: seconds in which nothing ran, after an item had failed that was to be tried again
    failures: Sequence[tuple[str, str]] = ()  #: the groups, the largest first: text, and traceback of the first one
    longest_tail: float = 0.0  #: the longest time in seconds that a worker was idle at the end
    longest_first: bool = False  #: the costliest items went first, by ``cost=``
    most: int | None = None  #: the most workers that may run its items at a time, by ``concurrency=``; None: all
    needs: bool = False  #: items had ``uses=``, so fewer may have run at a time than there are workers
    stages: Sequence[StageTime] = ()  #: of a pipeline; then ``sums``, ``spans`` and ``events`` are those of its stages
    alone: Figures | None = None  #: the figures of a job with the same handler on one worker, to compare with

    @property
    def worker_seconds(self) -> float:
        """Seconds of all workers, without those in which a pause kept them idle: the whole that `work` divides."""
        return max(0.0, self.wall * self.workers - self.sums.held)  # rounding may make it less

    @property
    def unpaused(self) -> float:
        """Seconds of the run, without those in which a pause kept the workers idle."""
        return self.worker_seconds / self.workers if self.workers else self.wall

    @property
    def workers_ever(self) -> int:
        """The number of workers, including replaced ones."""
        return max(1, self.workers) + self.sums.replaced

    @property
    def whole(self) -> float:
        """Seconds that the user waited: for its creation, then from its start until listeners received its end.

        A pause is left out: the user wanted it.
        """
        return self.items_seconds + self.handler_seconds + self.unpaused + self.told_after

    @property
    def in_hand(self) -> float:
        """Seconds in which workers had chunks: their CPU time is measured."""
        sums = self.sums
        rest = sums.loading + sums.setup + sums.unpacking + sums.packing
        return sums.handling + rest + max(0.0, sums.overhead)

    @property
    def computed(self) -> float:
        """The part of `in_hand` in which workers computed: more than 1 if handlers have threads, 0 if not known."""
        return self.sums.cpu / self.in_hand if self.in_hand else 0.0

    @property
    def delayed(self) -> float:
        """The part of `in_hand` in which workers were ready to run and had no CPU."""
        return min(1.0, self.sums.delayed / self.in_hand) if self.in_hand else 0.0

    @property
    def cpus_used(self) -> float | None:
        """CPUs that the workers used on average; None if that was not measured."""
        return self.sums.cpu / self.unpaused if self.sums.cpu > 0 and self.unpaused > 0 else None

    def beyond(self, least: float) -> float:
        """Return the part of the user's time that the run took beyond ``least`` seconds: more can't be saved in it."""
        return max(0.0, self.unpaused - least) / self.whole if self.whole else 0.0

    def share(self, *keys: str) -> float:
        """Return the share of these parts in the workers' time."""
        whole = self.worker_seconds
        return sum(part.seconds for part in self.work if part.key in keys) / whole if whole else 0.0

    def saved(self, *keys: str) -> float:
        """Return the part of the user's time that these parts of the workers' time account for (Amdahl's law)."""
        return self.of_workers(self.share(*keys))

    def again(self, *keys: str) -> float:
        """Return the part of the user's time in which replaced workers' work was done again."""
        return self.saved(*keys) * self.sums.replaced / self.workers_ever

    def of_workers(self, share: float) -> float:
        """Return the part of the user's time that this share of the workers' time accounts for."""
        return min(1.0, share * self.unpaused / self.whole) if self.whole else 0.0  # rounding may make it larger


def measure(book: JobView, now: float, cpus: int, supply: int | None = None) -> Figures:
    """The figures of a job's last run; if it still runs, as of ``now``. Costs about 1 us per item.

    ``supply``: bytes that items may need together; None if unknown, or given when the job was created.
    """
    timings = _times_of(book, now)
    stages, of_stages = _stages(book, now)
    if stages:
        timings.add_stages(of_stages)
    told_at = timings.heard.end_told_at
    progress = facts_of(book, now)
    start, wall = timings.started, progress.elapsed
    spans = [span._replace(begun=span.begun - start, ended=span.ended - start) for span in timings.spans()]
    end = start + wall
    tails = [end - ended - timings.paused_within(ended, end) for ended in timings.last_on.values()]
    tail = min(max(0.0, sum(tails)), timings.sums.idle)
    sums = timings.sums
    ran = [] if stages else by_worker(spans)
    here = book if isinstance(book, JobBook) else None
    by_cost = here is not None and here.costs is not None
    events = [event._replace(at=event.at - start) for event in timings.events]
    return Figures(
        job_id=book.id,
        status=str(book.status),
        total=len(book.table),
        completed=progress.completed,
        failed=progress.failed,
        retries=progress.retries,
        wall=wall,
        workers=timings.lanes,
        cpus=cpus,
        shared=timings.company is not None,
        chunksize=book.options.chunksize,
        sums=sums,
        work=_work(sums, tail, wall * timings.lanes - sums.held, stages),
        parent=_parent(sums, timings.heard.seconds),
        items=item_times(book.table),
        slowest=_slowest(book),
        memory=_memory(book, supply),
        tries=_tries(book),
        paces=few_and_many(ran, spans, wall),
        spans=spans,
        events=events,
        handler_bytes=timings.handler_bytes,
        handler_weight=timings.handler_weight,
        handler_seconds=timings.handler_seconds,
        told_after=0.0 if told_at is None else max(0.0, told_at - start - wall),
        handler_name=timings.handler_name,
        started_at=book.started_at,
        host=platform.node() if book.here else "",
        python=platform.python_version() if book.here else timings.python,
        past=book.past if book.here else None,
        items_seconds=timings.items_seconds,
        grows=book.table.grows,
        elsewhere=timings.elsewhere,
        first=None if by_cost else first_items(ran),
        retry_waits=retry_waits(
            spans, events, wall, lambda begun, end: timings.paused_within(start + begun, start + end)
        ),
        failures=[(line_of(one), one.items[0].traceback or "") for one in groups_of(book.table, MOST_FAILED)],
        longest_tail=max(tails, default=0.0),
        longest_first=by_cost,
        most=book.options.max_lanes,
        needs=here is not None and here.needs is not None,
        stages=stages,
    )


def _times_of(book: JobView, now: float) -> Timings:
    return book.timings.until(now, book.lanes if book.finished_at is None else 0)


def _stages(book: JobView, now: float) -> tuple[list[StageTime], list[Timings]]:
    """Return the stages of a pipeline of which the job is the head, and their times; none of another job."""
    jobs = book.pipeline.jobs if isinstance(book, JobBook) and book.pipeline is not None else []
    found = [_times_of(job, now) for job in jobs]
    stages = [
        StageTime(job.stage.name, job.id, timings.sums.handling + timings.sums.under_way, job.options.max_lanes)
        for job, timings in zip(jobs, found, strict=True)
        if job.stage is not None
    ]
    return stages, found


def _work(sums: Sums, tail: float, whole: float, stages: Sequence[StageTime]) -> list[Part]:
    in_handlers = [
        Part("handler", "in the handler", sums.handling, "your function"),
        Part("under_way", "running now", sums.under_way, "items that have not ended yet"),
    ]
    if stages:
        in_handlers = [
            Part("handler", f"in stage {shown(stage.name)}", stage.seconds, stage.job_id) for stage in stages
        ]
    parts = [
        *in_handlers,
        Part("setup", "in setup", sums.setup, "once in each worker"),
        Part("loading", "loading the handler", sums.loading, "unpickling it, and importing what it needs"),
        Part("unpickling", "unpickling items", sums.unpacking, "in the workers"),
        Part("pickling", "pickling results", sums.packing, "in the workers"),
        Part("for_pickling", "waiting for items", sums.for_pickling, "which the parent was pickling"),
        Part("for_unpickling", "waiting for results", sums.for_unpickling, "which the parent was unpickling"),
        Part("for_parent", "waiting for the parent", sums.for_parent, "which was busy with other workers"),
        Part("transfer", "transfer", sums.for_transfer, "through pipes and shared memory"),
        Part("own", "mpqueue in the workers", max(0.0, sums.overhead), "frames, marks, looking at flags"),
        Part("starting", "starting workers", sums.starting, "they were not there yet"),
        Part("replacing", "replacing workers", sums.replacing, "they were not there again"),
        Part("lost", "lost with dead workers", sums.lost, "their work had to be done again"),
        Part("others", "at other jobs", sums.others, "or at other stages, or replaced because of those"),
        Part("idle", "idle", sums.idle - tail, "nothing of this job was there to be done"),
        Part("tail", "idle at the end", tail, "no item was left that could begin there"),
    ]
    rest = whole - sum(part.seconds for part in parts)
    parts.append(Part("rest", "not accounted for", rest, "moments between two looks at the clock"))
    return [part for part in parts if part.seconds > 0.0005 * whole]


def _parent(sums: Sums, listening: float) -> list[Part]:
    return [
        Part("parent_pickling", "pickling items", sums.parent_pickling, "on one thread, for all workers"),
        Part("parent_unpickling", "unpickling results", sums.parent_unpickling, "on a thread a worker"),
        Part("listeners", "in listeners", listening, "events, progress and logging, on a thread of their own"),
    ]


# -- items -------------------------------------------------------------------------------------------------------------


def item_times(table: ItemTable) -> ItemTimes | None:
    """Return how long the items took; None if none has run."""
    times = sorted(table.times())
    if not times:
        return None
    median, p90, p99 = (times[min(len(times) - 1, int(share * len(times)))] for share in (0.5, 0.9, 0.99))
    return ItemTimes(len(times), math.fsum(times) / len(times), median, p90, p99, times[-1], _bars(times))


def _bars(times: Sequence[float]) -> list[tuple[float, float, int]]:
    """A histogram in equal steps of the logarithm; ``times`` are sorted."""
    low, high = max(times[0], 1e-7), max(times[-1], 1e-7)
    if high / low < 1.05:
        low, high = low / 1.2, high * 1.2
    step = math.log(high / low) / BARS
    edges = [low * math.exp(step * bar) for bar in range(BARS + 1)]
    ends = [0, *(bisect_right(times, edge) for edge in edges[1:-1]), len(times)]
    return [(edges[bar], edges[bar + 1], ends[bar + 1] - ends[bar]) for bar in range(BARS)]


def _slowest(book: JobView) -> list[SlowItem]:
    table = book.table
    ran = filter(table.has_run, range(len(table)))
    return [
        SlowItem(
            table.id_of(at),
            table.named(at),
            table.elapsed[at],
            table.peak[at] << 10 or None,
            table.attempts[at],
            str(ITEM_CODES[table.status[at]]),
        )
        for at in nlargest(SLOWEST, ran, table.elapsed.__getitem__)
    ]


def _memory(book: JobView, supply: int | None) -> MemoryFigures | None:
    peaks = book.table.peak
    known = sorted((index for index, peak in enumerate(peaks) if peak), key=peaks.__getitem__)
    if not known:
        return None
    middle, top = known[len(known) // 2], known[-1]
    return MemoryFigures(len(known), peaks[middle] << 10, peaks[top] << 10, book.table.named(top), supply)


def _tries(book: JobView) -> Tries:
    before = book.tries_before
    history = list(book.table.history.items())
    failed = [entry for at, entries in history for entry in entries[before.get(at, 0) :]]
    groups = alike((tried, Reason(tried.exception, tried.error, _trace_of(tried.exception))) for tried in failed)
    errors: list[tuple[str, int]] = []
    for _, place, reason, members in groups[:5]:
        error = reason.message if len(reason.message) <= ERROR_LENGTH else f"{reason.message[:ERROR_LENGTH]}…"
        errors.append((error if place is None else f"{error} at {visible_line(place)}", len(members)))
    count, seconds = book.table.tries_gone
    return Tries(len(failed) + count, math.fsum(entry.duration for entry in failed) + seconds, errors)


def _trace_of(error: BaseException) -> str:
    cause = error.__cause__
    return cause.text if isinstance(cause, RemoteTraceback) else ""


# -- Workers over time: how many were busy, and how long items took, overall and at first. -----------------------------

#: The number of points of the curve of busy workers.
POINTS = 240
#: A span with at most this many busy workers counts as one of few; with at least this part of the most, as one of many.
FEW, MANY = 1.5, 0.75
#: The least number of chunks that show the usual time.
LATER = 5


def a_second(amounts: Iterable[tuple[float, float, float]], length: float, parts: int) -> list[float]:
    """Return the amount per second, in that many equal parts of the time; amounts are spread evenly over their time.

    ``amounts`` are (start, end, amount).
    """
    width = length / parts
    found = [0.0] * parts
    for start, end, amount in amounts:
        first, last = (min(parts - 1, max(0, int(moment / width))) for moment in (start, end))
        for at in range(first, last + 1):
            overlap = min(end, (at + 1) * width) - max(start, at * width)
            found[at] += amount / width * (1.0 if first == last else max(0.0, overlap) / (end - start))
    return found


def by_worker(spans: Sequence[Span]) -> list[list[Span]]:
    """Return the chunks of each worker that ran items, in their order."""
    found: dict[float, list[Span]] = defaultdict(list)
    for span in spans:
        if span.items and span.handling:
            found[span.lane].append(span)
    return [*found.values()]


def few_and_many(
    workers: Sequence[Sequence[Span]], spans: Sequence[Span], wall: float
) -> tuple[PaceFigures, PaceFigures] | None:
    """Return how long items took while few workers were busy, and while many were; None if there was not both.

    Without the first chunk of each worker, whose items are slow for reasons of their own.
    """
    if not wall:
        return None
    busy = ((span.begun, span.ended, min(span.ended - span.begun, span.busy)) for span in spans)
    curve = a_second(busy, wall, POINTS)
    sums = [*accumulate(curve, initial=0.0)]

    def until(moment: float) -> float:
        at = moment / wall * len(curve)
        whole = min(int(at), len(curve) - 1)
        return sums[whole] + (at - whole) * curve[whole]

    known: list[tuple[float, Span]] = []
    for span in _later(workers):
        if 0 <= span.begun < span.ended <= wall:
            part = (span.ended - span.begun) / wall * len(curve)
            known.append(((until(span.ended) - until(span.begun)) / part, span))
    most = max((busy for busy, _ in known), default=0.0)
    if most < 2 * FEW * MANY:
        return None
    few = [(busy, span) for busy, span in known if busy <= FEW]
    many = [(busy, span) for busy, span in known if busy >= max(MANY * most, FEW)]
    return (_pace(few), _pace(many)) if few and many else None


def _later(workers: Sequence[Sequence[Span]]) -> list[Span]:
    return [span for spans in workers for span in spans[1:]]


def _pace(spans: Sequence[tuple[float, Span]]) -> PaceFigures:
    items = sum(int(span.items) for _, span in spans)
    seconds = math.fsum(span.handling for _, span in spans)
    return PaceFigures(math.fsum(busy * span.handling for busy, span in spans) / seconds, items, seconds / items)


def first_items(workers: Sequence[Sequence[Span]]) -> FirstItems | None:
    """Return the time of the workers' first items; None if there are too few later ones to tell what is usual."""
    later = _later(workers)
    if len(later) < LATER:
        return None
    usual = statistics.median(span.handling / span.items for span in later)
    each = statistics.median_low(max(0.0, first.handling - first.items * usual) for first, *_ in workers)
    return FirstItems(len(workers), each * len(workers), usual)


def retry_waits(
    spans: Sequence[Span], events: Sequence[Event], wall: float, paused_within: Callable[[float, float], float]
) -> float:
    """Seconds in which no worker had a chunk, after the first item had failed that was to be tried again.

    Pauses are left out.
    """
    first = next((event.at for event in events if event.name == "retry"), None)
    if first is None:
        return 0.0
    waited = ended = 0.0
    for begun, end in (*sorted((span.begun, span.ended) for span in spans), (wall, wall)):
        if begun >= first:
            waited += max(0.0, begun - ended - paused_within(ended, begun))
        ended = max(ended, end)
    return waited
