"""All of the scheduler's data, in one place: lanes, jobs, timers, and the commands of the current step.

The rules, one module per subject, take the books and change them.

Timers are a heap. Time in which no process could run does not count.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import TYPE_CHECKING, NamedTuple

from mpqueue._core.commands import Capabilities, Command, TellDemand
from mpqueue._core.rules.chunking import aim
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import CHUNKS_PER_LANE, BusyTime, Chunk, LaneBook, LaneSeconds, LaneState, members
from mpqueue._core.state.resources import Headroom, Needs, Resources
from mpqueue._core.state.timings import Company

if TYPE_CHECKING:
    import random


class TimerKind(IntEnum):
    """The kinds of timers."""

    RETRY = auto()  #: an item's delay is over (subject: job number; detail: item index)
    LANE_CHECK = auto()  #: a timeout may have passed on a lane (subject: lane; detail: generation)
    STEAL_CHECK = auto()  #: look for items stuck behind a slow one
    LIMIT_SETTLED = auto()  #: a lowered limit is visible to the worker (subject: lane; detail: generation)
    LANE_START = auto()  #: start a worker again (subject: lane; detail: generation)
    NO_LANES = auto()  #: give up if still no worker could be started
    SETUP_AGAIN = auto()  #: a lane may try a job's setup again (subject: job number; detail: lane)
    DRAINED = auto()  #: the time of running items in a draining queue is over (detail: 1 once its workers are killed)
    STOP = auto()  #: a job stops (subject: job number; detail: 1 for its failures, 0 for its time)
    GO_ON = auto()  #: a step has asked as many lanes as it may: the next one goes on
    APART = auto()  #: an item that has to run apart has waited long enough for others, or they for it


class Timer(NamedTuple):
    """One entry; equal times keep the order in which they were set."""

    due: float
    serial: int
    kind: TimerKind
    subject: int = 0
    detail: int = 0
    epoch: int = 0


class TimerHeap:
    """A heap of timers. Entries are never removed early: their taker checks whether they are still valid."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: float, kind: TimerKind, subject: int = 0, detail: int = 0, epoch: int = 0) -> None:
        """Set a timer for the moment ``due``."""
        self._serial += 1
        heapq.heappush(self._heap, Timer(due, self._serial, kind, subject, detail, epoch))

    def next_due(self) -> float | None:
        """Return the moment at which the first timer falls due; None if there is none."""
        return self._heap[0].due if self._heap else None

    def take_due(self, now: float) -> list[Timer]:
        """Take out every timer that is due, in order."""
        due = []
        while self._heap and self._heap[0].due <= now:
            due.append(heapq.heappop(self._heap))
        return due

    def clear(self) -> None:
        """Forget every timer."""
        self._heap.clear()


# -- Time in which no process could run does not count. ----------------------------------------------------------------
#
# A stopped group of processes, a frozen control group or a paused virtual machine runs nothing, while the clock goes
# on. The process that wakes first must not find the others late. So the time from the coordinator's last step before
# such a sleep to the first one after it extends every running limit, and a little more, in which the workers wake too.
# (A closed laptop needs none of this: the monotonic clock stands still meanwhile.)
#
# Pure: times are arguments. `Lookout` finds sleeps, `Sleeps` keeps them. While a limit is running the coordinator reads
# the clock every `LOOK` seconds, so that a sleep extends a limit by at most that much more than it took.

#: The most seconds between two readings of the clock, while any limit is running.
LOOK = 1.0
#: Seconds by which a reading has to be late to count as sleep. A busy machine is late by less.
NOTICED = 0.5
#: Seconds after a sleep that do not count either: others may wake later.
GRACE = 1.0
#: Seconds between two readings of the CPU's clock, which takes longer than the other.
CPU_LOOK = 0.05
#: The most sleeps that are remembered. A running limit never needs more of them.
MAX_SLEEPS = 1000


class Lookout:
    """Finds out that no process could run. ``cpu`` returns the seconds that this process has had a CPU.

    A process that was late because of other work, or of another thread, has used a CPU meanwhile: that was no sleep.
    """

    def __init__(self, now: float, cpu: Callable[[], float]) -> None:
        self._cpu = cpu
        self._last = self._cpu_at = now
        self._cpu_then = cpu()

    def look(self, now: float, planned: float | None) -> float | None:
        """Look at the time, at each step; ``planned``: the longest planned wait before the step in seconds, None: any.

        Returns the moment of the step before, if there was a sleep in between.
        """
        last, self._last = self._last, now
        if now - self._cpu_at > CPU_LOOK:  # as after any sleep
            used, self._cpu_at = self._cpu() - self._cpu_then, now
            self._cpu_then += used
            if planned is not None and now - last - planned - used > NOTICED:
                return last
        return None


class Sleeps:
    """The latest sleeps, as stretches of time that do not overlap, in order."""

    def __init__(self) -> None:
        self._sleeps: deque[tuple[float, float]] = deque(maxlen=MAX_SLEEPS)

    def add(self, since: float, until: float) -> None:
        """Note that no process could run from ``since`` to ``until``; some may have been late afterwards."""
        if self._sleeps:
            since = max(since, self._sleeps[-1][1])
        until += GRACE
        if until > since:
            self._sleeps.append((since, until))

    def after(self, moment: float) -> float:
        """Return the seconds by which a limit that began to run at that moment is extended."""
        total = 0.0
        for since, until in reversed(self._sleeps):
            if until <= moment:
                break
            total += until - max(since, moment)
        return total


@dataclass(slots=True)
class EndedCounts:
    """Counts of ended items in a queue since it was opened, for people. An input of stages counts once."""

    completed: int = 0
    failed: int = 0  #: for good
    retries: int = 0  #: tries that another one follows


NOTHING: Mapping[str, int] = {}
#: The error that sums of fractions may have.
_ROUNDING = 1e-9


class Books:
    """The state of the scheduler. ``jobs`` are the active ones, by number; ``now``: the monotonic time of this step."""

    def __init__(
        self,
        lanes: int,
        rng: random.Random,
        *,
        max_items_per_worker: int | None = None,
        max_memory_per_worker: int | None = None,
        has_initializer: bool = False,
        engine: Capabilities = Capabilities(),  # noqa: B008 - frozen
        resources: Mapping[str, int] = NOTHING,
        device: str | None = None,
    ) -> None:
        self.lanes = [LaneBook(number) for number in range(lanes)]
        # Sets of lanes: see `mpqueue._core.state.lane_book`. The cost of a step does not grow with the lanes.
        self.ready = 0  #: lanes whose worker takes chunks
        self.free = 0  #: those among them that hold none and may have one
        self.at_work = 0  #: lanes that hold chunks
        self.look_to_rob = 0  #: lanes whose next look at the ledger is also for stealing
        self.dying_together: dict[Hashable, int] = {}  #: the lanes of each group that several share
        self.jobs: dict[int, JobBook] = {}
        self.lane_seconds: LaneSeconds | None = None  #: of all lanes, from when two jobs are active until none is
        self.timers = TimerHeap()
        self.sleeps = Sleeps()
        self.any_timeouts = False  #: some active job has
        self.rng = rng  #: for the delays of failed tries: only there chance counts
        self.capabilities = engine
        self.max_items_per_worker = max_items_per_worker
        self.max_memory = max_memory_per_worker  #: bytes of private memory that a worker may have
        self.headroom = Headroom()
        self.resources = Resources(resources)
        self.device = device  #: the resource of which a worker sees only the units that it had before its first item
        self.any_needs = False  #: some job has needs, or had
        self.first_in_line: tuple[JobBook, Needs] | None = None  #: those that no others may pass any more
        self.base_warned = False  #: it was logged that workers have too much before their first item
        self.any_alone = False  #: some item of an active job has to be alone, or apart, or had to
        self.apart_since: float | None = None  #: since when an item waits to run apart
        self.held = False  #: no more is sent to idle lanes for now
        self.now = 0.0
        self.opened = False
        self.absent: set[int] = set()  #: lanes that there is no room for, or that are not wanted any more
        self._count_lanes()
        #: A worker may have to be replaced because of its earlier items, or to end.
        self.wears_out = max_items_per_worker is not None or max_memory_per_worker is not None
        self.most_lanes: int | None = None  #: lanes from this number on are not wanted any more; None: all are
        self.has_initializer = has_initializer  #: new workers run the initializer before their first chunk
        self.init_error: BaseException | None = None  #: the initializer's last error, if no worker got past it
        self.init_text = ""  #: that error, as text
        self.told_demand = TellDemand()  #: the last report to the engine, if it follows demand
        self.closing = False
        self.draining = False  #: closing, with limited time for running items: see `mpqueue._core.rules.job_states`
        self.no_lanes_since: float | None = None
        self.ever_ready = False  #: some worker has answered
        self.last_start_error: BaseException | None = None
        self.ended = EndedCounts()
        self.deaths: dict[str, int] = {}  #: workers that died while they had work, by reason, for people
        self.steal_due: float | None = None  #: when to look for stuck items
        self.commands: list[Command] = []
        #: Objects that are not needed any more. Freeing them may run any code, so the code that takes them frees them
        #: elsewhere.
        self.to_free: list[object] = []

    def free_later(self, unneeded: object) -> None:
        """Note that this object, perhaps of a user's class, is not needed any more."""
        if unneeded is not None:
            self.to_free.append(unneeded)

    def take_unneeded(self) -> list[object]:
        """Take the objects that have become unneeded since the last call."""
        taken, self.to_free = self.to_free, []
        return taken

    @property
    def wanted(self) -> int:
        """The wanted number of lanes, including those without workers."""
        return len(self.lanes) if self.most_lanes is None else self.most_lanes

    @property
    def places(self) -> int:
        """The number of CPUs left, of as many as there are lanes: each lane that has a chunk takes at least one."""
        return self.wanted - self.at_work.bit_count() - self.resources.more_cpus

    def live_lane(self, number: int, generation: int) -> LaneBook | None:
        """Return the lane; None if that generation of it has ended."""
        lane = self.lanes[number]
        return lane if lane.generation == generation else None

    def add_lane(self) -> LaneBook:
        """Add a lane; its worker is not started yet."""
        lane = LaneBook(len(self.lanes))
        self.lanes.append(lane)
        self._count_lanes()
        return lane

    def _count_lanes(self) -> None:
        self.present = len(self.lanes) - len(self.absent)  #: how many there is room for
        self.aim = aim(self.capabilities, self.present)  #: the seconds that a chunk aims at now

    def members(self, lanes: int) -> list[LaneBook]:
        """Return the lanes of the set, in order."""
        return [self.lanes[number] for number in members(lanes)]

    def enter(self, lane: LaneBook, state: LaneState) -> None:
        """Put the lane into this state."""
        lane.state = state
        (self.absent.add if state is LaneState.ABSENT else self.absent.discard)(lane.number)
        self._count_lanes()
        self.ready = self.ready | lane.bit if state is LaneState.READY else self.ready & ~lane.bit
        self.sort_in(lane)

    def renew(self, lane: LaneBook, state: LaneState = LaneState.STARTING) -> None:
        """Begin the lane's next generation; the old one's chunks are gone."""
        for chunk in list(lane.chunks):
            self.remove_chunk(lane, chunk)
        if lane.dies_with is not None:
            self.dying_together[lane.dies_with] &= ~lane.bit
        self.look_to_rob &= ~lane.bit
        lane.renew()
        self.enter(lane, state)

    def die_together(self, lane: LaneBook, group: Hashable) -> None:
        """Note that the lane's worker dies together with those of the same group; None: alone."""
        lane.dies_with = group
        if group is not None:
            self.dying_together[group] = self.dying_together.get(group, 0) | lane.bit

    def sort_in(self, lane: LaneBook) -> None:
        """Put the lane into the sets that it now belongs to: its chunks or its worker have changed."""
        bit, chunks = lane.bit, lane.chunks
        free = self.free & ~bit
        if chunks:
            job = chunks[0].job
            job.lanes_to_follow &= ~bit
            ready = lane.state is LaneState.READY and job.number in lane.proven and not self.worn_out(lane)
            if ready and len(chunks) < CHUNKS_PER_LANE and chunks[0].may_be_followed:
                job.lanes_to_follow |= bit
        elif lane.state is LaneState.READY and not self.worn_out(lane):
            free |= bit
        self.free = free

    def add_chunk(self, lane: LaneBook, chunk: Chunk) -> None:
        """Put the chunk onto the lane."""
        job, bit = chunk.job, lane.bit
        if not lane.chunks:
            job.lanes |= bit
            job.lanes_used |= bit
            self.at_work |= bit
            if self.lane_seconds is not None:
                self._count_work(self.lane_seconds, job, 1)
            lane.free_at = self.now
            if chunk.needs is not None:
                lane.grant = self.resources.take(chunk.needs, self.device, lane.devices or ())
                if self.device is not None and self.device in lane.grant.units:
                    lane.devices = lane.grant.units[self.device]
        chunk.grant = lane.grant
        lane.free_at += chunk.expected
        lane.chunks.append(chunk)
        job.lanes_to_rob |= bit
        job.items_out += chunk.end - chunk.reported
        job.seconds_expected += chunk.expected
        if job.busy is not None:
            job.busy.set(lane.number, lane.free_at, self.now)
        self.sort_in(lane)

    def remove_chunk(self, lane: LaneBook, chunk: Chunk) -> None:
        """Take the chunk off the lane; the caller puts back the items that did not run."""
        job = chunk.job
        lane.chunks.remove(chunk)
        job.items_out -= chunk.end - chunk.reported
        job.seconds_expected -= chunk.expected
        lane.free_at = self.now + sum(left.expected for left in lane.chunks)
        if lane.chunks:
            job.lanes_to_rob |= lane.bit
        else:
            others = ~lane.bit
            if lane.grant is not None:
                self.resources.give_back(lane.grant)
                lane.grant = None
            job.lanes &= others
            job.lanes_to_follow &= others
            job.lanes_to_rob &= others
            self.at_work &= others
            if self.lane_seconds is not None:
                self._count_work(self.lane_seconds, job, -1)
        if job.busy is not None:
            job.busy.set(lane.number, lane.free_at, self.now)
        self.sort_in(lane)

    def keep_company(self) -> None:
        """Count the lanes' work for each job from now on, as several are active."""
        if self.lane_seconds is None:
            self.lane_seconds = LaneSeconds(self.at_work.bit_count(), self.now)
        for job in self.jobs.values():
            if job.timings.company is None:
                own = LaneSeconds(job.lanes_held, self.now)
                job.timings.company = Company(self.lane_seconds, own, self.lane_seconds.until(self.now))

    def _count_work(self, every: LaneSeconds, job: JobBook, step: int) -> None:
        every.change(step, self.now)
        if job.timings.company is not None:
            job.timings.company.own.change(step, self.now)

    def note_reported(self, chunk: Chunk, done: int, *, final: bool) -> None:
        """Note that the chunk's positions below ``done`` have ended; ``final``: it has left its lane by now."""
        if not final:
            chunk.job.items_out -= done - chunk.reported
        chunk.reported = done

    def seconds_held(self, job: JobBook) -> float:
        """Return how many seconds the job's lanes should together be busy with their items."""
        if job.busy is None:  # it is kept only from its first use, which is near the job's end
            job.busy = BusyTime()
            for lane in self.members(job.lanes):
                job.busy.set(lane.number, lane.free_at, self.now)
        return job.busy.left(self.now)

    def idle(self, lane: LaneBook) -> bool:
        """True if the lane could take a chunk at once and has none."""
        return self.free & lane.bit != 0

    def worn_out(self, lane: LaneBook) -> bool:
        """True if the lane's worker has reached its limit of items or memory, or is surplus."""
        if not self.wears_out:
            return False
        if lane.to_renew or self.is_surplus(lane):
            return True
        return self.max_items_per_worker is not None and lane.tries > self.max_items_per_worker - _ROUNDING

    def is_surplus(self, lane: LaneBook) -> bool:
        """True if the lane's worker is not wanted any more."""
        return self.most_lanes is not None and lane.number >= self.most_lanes

    def room(self, lane: LaneBook, job: JobBook) -> int | None:
        """Return how many of the job's items the lane's worker may still have; None: any number."""
        if self.max_items_per_worker is None:
            return None
        return int((self.max_items_per_worker - lane.tries) * job.options.items_per_task + _ROUNDING) or 1

    def forgets_at_once(self, job: JobBook) -> bool:
        """True if workers drop the job's handler as soon as it has ended; a light one goes with the next chunk."""
        return job.handler is not None and not job.handler.light

    def count_tries(self, lane: LaneBook, job: JobBook, items: int) -> None:
        """Count the job's items that the lane's worker got; a negative number: it has handed them back."""
        lane.tries += items / job.options.items_per_task
        if self.max_items_per_worker is not None:
            self.sort_in(lane)

    def renew_later(self, lane: LaneBook) -> None:
        """Replace the lane's worker between two chunks."""
        lane.to_renew = self.wears_out = True
        self.sort_in(lane)
