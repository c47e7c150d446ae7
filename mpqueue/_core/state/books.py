"""All that the scheduler knows, in one place: lanes, jobs, timers, and the commands of the step at hand.

The modules beside this one are its hands, one for each subject; each takes the books and changes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mpqueue._core.capabilities import Capabilities
from mpqueue._core.commands import Command
from mpqueue._core.rules.headroom import Headroom
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import CHUNKS_PER_LANE, Chunk, LaneBook, LaneState
from mpqueue._core.state.machine_sleep import Sleeps
from mpqueue._core.state.timer_heap import TimerHeap
from mpqueue.retry import Fail, RetryAfter, RetryPolicy

if TYPE_CHECKING:
    import random

Decide = Callable[[RetryPolicy, int, BaseException], RetryAfter | Fail]

#: What sums of fractions may be wrong by.
_ROUNDING = 1e-9


class Books:
    """The state. ``jobs`` are the active ones, by number; ``now`` is the monotonic time of the step at hand."""

    def __init__(
        self,
        lanes: int,
        max_items_per_worker: int | None,
        rng: random.Random,
        engine: Capabilities,
        max_memory: int | None = None,
        has_initializer: bool = False,
        decide: Decide | None = None,
    ) -> None:
        self.lanes: list[LaneBook] = []
        #: Numbers of the lanes that hold no chunk, one, and so on: so a step costs the same where there are more lanes.
        self.at_depth: list[set[int]] = [set() for _ in range(CHUNKS_PER_LANE + 1)]
        for _ in range(lanes):
            self.add_lane()
        self.jobs: dict[int, JobBook] = {}
        self.timers = TimerHeap()
        self.sleeps = Sleeps()
        self.look_due: float | None = None  #: when to look at the clock, while a limit is running
        #: What becomes of an item, or a job's setup on a lane, whose try has failed: the only place where chance and
        #: the types of users' errors count.
        self.decide: Decide = decide or (lambda policy, attempt, error: policy.decide(attempt, error, rng))
        self.engine = engine
        self.max_items_per_worker = max_items_per_worker
        self.max_memory = max_memory  #: bytes of private memory that a worker may have
        self.headroom = Headroom()
        self.base_warned = False  #: it was said that workers have too much before they run anything
        self.any_apart = False  #: some item has to run apart, or had to
        self.apart_since: float | None = None  #: since when an item waits to run apart
        self.held = False  #: nothing more is sent to idle lanes for now
        self.now = 0.0
        self.opened = False
        self.absent: set[int] = set()  #: lanes that there is no room for, or that are not wanted any more
        self.most_lanes: int | None = None  #: lanes from this number on are not wanted any more; None: all are
        self.has_initializer = has_initializer  #: new workers run something before their first chunk
        self.init_error: BaseException | None = None  #: what the initializer raised last, where no worker got past it
        self.init_text = ""  #: that error, as text
        self.closing = False
        self.draining = False  #: closing, and what runs has a limited time: see `mpqueue._core.rules.draining`
        self.no_lanes_since: float | None = None
        self.ever_ready = False  #: some worker has answered
        self.last_start_error: BaseException | None = None
        self.has_suspects = False  #: there were groups of suspects: see `mpqueue._core.rules.isolation`
        self.steal_due: float | None = None  #: when stuck items are looked for
        self.commands: list[Command] = []
        #: What is not needed any more. To free it may run any code, so whoever takes it frees it elsewhere.
        self.unneeded: list[object] = []

    def let_go(self, error: object) -> None:
        """This error, of a class of users' perhaps, is not needed any more."""
        if error is not None:
            self.unneeded.append(error)

    def take_unneeded(self) -> list[object]:
        """What has become so since the last time."""
        taken, self.unneeded = self.unneeded, []
        return taken

    @property
    def present(self) -> int:
        """How many lanes there are, but for those that there is no room for."""
        return len(self.lanes) - len(self.absent)

    def live_lane(self, number: int, generation: int) -> LaneBook | None:
        """The lane, None where that generation of it is history."""
        lane = self.lanes[number]
        return lane if lane.generation == generation else None

    def add_lane(self) -> LaneBook:
        """One more lane; its worker is still to be started."""
        lane = LaneBook(len(self.lanes))
        self.lanes.append(lane)
        self.at_depth[0].add(lane.number)
        return lane

    def lanes_at(self, depth: int) -> list[LaneBook]:
        """The lanes that hold so many chunks, in order."""
        return [self.lanes[number] for number in sorted(self.at_depth[depth])]

    def lanes_at_work(self) -> list[LaneBook]:
        """The lanes that hold chunks, in order."""
        idle = self.at_depth[0]
        return [lane for lane in self.lanes if lane.number not in idle] if len(idle) < len(self.lanes) else []

    def add_chunk(self, lane: LaneBook, chunk: Chunk) -> None:
        """The chunk goes onto the lane."""
        job, depth = chunk.job, len(lane.chunks)
        if not depth:
            job.lanes_held += 1
            lane.free_at = self.now
        lane.free_at += chunk.expected
        lane.chunks.append(chunk)
        self.at_depth[depth].remove(lane.number)
        self.at_depth[depth + 1].add(lane.number)
        job.chunks_out += 1
        job.items_out += chunk.end - chunk.reported
        job.seconds_expected += chunk.expected

    def remove_chunk(self, lane: LaneBook, chunk: Chunk) -> None:
        """The chunk has left the lane; whatever of it did not run has to be put back by the caller."""
        job, depth = chunk.job, len(lane.chunks)
        lane.chunks.remove(chunk)
        self.at_depth[depth].remove(lane.number)
        self.at_depth[depth - 1].add(lane.number)
        job.chunks_out -= 1
        job.items_out -= chunk.end - chunk.reported
        job.seconds_expected -= chunk.expected
        lane.free_at = self.now + sum(left.expected for left in lane.chunks)
        if not lane.chunks:
            job.lanes_held -= 1

    def note_reported(self, chunk: Chunk, done: int, *, final: bool) -> None:
        """The chunk's positions below ``done`` have ended; ``final``: it has left its lane by now."""
        if not final:
            chunk.job.items_out -= done - chunk.reported
        chunk.reported = done

    def seconds_held(self, job: JobBook) -> float:
        """How long the job's lanes should be busy with what they hold, all together."""
        now = self.now
        return sum(lane.free_at - now for lane in self.lanes if lane.free_at > now and lane.job is job)

    @property
    def workers_wear_out(self) -> bool:
        """True where a worker may have to be replaced because of what it has run, or to go."""
        return self.max_items_per_worker is not None or self.max_memory is not None or self.most_lanes is not None

    def idle(self, lane: LaneBook) -> bool:
        """True where the lane could take a chunk at once and has none."""
        return lane.state is LaneState.READY and not lane.chunks and not self.worn_out(lane)

    def worn_out(self, lane: LaneBook) -> bool:
        """True where the lane's worker has had all that one worker may have, or too much memory, or is surplus."""
        if lane.bloated or self.is_surplus(lane):
            return True
        return self.max_items_per_worker is not None and lane.tries > self.max_items_per_worker - _ROUNDING

    def is_surplus(self, lane: LaneBook) -> bool:
        """True where the lane's worker is not wanted any more."""
        return self.most_lanes is not None and lane.number >= self.most_lanes

    def room(self, lane: LaneBook, job: JobBook) -> int | None:
        """How many of the job's items the lane's worker may still have; None: any number."""
        if self.max_items_per_worker is None:
            return None
        return int((self.max_items_per_worker - lane.tries) * job.options.items_per_task + _ROUNDING) or 1

    def count_tries(self, lane: LaneBook, job: JobBook, items: int) -> None:
        """The lane's worker was given so many items of the job; fewer than none: has handed them back."""
        lane.tries += items / job.options.items_per_task
