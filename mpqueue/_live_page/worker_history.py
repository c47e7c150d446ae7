"""The history of each worker over some minutes: its work, and its use of CPU and memory.

Stretches of time and ends of workers, by lane, come from looks at the lanes; the use is read from /proc every 2 s.

An item that takes longer than a few looks gets its own stretch, which begins with the item; shorter ones are one
stretch of their job. Between two looks it assumes no change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import NamedTuple

from mpqueue._live_page.served import ShownJob
from mpqueue._os.process.process_facts import use_of
from mpqueue._parent.running import LaneNow
from mpqueue._wire.memory.ledger import Phase

#: Seconds that are kept, and the most stretches of a lane.
WINDOW = 300.0
MOST_STRETCHES = 400
#: Seconds below which an item gets no stretch of its own.
LONG = 0.5
#: The most seconds between two looks that count as consecutive.
NEXT_LOOK = 1.0
#: The most running items of a lane that are kept apart.
FEW = 32
#: The most ends of workers that are kept.
MOST_MARKS = 500
#: Seconds between two samples, and how many are kept of each worker.
EVERY = 2.0
MOST_SAMPLES = int(WINDOW / EVERY)
#: The names in a job's `Timings` for the end of a worker.
DIED = "worker died"

RUNNING, LOADING, STARTING = "running", "loading", "starting"


@dataclass(slots=True)
class Stretch:
    """The time from ``start`` to ``end`` (seconds of the monotonic clock) in which a lane did one thing."""

    start: float
    end: float
    kind: str  #: `RUNNING`, `LOADING` or `STARTING`
    job: int | None
    item: int | None  #: the index of the one item, None for many short ones


class WorkerEnd(NamedTuple):
    """An unexpected end of a worker."""

    lane: int
    at: float
    why: str  #: for users: ``killed: timeout``, ``SIGSEGV``, ``exit code 3``
    item: int | None  #: the index of the item that it was running
    job: int


class Timeline:
    """The stretches of all lanes, and the ends of their workers."""

    def __init__(self) -> None:
        self.lanes: dict[int, deque[Stretch]] = {}
        self.marks: deque[WorkerEnd] = deque(maxlen=MOST_MARKS)
        self._open: set[int] = set()  #: the lanes whose last stretch still grows
        self._read: dict[int, tuple[float, int]] = {}  #: by job: its start, and how many of its events were read

    def look_for_ends(self, jobs: Iterable[ShownJob], now: float) -> list[WorkerEnd]:
        """Note which workers have died since the last look, by the active jobs; returns them."""
        new: list[WorkerEnd] = []
        for job in jobs:
            times = job.timings
            started, events = times.started, times.events
            before, read = self._read.get(job.number, (started, 0))
            read = read if before == started else 0
            new += [
                WorkerEnd(event.lane, event.at, event.why, event.item, job.number)
                for event in events[read:]
                if event.name == DIED and event.lane is not None and event.at > now - WINDOW
            ]
            self._read[job.number] = (started, max(read, len(events)))
        # Each active job reports it; the job whose item it was has the item.
        known = {(mark.lane, mark.at): mark for mark in self.marks}
        fresh: dict[tuple[int, float], WorkerEnd] = {}
        for mark in sorted(new, key=lambda mark: mark.item is None):
            if (mark.lane, mark.at) not in known:
                fresh.setdefault((mark.lane, mark.at), mark)
        self.marks.extend(fresh.values())
        return list(fresh.values())

    def look(self, lanes: Sequence[LaneNow], now: float) -> list[tuple[int, Stretch]]:
        """Take the lanes' work; returns the stretches that begin, end or change, each with its lane's number.

        A stretch that only grows is not among them.
        """
        there = {lane.number for lane in lanes}
        told = [(number, self.lanes[number][-1]) for number in self._open - there]
        self._open &= there
        for lane in lanes:
            told += [(lane.number, stretch) for stretch in self._take(lane, now)]
        return told

    def _take(self, lane: LaneNow, now: float) -> list[Stretch]:
        """Take one lane's work, as `look`."""
        stretches = self.lanes.setdefault(lane.number, deque(maxlen=MOST_STRETCHES))
        while stretches and stretches[0].end < now - WINDOW:
            stretches.popleft()
        seen, last, grew = _seen(lane, now), stretches[-1] if stretches else None, lane.number in self._open
        ended = [last] if last is not None and grew else []
        if seen is None:
            self._open.discard(lane.number)
            return ended
        self._open.add(lane.number)
        if last is not None and _goes_on(last, seen, now):
            last.end = now
            if grew and seen.item == last.item:
                return []
            changed = not grew or last.item is not None  # it is one of several from now on
            last.item = last.item if seen.item == last.item else None
            return [last] if changed else []
        if last is not None:
            seen.start = max(seen.start, last.end)
            if seen.kind == last.kind and seen.start - last.end < NEXT_LOOK and seen.item is not None:
                last.end = seen.start  # its end was not seen, and the next one began here
        stretches.append(seen)
        return [*ended, seen]

    def grows(self, lane: int, stretch: Stretch) -> bool:
        """True for a stretch that goes on now."""
        return lane in self._open and stretch is self.lanes[lane][-1]


def _seen(lane: LaneNow, now: float) -> Stretch | None:
    if lane.doing == STARTING:
        return Stretch(now, now, STARTING, None, None)
    if lane.doing != "busy":
        return None
    kind = LOADING if lane.phase is Phase.LOADING else RUNNING
    item = lane.items[0] if len(lane.items) == 1 else None
    return Stretch(min(now, lane.since) if item is not None else now, now, kind, lane.job, item)


def _goes_on(last: Stretch, seen: Stretch, now: float) -> bool:
    if (last.kind, last.job) != (seen.kind, seen.job):
        return False
    if last.item == seen.item:
        return True
    # One short item after another: the last one was short, or is one of many already, and this one may be too.
    if last.item is None:
        return now - seen.start < LONG
    return last.end - last.start < LONG and now - seen.start < LONG


# -- use ---------------------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """One worker's CPU and memory use, at one moment of the monotonic clock."""

    at: float
    cpu: float  #: CPU seconds since its start
    share: float  #: fraction of a CPU, since the sample before
    memory: int  #: bytes


@dataclass(slots=True)
class _Watched:
    """The samples of one process."""

    pid: int
    started: int
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))


class Usage:
    """The CPU and memory use of all workers, if they are processes of this machine."""

    def __init__(self) -> None:
        self._workers: dict[int, _Watched] = {}  #: by lane
        self._due = 0.0

    def look(self, lanes: Sequence[LaneNow], now: float) -> list[tuple[int, Sample]]:
        """Sample each worker, once in `EVERY`; returns the new samples, each with its lane's number."""
        if now < self._due:
            return []
        self._due = now + 0.95 * EVERY  # looks are not quite regular
        for number in self._workers.keys() - {lane.number for lane in lanes}:
            del self._workers[number]
        return [
            (lane.number, sample)
            for lane in lanes
            if lane.pid is not None and (sample := self._sample(lane.number, lane.pid, now)) is not None
        ]

    def _sample(self, number: int, pid: int, now: float) -> Sample | None:
        use = use_of(pid)
        if use is None:
            return None
        worker = self._workers.get(number)
        if worker is None or (worker.pid, worker.started) != (pid, use.started):
            worker = self._workers[number] = _Watched(pid, use.started)
        before = worker.samples[-1] if worker.samples else None
        share = 0.0 if before is None or now <= before.at else max(0.0, (use.cpu - before.cpu) / (now - before.at))
        sample = Sample(now, use.cpu, share, use.memory)
        worker.samples.append(sample)
        return sample

    def last(self, number: int) -> Sample | None:
        """The last sample of that lane's worker."""
        worker = self._workers.get(number)
        return worker.samples[-1] if worker is not None and worker.samples else None

    def all(self) -> list[tuple[int, Sample]]:
        """All samples, each with its lane's number."""
        return [(number, sample) for number, worker in self._workers.items() for sample in worker.samples]

    def cpu_since(self, number: int, moment: float) -> float | None:
        """CPU seconds that the worker has used since then, to about a second; None if that is not known."""
        worker = self._workers.get(number)
        use = None if worker is None else use_of(worker.pid)
        if worker is None or use is None or use.started != worker.started:
            return None
        samples = [(sample.at, sample.cpu) for sample in list(worker.samples)]  # the event loop adds to them
        if not samples or moment < samples[0][0] - EVERY:
            return None
        for (at, cpu), (later, more) in pairwise([*samples, (inf, use.cpu)]):
            if moment < later:
                part = max(0.0, (moment - at) / (later - at))
                return max(0.0, use.cpu - cpu - part * (more - cpu))
        return None
