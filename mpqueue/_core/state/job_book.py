"""The books of one job: its items, its state, its waiting and running items.

Only the scheduler writes them (and so only the coordinator's thread); the users' `Job` is a view of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from mpqueue._core.rules.chunking import ChunkSizer
from mpqueue._core.state.item_table import Failure, ItemTable
from mpqueue._core.state.lane_book import BusyTime
from mpqueue._core.state.pending import Care, LongestFirst, PendingItems
from mpqueue._core.state.pipeline import Path, Pipeline, StageBook
from mpqueue._core.state.resources import JobNeeds
from mpqueue._core.state.timings import PastRun, Timings
from mpqueue._options import JobOptions
from mpqueue._wire.item_names import IdRule
from mpqueue._wire.parcels import AddedItems
from mpqueue.errors import InternalError, SinkError, WorkerCrashedError, WorkerStartError
from mpqueue.status import COMPLETED, FAILED, JobStatus

if TYPE_CHECKING:
    from mpqueue._core.state.lane_book import Chunk

#: The number of workers that an item has to kill until its tries run on a lane with nothing else.
POISON = 2
NOBODY: Mapping[int, Care] = {}


@dataclass(slots=True)
class SetupRecord:
    """The record of a job's ``setup`` on one lane. ``again_at``: when it may be tried again; None: never."""

    failures: int = 0
    again_at: float | None = 0.0


class ResultDelivery(Protocol):
    """A job's way of delivering results to a sink, opaque here. ``error``: why not all of them got there."""

    @property
    def error(self) -> SinkError | None: ...


class Samples(Protocol):
    """The samples of a job's handler in all workers, opaque here."""

    def begin(self) -> None:
        """Begin again, as the job starts: earlier runs do not count any more."""

    def keep(self, lane: int, indices: Sequence[int], data: bytes) -> None:
        """Add a worker's samples of these items."""


@dataclass(eq=False)
class JobBook:
    """One job. ``number`` is its place in the queue's history, by which workers know it."""

    number: int
    id: str
    table: ItemTable
    options: JobOptions
    handler: Any  #: the packed handler, opaque here except for its ``light``
    status: JobStatus = JobStatus.PENDING
    cancelled: bool = False
    killed: bool = False  #: since it was started
    completed: int = 0
    failed: int = 0
    retries: int = 0  #: failed tries that were followed by another, or were to be
    spoke: bool = False  #: one of its handlers has logged something
    started_at: float | None = None
    finished_at: float | None = None
    duration: float | None = None
    started_mono: float = 0.0
    epoch: int = 0  #: how often it was started; timers of an older epoch mean nothing
    items_out: int = 0  #: items in chunks on lanes that have not ended, as far as known
    lanes: int = 0  #: the lanes that hold chunks of it, as a set (`mpqueue._core.state.lane_book`)
    lanes_to_follow: int = 0  #: those among them that may get another chunk in advance
    lanes_to_rob: int = 0  #: those among them that may hold items not begun
    lanes_used: int = 0  #: the lanes that ever were sent chunks of it
    busy: BusyTime | None = None  #: of its lanes, from its first use on
    seconds_used: float = 0.0  #: worker seconds, for fairness
    seconds_expected: float = 0.0  #: worker seconds of the items under way
    thefts_unbegun: int = 0  #: how often a chunk that had not begun was taken elsewhere
    setups: dict[int, SetupRecord] = field(default_factory=dict)
    sealed: bool = True  #: False while its user may still add items
    listed: bool = True  #: False if it is not among the queue's jobs: listeners get no events of it
    dropped: set[int] = field(default_factory=set)  #: cancelled items: they must not run again
    #: Its chunks that are on no lane, since code of their items' classes pickles them, which may take any time.
    packing: deque[Chunk] = field(default_factory=deque)
    packed: deque[Chunk] = field(default_factory=deque)  #: the same once pickled: they are sent next
    last_setup_failure: Failure | None = None
    fault: InternalError | None = None  #: the mistake of mpqueue's own that ended it
    held_back: int = 0  #: places that must get room, or be opened, before more of it is sent
    completed_before: int = 0  #: items that had completed before this run
    failed_before: int = 0  #: items that had failed before it
    excused: int = 0  #: items that were cancelled since, and don't count for `max_failures`
    stopped_why: str | None = None  #: the reason for its cancellation, if no user did that
    interrupted: WorkerStartError | None = None  #: set if no worker could be started for it any more
    costs: Sequence[float] | None = None  #: of its items; the costliest go first; None: in their order
    delivery: ResultDelivery | None = None  #: its results' way into a sink, if it has one
    samples: Samples | None = None  #: of its handler; None: it is not sampled
    needs: JobNeeds | None = None  #: of its items, while they run; None: nothing but a worker each
    waits_since: float | None = None  #: since when its next item waits for what it needs; None: it does not
    restored: bool = False  #: it had ended, by a journal, before this process: to start it is only to say so again
    past: PastRun | None = None  #: the run before this one
    retries_before: int = 0  #: the part of ``retries`` from runs before this one
    tries_before: Mapping[int, int] = field(default_factory=dict)  #: by index: tries of earlier runs in the history
    in_order: bool = False  #: its lanes get no chunk in advance: items that a worker hands back would run after that
    stage: StageBook | None = None  #: its stage of a pipeline, if it is one
    pipeline: Pipeline | None = None  #: the pipeline of which it is the head

    def __post_init__(self) -> None:
        self.order_by(self.costs)
        self.sizer = ChunkSizer(self.options.chunksize)
        self.timings = Timings()

    def order_by(self, costs: Sequence[float] | None) -> None:
        """Send items in the order of falling costs (None: in their own order). Before the start, by the job's maker."""
        self.costs = costs
        self._line_up()

    def need(self, needs: JobNeeds) -> None:
        """Set the items' needs while they run. Before the start, by the job's maker."""
        self.needs = needs
        self._line_up()

    def _line_up(self) -> None:
        kinds = None if self.needs is None else self.needs.of
        self.pending = PendingItems(len(self.table), kinds) if self.costs is None else LongestFirst(self.costs, kinds)

    def remember_run(self) -> None:
        """Count what has ended until now, and its tries, as of earlier runs: the job is to be started (again).

        The run before is remembered if this queue ran it. Costs 0.1 us for each item with a try that failed.
        """
        self._count_as_before()
        self.retries_before = self.retries
        self.tries_before = {index: len(tries) for index, tries in list(self.table.history.items())}
        if self.started_at is not None and self.timings.finished is not None:
            sums = self.timings.sums
            self.past = PastRun(self.started_at, self.duration, sums.cpu or None, sums.items)

    def _count_as_before(self) -> None:
        self.completed_before, self.failed_before = self.completed, self.failed

    @property
    def family(self) -> list[JobBook]:
        """The jobs that are paused, resumed and cancelled together: the head of a pipeline and its stages."""
        pipeline = self.pipeline if self.stage is None else self.stage.pipeline
        return [self] if pipeline is None else [pipeline.head, *pipeline.jobs]

    @property
    def total(self) -> int:
        """The number of items."""
        return len(self.table)

    @property
    def waiting(self) -> int:
        """The number of items that wait for a lane."""
        return len(self.pending) + sum(len(chunk.indices) for line in (self.packing, self.packed) for chunk in line)

    @property
    def lanes_held(self) -> int:
        """The number of lanes that hold chunks of it."""
        return self.lanes.bit_count()

    @property
    def paused(self) -> bool:
        """True while no new item may start because of `pause`."""
        return self.status is JobStatus.PAUSED

    @property
    def active(self) -> bool:
        """True from `start` until the job ends."""
        return self.status in (JobStatus.RUNNING, JobStatus.PAUSED)

    @property
    def has_timeouts(self) -> bool:
        """True if its items, or its setup, have an exact limit of time."""
        return self.options.timeout is not None or self.options.setup_timeout is not None

    @property
    def here(self) -> bool:
        """True, unlike for a job that only a journal has."""
        return True

    @property
    def runnable(self) -> bool:
        """True if an item of it may be dispatched."""
        if self.status is not JobStatus.RUNNING or self.cancelled or self.held_back:
            return False
        if not self.packed and (not len(self.pending) or self.packing):
            return False
        return self.stage is None or self.stage.room > 0

    @property
    def next_care(self) -> Care:
        """The care that the next items to be dispatched need."""
        return self.packed[0].care if self.packed else self.pending.next_care

    @property
    def next_index(self) -> int:
        """The first of the next items to be dispatched. Only if there are some."""
        return self.packed[0].indices[0] if self.packed else self.pending.head

    @property
    def nothing_under_way(self) -> bool:
        """True if every item so far has its final status."""
        return self.completed + self.failed == len(self.table)

    @property
    def all_ended(self) -> bool:
        """True if every item has its final status."""
        return self.sealed and self.nothing_under_way

    def may_have_more(self, lane_job: JobBook | None) -> bool:
        """False if the job, or its pipeline, has as many lanes as it may have.

        A lane that has items of ``lane_job`` already is not counted as new.
        """
        most = self.options.max_lanes
        if most is not None and self.lanes_held >= most and lane_job is not self:
            return False
        return self.stage is None or self.stage.pipeline.may_have_more(lane_job)

    def may_use(self, lane: int, now: float) -> bool:
        """False if the job's setup failed on that lane, for now or for good."""
        record = self.setups.get(lane)
        return record is None or (record.again_at is not None and record.again_at <= now)

    def go_on(self, suspects: Mapping[int, Care] = NOBODY) -> None:
        """Continue after the items that have ended before this process, by the table: only the rest runs.

        One of the ``suspects`` may have ended its program: each is handled with its degree of care.
        """
        table = self.table
        self.completed, self.failed = table.status.count(COMPLETED), table.status.count(FAILED)
        self._count_as_before()
        self.pending.clear()
        for stretch in table.unfinished_stretches():
            self.pending.add(stretch)
        # Tries that are in the history, but not counted, are from before `retry_failed`.
        poison = [index for index in table.history if self.is_poison(index) and table.attempts[index] >= POISON]
        careful = dict.fromkeys(poison, Care.ALONE)
        for index, care in suspects.items():
            careful[index] = max(care, careful.get(index, Care.NONE))
        self.pending.remove(careful.keys())
        for index, care in careful.items():
            self.pending.handle_with(index, care)
            if not table.ended(index):
                self.pending.add_due(index)

    def take_in(self, added: AddedItems, rule: IdRule, maker: int | None = None) -> None:
        """Add items to the job, which grows; they wait for a lane, unless it is being cancelled.

        ``maker`` is the index of the item whose handler adds them; None: the user does.
        """
        self.table.take_in(added, rule, maker)
        if not self.cancelled:
            self.pending.add(added.new)

    def take_arrivals(self, arrivals: Sequence[tuple[Path, Any]]) -> None:
        """Add items from the stage before to the job, a stage; not if it is being cancelled."""
        if self.cancelled or self.status.final:
            return
        stage, origins = self.stage, self.table.origins
        assert stage is not None
        assert origins is not None
        origins.note([path for path, _ in arrivals])
        added = AddedItems([value for _, value in arrivals], None)
        self.take_in(added, IdRule.POSITION)
        if cancelled := stage.pipeline.head.dropped:
            stage.unwanted.update(index for index in added.new if origins.input_of[index] in cancelled)

    def is_poison(self, index: int) -> bool:
        """True for an item that has killed so many workers that nothing else should run near it."""
        tries = self.table.history.get(index, ())
        return sum(isinstance(tried.exception, WorkerCrashedError) for tried in tries) >= POISON

    def clear_waiting(self) -> None:
        """Take back all items that wait for a lane."""
        self.waits_since = None
        self.pending.clear()
        self.packing.clear()
        self.packed.clear()

    def drop_pending(self) -> None:
        """Start no more of this job: waiting items become pending."""
        self.clear_waiting()
        self.table.reset_waiting()


# -- The readable side of a job, whose books are here (`JobBook`) or in a journal (`PastJob`). -------------------------


class JobView(Protocol):
    """The books of a job, for reading on any thread. `Job` shows them to users, and reports are made of them.

    Runs before the one of these books count as far as they are known.
    """

    id: str
    options: JobOptions
    status: JobStatus
    sealed: bool  #: False while its user may still add items
    cancelled: bool  #: from `cancel` on
    stopped_why: str | None  #: the reason for its cancellation, if no user did that
    interrupted: WorkerStartError | None  #: set if it could not go on, since no worker could be started
    completed: int
    failed: int  #: items that failed for good
    retries: int  #: failed tries that were followed by another, or were to be
    completed_before: int  #: the part of ``completed`` from earlier runs
    failed_before: int  #: the part of ``failed`` from earlier runs
    retries_before: int  #: the part of ``retries`` from earlier runs
    tries_before: Mapping[int, int]  #: by index: failed tries of an item's history from earlier runs
    started_at: float | None  #: seconds since the epoch
    finished_at: float | None  #: seconds since the epoch
    duration: float | None  #: seconds from its start to its end
    epoch: int  #: how often it was started here
    lanes: int  #: the lanes that have its items, as a set (`mpqueue._core.state.lane_book`)
    past: PastRun | None  #: the run before this one
    timings: Timings  #: empty for a job that another program ran

    @property
    def table(self) -> ItemTable:
        """Its items. Raises `JournalError` if they are in a journal that can't be read."""

    @property
    def total(self) -> int:
        """The number of items."""

    @property
    def paused(self) -> bool:
        """True while no new item may start because of `pause`."""

    @property
    def here(self) -> bool:
        """False for a job that only a journal has."""
