"""The engine without processes, threads and waiting: the real scheduler, workers that pretend, and a clock of its own.

`FakeLanes` stands where the coordinator and the pool stand, and carries out the scheduler's commands as they do. What
takes time is an entry in its calendar; `run` and its kin go from one entry, or deadline of the scheduler, to the next.
The same calls give the same history, down to the last command::

    fleet = FakeLanes(2)
    job = fleet.job([succeed(0.5), fail(), crash()])
    fleet.start(job)
    fleet.run_until_over(job)
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mpqueue._core.commands import (
    AnnounceFinished,
    AnnounceItems,
    AnnounceStarted,
    AnnounceState,
    Capabilities,
    Command,
    ForgetJob,
    GiveUpAnswer,
    HurryJob,
    InitializeLane,
    KillLane,
    LowerLimit,
    ObserveLane,
    RecycleLane,
    RetireLane,
    SendChunk,
    SetFlags,
    StartLane,
    TellDemand,
    Warn,
)
from mpqueue._core.messages import (
    ChunkPacked,
    ChunkPacking,
    ChunkRefused,
    ChunkSent,
    FailedItemsReset,
    ItemsAdded,
    ItemsDropped,
    JobCancelled,
    JobHeldBack,
    JobPaused,
    JobResumed,
    JobSealed,
    JobStartAsked,
    LaneAbsent,
    LaneInitialized,
    LaneObserved,
    LaneReady,
    LanesResized,
    LaneStartFailed,
    LanesWanted,
    MemoryRead,
    Message,
    QueueClosing,
    QueueOpened,
    Slept,
    TimePassed,
    WorkerMemory,
)
from mpqueue._core.scheduler import Scheduler
from mpqueue._core.state.books import NOTHING
from mpqueue._core.state.item_table import Failure, ItemTable, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.pipeline import Pipeline
from mpqueue._core.state.resources import JobNeeds
from mpqueue._options import JobOptions
from mpqueue._wire.item_names import IdRule
from mpqueue._wire.parcels import AddedItems
from mpqueue.errors import ItemPicklingError, shown
from mpqueue.retry import RetryPolicy
from mpqueue.status import ITEM_CODES
from mpqueue.testing import FakeClock
from tests.support.fake_worker import FakeWorker, Handler, Item, Outcome, Packing, Try

Announcement = AnnounceStarted | AnnounceItems | AnnounceState | AnnounceFinished
Watcher = Callable[[Message, list[Command]], None]

#: Steps at one instant for which nothing but the scheduler's own deadline was the cause: more of them are a livelock.
#: Ten thousand lanes get their first chunks in forty.
MOST_STEPS_AT_ONCE = 60
#: Seconds between two looks at the memory; only where it is limited.
LOOK_SECONDS = 0.25
#: Bytes of the machine's memory.
MEMORY = 10_000

#: Looks at a lane's ledger in one step that only follow from each other.
MOST_LOOKS_AT_ONCE = 10


# -- items that say what they do -----------------------------------------------------------------------------------


def succeed(seconds: float = 0.0) -> Item:
    """An item that takes so long."""
    return Item((Try(seconds),))


def bring(item: Item, *adds: Item) -> Item:
    """The same, and its result brings others along."""
    return replace(item, adds=adds)


def fail(seconds: float = 0.0, *, times: int | None = None, error: BaseException | None = None) -> Item:
    """An item whose first ``times`` tries (None: all) raise."""
    bad = Try(seconds, Outcome.FAILURE, ValueError("no") if error is None else error)
    return Item((bad,) if times is None else (*[bad] * times, Try(seconds)))


def crash(seconds: float = 0.0, *, times: int | None = None) -> Item:
    """An item whose first ``times`` tries (None: all) take the worker with them."""
    bad = Try(seconds, Outcome.CRASH)
    return Item((bad,) if times is None else (*[bad] * times, Try(seconds)))


def spoil(seconds: float = 0.0, *, times: int | None = None) -> Item:
    """An item of whose first ``times`` tries (None: all) the worker dies before it can answer."""
    bad = Try(seconds, Outcome.SPOIL)
    return Item((bad,) if times is None else (*[bad] * times, Try(seconds)))


def hang(*, times: int | None = None) -> Item:
    """An item whose first ``times`` tries (None: all) do not end."""
    bad = Try(0.0, Outcome.HANG)
    return Item((bad,) if times is None else (*[bad] * times, Try()))


def hog(needs: int, seconds: float = 3.0) -> Item:
    """An item that needs so much memory, a worker without any having `BASE`."""
    return Item((Try(seconds),), needs=needs)


def leak(keeps: int, seconds: float = 0.0) -> Item:
    """An item that leaves so much memory in its worker."""
    return Item((Try(seconds),), needs=keeps, keeps=keeps)


def packed(packing: Packing) -> Item:
    """An item that is never run, for want of being pickled or unpickled."""
    return Item((Try(),), packing)


# -- the engine ----------------------------------------------------------------------------------------------------


class FakeLanes:
    """A scheduler and its lanes.

    ``latency`` is the seconds that a frame or a message is under way between a worker and the scheduler; what is in
    shared memory (the ledger, flags, limits) is seen at once. Starting a worker takes ``start_seconds``, killing one
    ``kill_seconds``; to pickle a chunk takes ``pack_seconds``, on a thread of its job's own. None: it is done at once,
    where items are sent.
    """

    def __init__(
        self,
        lanes: int,
        *,
        latency: float = 0.0,
        start_seconds: float = 0.1,
        kill_seconds: float = 0.0,
        pack_seconds: float | None = None,
        max_items_per_worker: int | None = None,
        max_memory: int | None = None,
        seed: int = 0,
        fate_of: Callable[[int], Hashable] = lambda _: None,
        is_blind: bool = False,
        engine: Capabilities = Capabilities(),  # noqa: B008 - frozen
        resources: Mapping[str, int] = NOTHING,
        device: str | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.scheduler = Scheduler(
            lanes,
            random.Random(seed),
            max_items_per_worker=max_items_per_worker,
            max_memory_per_worker=max_memory,
            engine=engine,
            resources=resources,
            device=device,
        )
        self.books = self.scheduler.books
        self.latency = latency
        self.start_seconds = start_seconds
        self.start_seconds_of: dict[int, float] = {}  #: of lanes whose starts take another time
        self.kill_seconds = kill_seconds
        self.item_bytes = 100  #: on their way to a worker
        self.pack_seconds = pack_seconds
        self._packed: set[Chunk] = set()  #: those that wait, pickled, for a lane
        self._forgotten: dict[tuple[int, int], list[int]] = {}  #: by lane: jobs that its next chunk lets go
        self._packers: dict[int, float] = {}  #: by job: when its thread is done with what it has now
        self.workers: list[FakeWorker | None] = [None] * lanes
        self.fate_of = fate_of  #: by lane's number: those of one fate die together
        self.is_blind = is_blind  #: nobody can read the ledger of a dead worker
        self.broken: set[int] = set()  #: lanes whose workers can't be started
        self.lasting = False  #: ... for a reason that doesn't pass by itself
        self.full: set[int] = set()  #: lanes that there is no room for
        self.awaited: set[int] = set()  #: those of them that have it as soon as others leave
        self.told: list[Announcement] = []
        self.warnings: list[str] = []
        self.demands: list[TellDemand] = []  #: where the engine follows them
        self.counts: Counter[type] = Counter()  #: messages and commands so far, by type
        self.watchers: list[Watcher] = []  #: called after each step of the scheduler
        self.chunks: list[Chunk] = []  #: those that were sent so far
        self.begun: list[tuple[JobBook, int]] = []  #: the items that have begun so far, each time that they did
        self.item_watchers: list[Callable[[Chunk, int, int], None]] = []  #: called when items begin: from, to
        self._calendar: list[tuple[float, int, FakeWorker | None, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._pids = itertools.count(1000)
        self._numbers = itertools.count(1)
        self._more: deque[Message] = deque()
        self.loads: list[tuple[int, float]] = []  #: the lane and the moment of each loading that has begun
        self._loads: Counter[tuple[int, int]] = Counter()
        self._steps_at_once = 0
        self._initialize: Callable[[int], Try] | None = None
        self.available = MEMORY  #: bytes of the machine's memory that are free
        self.unpickling_since: float | None = None  #: since when answers of the workers are being unpickled
        self._looks = False
        self._actions: dict[type, Callable[[Any], None]] = {
            StartLane: self._start_lane,
            InitializeLane: self._initialize_lane,
            RecycleLane: self._recycle_lane,
            RetireLane: self._retire_lane,
            KillLane: self._kill_lane,
            TellDemand: self.demands.append,
            SendChunk: self._send_chunk,
            ForgetJob: self._forget_job,
            SetFlags: self._set_flags,
            LowerLimit: self._lower_limit,
            ObserveLane: self._observe_lane,
            GiveUpAnswer: lambda _: None,
            HurryJob: lambda _: None,
            Warn: lambda command: self.warnings.append(command.text),
            AnnounceStarted: self.told.append,
            AnnounceItems: self.told.append,
            AnnounceState: self.told.append,
            AnnounceFinished: self.told.append,
        }

    # -- what users do -----------------------------------------------------------------------------------------

    def job(
        self,
        items: Iterable[Item],
        *,
        load: Callable[[int, int], Try] | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        setup_timeout: float | None = None,
        priority: int = 0,
        chunksize: int | None = None,
        max_lanes: int | None = None,
        needs: JobNeeds | None = None,
        **more: Any,
    ) -> JobBook:
        """Create a job; ``load`` is what loading its handler does, by lane and how often it was done there."""
        options = JobOptions(
            retry or RetryPolicy(), timeout, setup_timeout, max_lanes, priority=priority, chunksize=chunksize, **more
        )
        book = self._book(make_table(items), options, Handler(load))
        if needs is not None:
            book.need(needs)
        return book

    def started(self, items: Iterable[Item], **options: Any) -> JobBook:
        """Create a job and start it; options as for `job`."""
        book = self.job(items, **options)
        self.start(book)
        return book

    def run(self, items: Iterable[Item], **options: Any) -> JobBook:
        """Create a job, start it, and let things happen until it is over; options as for `job`."""
        book = self.started(items, **options)
        self.run_until_over(book)
        return book

    def run_all(self, *jobs: JobBook) -> None:
        """Start jobs, and let things happen until they are over."""
        self.start(*jobs)
        self.run_until_over(*jobs)

    def stream(self, *, retry: RetryPolicy | None = None, max_lanes: int | None = None) -> JobBook:
        """Start a job whose items are added while it runs."""
        book = self._book(ItemTable.of_stream(), JobOptions(retry or RetryPolicy(), max_lanes=max_lanes), Handler())
        book.sealed = False
        self.start(book)
        return book

    def open_job(self, items: Iterable[Item], *, retry: RetryPolicy | None = None) -> JobBook:
        """Create a job with these items, which may get more, also from their results."""
        table = ItemTable([*items], None, IdRule.POSITION, grows=True)
        book = self._book(table, JobOptions(retry or RetryPolicy()), Handler())
        book.sealed = False
        return book

    def stages(
        self,
        items: Iterable[Item],
        loads: Sequence[Callable[[int, int], Try] | None],
        *,
        most: int | None = None,
        ordered: bool | Sequence[bool] = False,
        most_lanes: int | None = None,
        retry: RetryPolicy | None = None,
        **options: Any,
    ) -> JobBook:
        """Create a pipeline with a stage for each of the ``loads``; returns its head. ``ordered``: all, or each."""
        head = self._book(make_table(items), JobOptions(RetryPolicy(max_retries=0), max_lanes=most_lanes), Handler())
        jobs = []
        for place, load in enumerate(loads):
            table = ItemTable([], None, IdRule.POSITION, grows=True)
            if not place:
                table = ItemTable(head.table.payloads, None, IdRule.POSITION)
            jobs.append(self._book(table, JobOptions(retry or RetryPolicy(), **options), Handler(load)))
        in_order = [ordered] * len(jobs) if isinstance(ordered, bool) else ordered
        Pipeline(head, jobs, [(f"stage {place}", most, in_order[place]) for place in range(len(jobs))])
        return head

    def offer(self, job: JobBook, items: Iterable[Item]) -> None:
        """Add items to an open job."""
        added = AddedItems([*items], None)
        if job.active:
            job.table.take_in(added, IdRule.POSITION)
            self.handle(ItemsAdded(job, added.new))
        else:
            job.take_in(added, IdRule.POSITION)

    def _book(self, table: ItemTable, options: JobOptions, handler: Handler) -> JobBook:
        number = next(self._numbers)
        return JobBook(number, f"job-{number}", table, options, handler)

    def start(self, *jobs: JobBook) -> None:
        """Start jobs, and the workers where these are the first."""
        for job in [member for given in jobs for member in given.family]:
            if not self.books.opened:
                self.handle(QueueOpened())
            self.handle(JobStartAsked(job, self.clock.wall()))
            self._look_from_now_on()

    def pause(self, job: JobBook) -> None:
        """Pause a job."""
        self.handle(JobPaused(job))

    def resume(self, job: JobBook) -> None:
        """Resume a job."""
        self.handle(JobResumed(job))

    def hold_back(self, job: JobBook, *, held: bool) -> None:
        """Too much of what the job has done waits in one place, or not any more."""
        self.handle(JobHeldBack(job, held))

    def cancel(self, job: JobBook, *, kill: bool = False, why: str | None = None) -> None:
        """Cancel a job."""
        self.handle(JobCancelled(job, self.clock.wall(), kill, why))

    def retry_failed(self, job: JobBook, indices: Sequence[int] | None = None) -> None:
        """Run a job's failed items again, or these of them."""
        self.handle(FailedItemsReset(job, self.clock.wall(), None, indices))
        self._look_from_now_on()

    def close(self, *, cancel: bool = False, kill: bool = False, within: float | None = None) -> None:
        """Close the queue; ``within``: drain it."""
        self.handle(QueueClosing(self.clock.wall(), cancel, kill, within))

    def add(self, stream: JobBook, items: Iterable[Item]) -> None:
        """Add items to a stream."""
        self.handle(ItemsAdded(stream, stream.table.add([*items])))

    def seal(self, stream: JobBook) -> None:
        """No more items will come."""
        self.handle(JobSealed(stream))

    def drop(self, job: JobBook, *indices: int, kill: bool = False) -> None:
        """Cancel these items."""
        self.handle(ItemsDropped(job, indices, kill))

    def want(self, lanes: int) -> None:
        """Let there be at least so many lanes."""
        self.workers.extend([None] * (lanes - len(self.workers)))
        self.handle(LanesWanted(lanes))

    def resize(self, lanes: int, *, kill: bool = False) -> None:
        """Let there be so many lanes, no more."""
        self.workers.extend([None] * (lanes - len(self.workers)))
        self.handle(LanesResized(lanes, kill))

    # -- what the world does -----------------------------------------------------------------------------------

    def kill(self, lane: int) -> None:
        """Kill a lane's worker from outside."""
        worker = self.workers[lane]
        if worker is not None:
            worker.die()

    def let_memory_be(self, available: int) -> None:
        """From now on so much of the machine's memory is free, of `MEMORY`; seen at once."""
        self.available = available
        if self.books.opened:
            self._look()

    def _look_from_now_on(self) -> None:
        if self.books.max_memory is not None and not self._looks:
            self._looks = True
            self.call_at(self.now + LOOK_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._looks = bool(self.books.jobs)
        if self._looks:
            self._look()
            self.call_at(self.now + LOOK_SECONDS, self._look_again)

    def _look(self) -> None:
        """Look at all memory, as the sampler does."""
        workers = [
            WorkerMemory(worker.lane, worker.generation, worker.used, worker.base, worker.claim)
            for worker in self.workers
            if worker is not None and worker.alive
        ]
        self.handle(MemoryRead(workers, self.available, MEMORY))

    # -- time --------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The time."""
        return self.clock.now()

    @property
    def next_moment(self) -> float:
        """When something happens next; infinity: never."""
        entered = self._calendar[0][0] if self._calendar else math.inf
        deadline = self.scheduler.deadline
        return max(self.now, min(entered, math.inf if deadline is None else deadline))

    def step(self) -> None:
        """Let the next thing happen."""
        moment = self.next_moment
        assert moment < math.inf, "nothing will ever happen"
        self._pass_time(moment)
        if self._calendar and self._calendar[0][0] <= moment:
            _, _, worker, turn, call = heapq.heappop(self._calendar)
            self._steps_at_once = 0
            if worker is None or worker.turn == turn:
                call()
        else:
            self._steps_at_once += 1
            assert self._steps_at_once <= MOST_STEPS_AT_ONCE, f"the scheduler goes round in circles at {moment}"
            self.handle(TimePassed())

    def run_until(self, moment: float) -> None:
        """Let everything happen up to a moment, which is the time afterwards."""
        while self.next_moment <= moment:
            self.step()
        self._pass_time(moment)

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.run_until(self.now + seconds)

    def run_while(self, condition: Callable[[], object], *, limit: float = 1e6) -> None:
        """Let things happen as long as the condition is true, at most so many seconds."""
        end = self.now + limit
        while condition():
            assert self.next_moment <= end, f"still not over after {limit} seconds"
            self.step()

    def run_until_over(self, *jobs: JobBook, limit: float = 1e6, at_rest: bool = True) -> None:
        """Let things happen until the jobs have ended and (unless told otherwise) all workers are at rest."""
        self.run_while(lambda: not all(job.status.final for job in jobs), limit=limit)
        self.run_while(lambda: at_rest and not self.at_rest, limit=limit)

    def run_until_ready(self) -> None:
        """Let things happen until all workers have started."""
        self.run_while(lambda: not all(self.workers))

    def sleep(self, seconds: float, *, workers_late: float = 0.0) -> None:
        """Let nobody run for so many seconds; the workers wake that much later."""
        last_step, late = self.books.now, seconds + workers_late
        self._calendar = [(entry[0] + late, *entry[1:]) for entry in self._calendar]
        self._pass_time(self.now + seconds)
        self.handle(Slept(last_step, self.now))

    @property
    def at_rest(self) -> bool:
        """True where no worker has anything to do, and no message is under way."""
        busy = any(lane.chunks or lane.forgetting for lane in self.books.lanes)
        return not busy and all(worker is None or worker.idle for worker in self.workers)

    def _pass_time(self, moment: float) -> None:
        while self.now < moment:  # the sum may miss the moment by the last bit
            self._steps_at_once = 0
            self.clock.advance(moment - self.now)

    # -- messages and commands -----------------------------------------------------------------------------------

    def handle(self, message: Message) -> None:
        """Take a message in and carry out what follows from it, as the coordinator does."""
        self._more.append(message)
        answers = 0
        while self._more:
            message = self._more.popleft()
            answers += isinstance(message, LaneObserved)
            assert answers <= MOST_LOOKS_AT_ONCE * len(self.workers), f"looks without end at {self.now}"
            commands = self.scheduler.handle(message, self.now)
            self.counts[type(message)] += 1
            for command in commands:
                self.counts[type(command)] += 1
                self._actions[type(command)](command)
            for watcher in self.watchers:
                watcher(message, commands)

    def post(self, message: Message) -> None:
        """A worker says something; it arrives after the latency."""
        self.call_at(self.now + self.latency, lambda: self.handle(message))

    def call_at(self, moment: float, call: Callable[[], None], worker: FakeWorker | None = None) -> None:
        """Enter a call into the calendar; one of a worker counts only if that is still in the same turn then."""
        turn = 0 if worker is None else worker.turn
        heapq.heappush(self._calendar, (moment, next(self._serial), worker, turn, call))

    def _send(self, frame: SendChunk | ForgetJob) -> None:
        worker = self._live(frame.lane, frame.generation)
        if worker is not None:
            items: list[Item] = []
            forgotten: list[int] = []
            if isinstance(frame, SendChunk):
                items = frame.chunk.job.table.payloads_of(frame.chunk.indices)
                forgotten = self._forgotten.pop((frame.lane, frame.generation), [])
            self.call_at(self.now + self.latency, lambda: worker.receive(frame, items, forgotten))

    def _send_chunk(self, command: SendChunk) -> None:
        chunk, seconds = command.chunk, self.pack_seconds
        payloads = chunk.job.table.payloads
        refused = {
            position: Failure(ItemPicklingError("unpicklable"), charged=False)
            for position, index in enumerate(chunk.indices)
            if payloads[index].packing is Packing.UNPICKLABLE
        }
        if refused or (seconds is not None and chunk not in self._packed):
            self._more.append(ChunkPacking(command.lane, command.generation, chunk.number))
            done_at = max(self.now, self._packers.get(chunk.job.number, 0.0)) + (seconds or 0.0)
            self._packers[chunk.job.number] = done_at
            self.call_at(done_at, lambda: self._chunk_packed(chunk, refused))
            return
        self._packed.discard(chunk)
        self.chunks.append(chunk)
        size = self.item_bytes * len(chunk.indices)
        self._more.append(ChunkSent(command.lane, command.generation, chunk.number, size, 0.0, self.now))
        self._send(command)

    def _chunk_packed(self, chunk: Chunk, refused: dict[int, Failure]) -> None:
        if chunk not in chunk.job.packing:
            return  # nobody wants it any more
        if refused:
            self.handle(ChunkRefused(chunk.job, refused))
        else:
            self._packed.add(chunk)
            self.handle(ChunkPacked(chunk.job))

    def _forget_job(self, command: ForgetJob) -> None:
        if command.at_once:
            self._send(command)
        else:  # with the next chunk that is sent, not with one that is under way
            self._forgotten.setdefault((command.lane, command.generation), []).append(command.job.number)

    def _start_lane(self, command: StartLane) -> None:
        lane, generation = command.lane, command.generation

        def started() -> None:
            if lane in self.broken:
                self.post(LaneStartFailed(lane, generation, OSError("no worker today"), lasting=self.lasting))
                return
            if lane in self.full:
                self.post(LaneAbsent(lane, generation, lane in self.awaited))
                return
            worker = self.workers[lane] = FakeWorker(self, lane, generation, next(self._pids))
            self.post(LaneReady(lane, generation, worker.pid, self.fate_of(lane)))

        self.call_at(self.now + self.start_seconds_of.get(lane, self.start_seconds), started)

    def make_room(self, lane: int) -> None:
        """There is room for that lane's worker after all."""
        self.full.discard(lane)
        self._start_lane(StartLane(lane, self.books.lanes[lane].generation))

    def fellows(self, worker: FakeWorker) -> list[FakeWorker]:
        """The workers that die with this one, itself among them."""
        fate = self.fate_of(worker.lane)
        others = [other for other in self.workers if other is not None and other.alive and other is not worker]
        return [worker, *(other for other in others if fate is not None and self.fate_of(other.lane) == fate)]

    def initialize_with(self, initialize: Callable[[int], Try]) -> None:
        """Give the pool an initializer, before anything is started: what it does, by lane."""
        self._initialize = initialize
        self.books.has_initializer = True

    def _initialize_lane(self, command: InitializeLane) -> None:
        lane, generation = command.lane, command.generation
        doing = Try() if self._initialize is None else self._initialize(lane)
        failure = Failure(doing.error, "a traceback") if doing.outcome is Outcome.FAILURE else None

        worker = self._live(lane, generation)
        if worker is not None and worker.alive:
            worker.initializes(ended=False)

        def initialized() -> None:
            worker = self._live(lane, generation)
            if worker is None or not worker.alive:
                return
            if doing.outcome is Outcome.CRASH:
                worker.crash()
            else:
                worker.initializes(ended=True)
                self.post(LaneInitialized(lane, generation, failure, "" if failure is None else shown(failure.error)))

        self.call_at(self.now + doing.seconds, initialized)

    def _recycle_lane(self, command: RecycleLane) -> None:
        worker = self.workers[command.lane]
        if worker is not None and worker.alive:
            assert worker.idle, "only an idle worker is recycled"
            worker.end()
        self.workers[command.lane] = None

    def _retire_lane(self, command: RetireLane) -> None:
        worker = self.workers[command.lane]
        assert worker is not None
        assert not worker.alive
        self.workers[command.lane] = None

    def _kill_lane(self, command: KillLane) -> None:
        worker = self.workers[command.lane]
        if worker is not None:
            stack = "where it was" if command.dump_stack else None
            self.call_at(self.now + self.kill_seconds, lambda: worker.die(stack=stack))

    def _set_flags(self, command: SetFlags) -> None:
        worker = self.workers[command.lane]
        if worker is not None:
            worker.flags = (command.job, command.pause, command.cancel)

    def _lower_limit(self, command: LowerLimit) -> None:
        worker = self.workers[command.lane]
        if worker is not None:
            worker.limits[command.chunk & 1] = (command.chunk, command.position)

    def _observe_lane(self, command: ObserveLane) -> None:
        worker = self._live(command.lane, command.generation)
        if worker is not None:
            self._more.append(LaneObserved(command.lane, command.generation, worker.claim, None, self.unpickling_since))

    def _live(self, lane: int, generation: int) -> FakeWorker | None:
        worker = self.workers[lane]
        return worker if worker is not None and worker.generation == generation else None

    # -- what workers ask ----------------------------------------------------------------------------------------

    def loading(self, job: JobBook, lane: int) -> Try:
        """What loading the job's handler does on that lane this time."""
        self.loads.append((lane, round(self.now, 6)))
        self._loads[job.number, lane] += 1
        load = job.handler.load
        return Try() if load is None else load(lane, self._loads[job.number, lane])

    def items_begin(self, chunk: Chunk, lo: int, hi: int) -> None:
        """A worker begins a stretch of items."""
        self.begun += [(chunk.job, index) for index in chunk.indices[lo:hi]]
        for watcher in self.item_watchers:
            watcher(chunk, lo, hi)


# -- what became of it -----------------------------------------------------------------------------------------------


def statuses(job: JobBook) -> list[str]:
    """The status of each item, as its byte says."""
    return [str(ITEM_CODES[job.table.status[index]]) for index in range(len(job.table))]


def begun(fleet: FakeLanes, job: JobBook | None = None) -> list[int]:
    """The items, of that job alone, that have begun so far; several times, where they were run again."""
    return [index for of, index in fleet.begun if job is None or of is job]


def attempts(job: JobBook) -> list[int]:
    """The tries charged to each item."""
    return [job.table.attempts[index] for index in range(len(job.table))]


def errors(job: JobBook) -> list[type[BaseException] | None]:
    """The type of each item's last error."""
    failures = job.table.failures
    return [type(failures[index].error) if index in failures else None for index in range(len(job.table))]
