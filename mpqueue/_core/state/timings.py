"""The times of a job's run, and where they went: its chunks' reports, added up as they come.

The sums are exact. Beside them is one row per report, for pictures; if there are too many, those that follow each other
closely on a lane are merged, so that a job of any length has at most `MOST_ROWS`. Moments are numbers of the monotonic
clock; it reads no clock itself. Only the coordinator's thread writes it, except for `Heard`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from mpqueue._core.state.lane_book import LaneSeconds, union

if TYPE_CHECKING:
    from mpqueue._core.messages import ChunkReported
    from mpqueue._core.state.lane_book import Chunk
    from mpqueue._wire.frames import WorkTimes

#: The most rows of a job: 2,000 of 104 bytes.
MOST_ROWS = 2_000
#: The most events of a job; later ones are only counted.
MOST_EVENTS = 10_000


class Span(NamedTuple):
    """One row: a report, or several that followed each other on a lane. Moments are monotonic."""

    lane: float
    first: float  #: the index of the first item
    items: float
    failures: float
    begun: float  #: when the worker received them
    loading: float
    setup: float
    unpacking: float
    handling: float
    packing: float
    cpu: float
    ended: float
    busy: float  #: the worker's seconds on it; less than from ``begun`` to ``ended`` if several were merged


_WIDTH, _ENDED = len(Span._fields), Span._fields.index("ended")
#: Seconds by which a worker's times may be off, before its clock counts as a different one.
_SKEW = 0.001
#: The shortest rows, in seconds, are merged first.
_SHORTEST = 0.001


class Event(NamedTuple):
    """An event of the job or of one of its lanes: ``paused``, ``resumed``, ``retry``, ``worker died``, ..."""

    at: float
    name: str
    lane: int | None = None
    item: int | None = None  #: its index
    why: str = ""  #: of a worker's death, for users: ``killed: timeout``, ``SIGSEGV``, ``exit code 3``
    since: float | None = None  #: when a worker that died had got the items that were lost with it


@dataclass(slots=True)
class Heard:
    """The time of listeners, measured by the listener thread: not part of the scheduler's books."""

    seconds: float = 0.0  #: in listeners
    end_told_at: float | None = None  #: when the job's end was announced


@dataclass(slots=True)
class Sums:
    """Seconds of all workers together; the parent's are marked as such. Also counts and bytes."""

    reports: int = 0
    items: int = 0
    # the workers at work
    loading: float = 0.0
    setup: float = 0.0
    unpacking: float = 0.0
    handling: float = 0.0
    packing: float = 0.0
    overhead: float = 0.0  #: mpqueue's own rest of the time with a chunk
    cpu: float = 0.0
    delayed: float = 0.0
    under_way: float = 0.0  #: on items not reported yet: only for a running job
    # the workers waiting
    starting: float = 0.0  #: no worker had come yet
    replacing: float = 0.0  #: the next worker had not come yet
    lost: float = 0.0  #: on work that was lost, because the worker died
    for_pickling: float = 0.0  #: for the pickling of their items, in the parent
    for_unpickling: float = 0.0  #: for the unpickling of their results, in the parent
    for_parent: float = 0.0  #: for the parent, which had other messages to handle
    for_transfer: float = 0.0
    idle: float = 0.0  #: there was nothing to send
    held: float = 0.0  #: the same, while the job was paused
    others: float = 0.0  #: the same, while they had other jobs' work, or were replaced because of those
    queued: float = 0.0  #: chunks waited at a worker that was busy with another one
    # the parent at work
    parent_pickling: float = 0.0
    parent_unpickling: float = 0.0
    bytes_out: int = 0
    bytes_home: int = 0
    deaths: int = 0  #: of workers that had its items, or those of no job
    replaced: int = 0  #: workers that came after another one on their lane
    paused: float = 0.0


class PastRun(NamedTuple):
    """An ended run of a job, as far as remembered."""

    started_at: float  #: seconds since the epoch
    seconds: float | None  #: from its start to its end; None: its program ended before
    cpu: float | None  #: CPU seconds of its workers
    items: int | None  #: that ran in it


@dataclass(slots=True)
class _LaneTimes:
    """The times of a lane: since when it is free, and the arrival of its last report."""

    free_at: float
    ready: bool = True
    fresh: bool = True  #: none of its workers has ended during this run
    lost_to_others: bool = False  #: another job's items have ended its last worker
    received: float = 0.0
    decoded: float = 0.0
    handled: float = 0.0


class Company(NamedTuple):
    """Other jobs active at the same time as a job: the lanes' work for them from then on."""

    all: LaneSeconds  #: of the queue
    own: LaneSeconds  #: of this job
    before: float  #: seconds of all, until then

    def seconds(self, now: float) -> float:
        """Seconds that the lanes have worked for other jobs, up to now."""
        return max(0.0, self.all.until(now) - self.before - self.own.until(now))


@dataclass(slots=True)
class Timings:
    """The times of one run of one job."""

    started: float = 0.0
    finished: float | None = None
    lanes: int = 0  #: how many lanes there are, including those that joined
    company: Company | None = None  #: other jobs were active at the same time
    elsewhere: bool = False  #: workers were on another machine, by their clock
    sums: Sums = field(default_factory=Sums)
    rows: array[float] = field(default_factory=lambda: array("d"))
    events: list[Event] = field(default_factory=list)
    last_on: dict[int, float] = field(default_factory=dict)  #: when each lane ended its last report, if it had one
    items_seconds: float = 0.0  #: reading the items, before the start
    handler_seconds: float = 0.0  #: pickling the handler, before the start, on the thread that created the job
    handler_bytes: int = 0
    handler_weight: str = ""  #: the cause, if the handler is heavy
    handler_name: str = ""
    python: str = ""  #: the version of Python, if another program ran it
    heard: Heard = field(default_factory=Heard)
    _lanes: dict[int, _LaneTimes] = field(default_factory=dict)  #: those that have reported
    _ready: int = 0  #: the lanes that could begin at once
    _paused_at: float | None = None
    _pauses: tuple[tuple[float, float], ...] = ()  #: those that are over, each from its start to its end
    _resolution: float = 0.0  #: the most seconds of a row of several reports
    _most_rows: int = MOST_ROWS  #: more with so many lanes that each one's last row fills half of it

    # -- the run ---------------------------------------------------------------------------------------------

    def begin(self, now: float, lanes: int, ready: int) -> None:
        """Begin a run: earlier ones do not count any more. ``ready``: the set of lanes that could begin."""
        self.started, self.finished, self.lanes, self.company, self.elsewhere = now, None, lanes, None, False
        self.sums, self.rows, self.events = Sums(), array("d"), []
        self.last_on, self.heard = {}, Heard()
        self._lanes, self._ready = {}, ready
        self._paused_at, self._pauses = None, ()
        self._resolution, self._most_rows = 0.0, MOST_ROWS

    def items_read(self, seconds: float) -> None:
        """Note the seconds of reading the items, as the job is created."""
        self.items_seconds = seconds

    def handler_packed(self, seconds: float, size: int, weight: str, name: str = "") -> None:
        """Note the cost of the handler, once the job is created."""
        self.handler_seconds, self.handler_bytes, self.handler_weight = seconds, size, weight
        self.handler_name = name

    def finish(self, now: float, at_work: int = 0) -> None:
        """Close the run; or look at it as if it had ended, while the lanes of ``at_work`` have its items."""
        self.resumed(now)
        sums, waited = self.sums, max(0.0, now - self.started)
        untouched = ((1 << self.lanes) - 1) & ~union(self._lanes)
        sums.under_way += waited * (untouched & at_work).bit_count()
        self._add_idle(self.started, now, (untouched & ~at_work & self._ready).bit_count())
        sums.starting += waited * (untouched & ~at_work & ~self._ready).bit_count()
        for number, lane in self._lanes.items():
            waited = max(0.0, now - lane.free_at)
            if at_work >> number & 1:
                sums.under_way += waited
            elif lane.ready:
                self._add_idle(lane.free_at, now)
            else:
                self._add_absence(lane, waited)
        if self.company is not None:
            served = min(sums.idle, max(0.0, self.company.seconds(now) - sums.held))
            sums.idle -= served
            sums.others += served
        self.finished = now

    def paused(self, now: float) -> None:
        """Note that the job was paused."""
        self.note(Event(now, "paused"))
        self._paused_at = now

    def resumed(self, now: float) -> None:
        """Note that the job was resumed, or has ended."""
        if self._paused_at is not None:
            self.note(Event(now, "resumed"))
            self.sums.paused += now - self._paused_at
            self._pauses = (*self._pauses, (self._paused_at, now))
            self._paused_at = None

    def paused_within(self, start: float, end: float) -> float:
        """Return the seconds of that time in which the job was paused."""
        seconds = 0.0 if self._paused_at is None else max(0.0, end - max(start, self._paused_at))
        for paused, resumed in reversed(self._pauses):
            if resumed <= start:
                break
            seconds += max(0.0, min(end, resumed) - max(start, paused))
        return seconds

    def _add_idle(self, start: float, end: float, lanes: int = 1) -> None:
        if end > start:
            held = self.paused_within(start, end)
            self.sums.held += lanes * held
            self.sums.idle += lanes * (end - start - held)

    @property
    def starting(self) -> int:
        """The number of workers that are being started, as long as none has come."""
        if self.finished is not None or self._ready or any(lane.ready for lane in list(self._lanes.values())):
            return 0
        return self.lanes

    def note(self, event: Event) -> None:
        """Keep an event, if there are not too many."""
        if len(self.events) < MOST_EVENTS:
            self.events.append(event)

    # -- lanes -----------------------------------------------------------------------------------------------

    def lane_ready(self, lane: int, now: float) -> None:
        """Note that a worker has come."""
        times = self._lane(lane)
        if not times.ready:
            self._add_absence(times, max(0.0, now - times.free_at))
            self.sums.replaced += not times.fresh
            times.ready, times.free_at = True, now

    def lane_gone(
        self,
        lane: int,
        now: float,
        *,
        worked: bool,
        died: bool,
        item: int | None = None,
        why: str = "",
        since: float | None = None,
        by_others: bool = False,
    ) -> None:
        """Note that a worker has ended; ``worked``: it had items of this job, which are sent again.

        ``item`` is the index of its running item, and ``why`` the reason of its end, as far as known; ``since`` is when
        it got its items. ``by_others``: it had items of another job, so its end does not count here.
        """
        times = self._lane(lane)
        if times.ready:
            begun = max(times.free_at, times.free_at if since is None else since) if worked else now
            self._add_idle(times.free_at, min(begun, now))
            self.sums.lost += max(0.0, now - begun)
            times.ready, times.fresh, times.free_at = False, False, now
        times.lost_to_others = by_others
        if died:
            self.sums.deaths += 1
            self.note(Event(now, "worker died", lane, item, why, since))

    def _add_absence(self, lane: _LaneTimes, spent: float) -> None:
        if lane.lost_to_others:
            self.sums.others += spent
        elif lane.fresh:
            self.sums.starting += spent
        else:
            self.sums.replacing += spent

    def _lane(self, number: int) -> _LaneTimes:
        lane = self._lanes.get(number)
        if lane is None:
            self.lanes = max(self.lanes, number + 1)  # it joined, as on a cluster that grows
            lane = self._lanes[number] = _LaneTimes(self.started, self._ready >> number & 1 == 1)
        return lane

    # -- reports ---------------------------------------------------------------------------------------------

    def add(self, lane: int, chunk: Chunk, report: ChunkReported, now: float) -> None:
        """Add a report, which the coordinator handles ``now``. Costs 4 us."""
        times = report.times
        if times is None:
            return
        left_at = chunk.left_at or chunk.sent_at
        theirs = times
        times = _by_our_clock(times, left_at, report.received)
        self.elsewhere = self.elsewhere or times is not theirs
        packed_at = left_at - chunk.packing
        place = self._lane(lane)
        self._add_waiting(place, times.begun, packed_at, left_at)
        place.free_at = max(place.free_at, times.ended)
        place.received, place.decoded, place.handled = report.received, report.decoded, now
        self.last_on[lane] = place.free_at
        self._add_work(times, report.done - report.first)
        sums = self.sums
        sums.parent_unpickling += report.decoded - report.received
        sums.bytes_home += report.size
        if report.first == 0:
            sums.parent_pickling += chunk.packing
            sums.bytes_out += chunk.size
        self.rows.extend(_row(lane, chunk, report, times))
        if len(self.rows) > _WIDTH * self._most_rows:
            self._thin()

    def _add_work(self, times: WorkTimes, items: int) -> None:
        sums, busy = self.sums, times.ended - times.begun
        sums.reports += 1
        sums.items += items
        sums.loading += times.loading
        sums.setup += times.setup
        sums.unpacking += times.unpacking
        sums.handling += times.handling
        sums.packing += times.packing
        sums.overhead += busy - times.loading - times.setup - times.unpacking - times.handling - times.packing
        sums.cpu += times.cpu
        sums.delayed += times.delayed

    def _add_waiting(self, place: _LaneTimes, begun: float, packed_at: float, left_at: float) -> None:
        """Add up the reasons why the worker waited since it was free. Each moment is the end of a wait, or later."""
        sums, at = self.sums, place.free_at
        sums.queued += max(0.0, min(at, begun) - left_at)
        if begun <= at:
            return
        place.ready = True  # even if this job was not notified of its start
        waits, handled_at = [0.0] * 6, max(at, place.handled)
        for nth, moment in enumerate((place.received, place.decoded, place.handled, packed_at, left_at, begun)):
            if moment > at:
                until = min(moment, begun)
                waits[nth], at = until - at, until
        home, unpickling, parent, idle, pickling, way = waits
        if idle:
            self._add_idle(handled_at, handled_at + idle)
        sums.for_transfer += home + way
        sums.for_unpickling += unpickling
        sums.for_parent += parent
        sums.for_pickling += pickling

    def _thin(self) -> None:
        """Merge rows that follow each other on a lane within a time such that half of all are left, or one a lane."""
        spans = list(self.spans())
        most = max(len(spans) // 2, len({span.lane for span in spans}))
        while len(spans) > most:
            shortest = min((span.ended - span.begun for span in spans), default=0.0)
            self._resolution = max(2 * self._resolution, 2 * shortest, _SHORTEST)
            spans = _join_within(spans, self._resolution)
        self._most_rows = max(MOST_ROWS, 2 * len(spans))
        self.rows = array("d")
        for span in spans:
            self.rows.extend(span)

    # -- to read ---------------------------------------------------------------------------------------------

    def spans(self, since: float = -math.inf) -> Iterator[Span]:
        """Return the rows so far, without those that ended before ``since``; callable on any thread."""
        rows = self.rows
        starts = range(0, len(rows) // _WIDTH * _WIDTH, _WIDTH)
        return (Span(*rows[at : at + _WIDTH]) for at in starts if rows[at + _ENDED] >= since)

    def until(self, now: float, at_work: int) -> Timings:
        """Return a copy of the current state, as if a running job ended now; callable on any thread.

        The lanes of ``at_work`` have items of it.
        """
        copy = Timings(**{entry.name: getattr(self, entry.name) for entry in fields(self) if entry.init})
        copy.sums = Sums(**{entry.name: getattr(self.sums, entry.name) for entry in fields(Sums)})
        copy.rows, copy.events, copy.last_on = self.rows[:], self.events[:], dict(self.last_on)
        copy._lanes = {
            number: _LaneTimes(times.free_at, times.ready, times.fresh, times.lost_to_others)
            for number, times in list(self._lanes.items())
        }
        if copy.finished is None:
            copy.finish(now, at_work)
        return copy

    def add_stages(self, stages: Sequence[Timings]) -> None:
        """Add the times of a pipeline's stages to those of its head, for which they are other jobs; to copies of them.

        That a lane had nothing of one stage to do is no idleness of the pipeline: it is what is left of the whole.
        """
        assert self.finished is not None
        sums, elsewhere = self.sums, self.sums.others
        for stage in stages:
            for name in _OF_STAGES:
                setattr(sums, name, getattr(sums, name) + getattr(stage.sums, name))
            elsewhere -= stage.sums.replacing
            if stage.company is not None:
                elsewhere -= stage.company.own.until(self.finished)
            self.rows.extend(stage.rows)
            for lane, ended in stage.last_on.items():
                self.last_on[lane] = max(ended, self.last_on.get(lane, ended))
            self.elsewhere = self.elsewhere or stage.elsewhere
        sums.others = max(0.0, elsewhere)
        used = sums.starting + sums.others + sums.held + math.fsum(getattr(sums, name) for name in _SECONDS_OF_STAGES)
        sums.idle = max(0.0, (self.finished - self.started) * self.lanes - used)
        events = dict.fromkeys(event for times in (self, *stages) for event in times.events)  # all have pauses
        self.events = sorted(events, key=lambda event: event.at)
        sums.deaths = sum(event.name == "worker died" for event in events)


#: What the stages of a pipeline have of its workers' time, beside what they wait for; and all that they have.
_SECONDS_OF_STAGES = (
    *("loading", "setup", "unpacking", "handling", "packing", "overhead", "under_way", "replacing", "lost"),
    *("for_pickling", "for_unpickling", "for_parent", "for_transfer"),
)
_OF_STAGES = (
    *_SECONDS_OF_STAGES,
    *(
        "reports",
        "items",
        "cpu",
        "delayed",
        "queued",
        "parent_pickling",
        "parent_unpickling",
        "bytes_out",
        "bytes_home",
    ),
)


def _row(lane: int, chunk: Chunk, report: ChunkReported, times: WorkTimes) -> tuple[float, ...]:
    """Return a report's row, like a `Span`: making one, by its names, would cost as much as all the rest."""
    return (
        lane,
        chunk.indices[min(report.first, len(chunk.indices) - 1)],
        report.done - report.first,
        len(report.failures),
        times.begun,
        times.loading,
        times.setup,
        times.unpacking,
        times.handling,
        times.packing,
        times.cpu,
        times.ended,
        times.ended - times.begun,
    )


def _by_our_clock(times: WorkTimes, left_at: float, received: float) -> WorkTimes:
    """Return a worker's times by our clock; for one on another machine, as if its report had arrived at once."""
    if left_at - _SKEW <= times.begun and times.ended <= received + _SKEW:
        return times
    return times._replace(begun=received - (times.ended - times.begun), ended=received)


def _join_within(spans: list[Span], seconds: float) -> list[Span]:
    """Merge spans that follow each other on a lane, as long as the result lasts at most that many seconds."""
    joined: list[Span] = []
    waiting: dict[float, Span] = {}
    for span in spans:
        before = waiting.get(span.lane)
        if before is not None and span.ended - before.begun <= seconds:
            waiting[span.lane] = join(before, span)
        else:
            if before is not None:
                joined.append(before)
            waiting[span.lane] = span
    return [*joined, *waiting.values()]


def join(one: Span, other: Span) -> Span:
    """Merge two spans: from the start of the first to the end of the second; the rest added up."""
    added = Span(*map(add, one, other))
    return added._replace(lane=one.lane, first=one.first, begun=one.begun, ended=other.ended)
