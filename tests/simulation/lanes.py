"""An engine of simulated workers: real frames to them and back, `FakeWorker`s between.

A worker keeps its ledger, cuts stretches off and sends early what has finished, as `tests.support.fake_worker` does. A
frame is read as a worker reads it, and an answer is made as a worker makes it; each is under way for a while, but what
is said to a worker, and by one, comes in the order in which it was said. As on loky, answers are read by the
coordinator's thread, and what may run users' code is unpickled by a thread of the lane's own, which may take its time.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from mpqueue import JobQueue
from mpqueue._core.commands import Capabilities, Command, ForgetJob, SendChunk
from mpqueue._core.messages import ChunkReported, JobForgotten, LaneReady, LaneStartFailed, Message
from mpqueue._core.scheduler import Scheduler
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.lane_book import Chunk
from mpqueue._parent.lane_protocol import Answers, LaneSettings, Tell
from mpqueue._wire.frames import (
    ChunkFrame,
    FailureFrame,
    ForgetFrame,
    ForgottenFrame,
    ReportFrame,
    Several,
    dump_frame,
    load_frame,
)
from mpqueue._wire.line import Answer
from mpqueue._wire.memory.ledger import Claim
from mpqueue._wire.parcels import ResultWithItems
from mpqueue._wire.pickling.payload import Packed, dump, dump_plain, load, load_several
from mpqueue._worker.results import pack_failure
from tests.simulation.world import World
from tests.support.fake_worker import FakeWorker, Item, Try


def result_of(index: int, item: Item) -> object:
    """What an item's handler returns."""
    return "x" * item.keeps + str(index)


class SimulatedWorker(FakeWorker):
    """One that has an outbox for one early report."""

    fleet: SimulatedPool  # type: ignore[assignment]

    def _send_early(self) -> None:
        lane = self.fleet.lanes[self.lane]
        if lane is not None and lane.early is None:
            super()._send_early()


class SimulatedLane:
    """One generation of a lane, as the coordinator holds it."""

    def __init__(self, pool: SimulatedPool, worker: SimulatedWorker) -> None:
        self.number, self.generation, self.pid = worker.lane, worker.generation, worker.pid
        self.worker = worker
        self.early: bytes | None = None  #: the outbox
        self.arrives_at = 0.0  #: when what it said last arrives
        self._sent_at = 0.0  #: when what it was sent last arrives
        self._pool = pool
        self.answers = Answers(pool.inbox, self.number)

    def send(self, frame: bytes, tell: Tell) -> None:
        """See `mpqueue._parent.lane_protocol.Lane`, for all of these."""
        read = load_frame(frame)
        if not self.answers.begin(tell) or not self.worker.alive:
            return
        received: SendChunk | ForgetJob
        items: list[Item] = []
        if isinstance(read, ChunkFrame):
            chunk, items = self._pool.chunk_of(self, read)
            received = SendChunk(self.number, self.generation, chunk, read.handler is not None)
        else:
            assert isinstance(read, ForgetFrame)
            received = ForgetJob(self.number, self.generation, self._pool.jobs[read.job], at_once=True)
        self._sent_at = max(self._sent_at, self._pool.now + self._pool.delay())
        self._pool.call_at(self._sent_at, lambda: self.worker.receive(received, items))

    def set_flags(self, job: int, *, pause: bool, cancel: bool) -> None:
        self.worker.flags = (job, pause, cancel)

    def set_limit(self, chunk: int, position: int) -> None:
        self.worker.limits[chunk & 1] = (chunk, position)

    def observe(self, tell: Callable[[Claim], None]) -> None:
        tell(self.worker.claim)

    def peek(self) -> Claim:
        return self.worker.claim

    def _look_into_outbox(self) -> None:
        if self.early is not None:
            self.answers.put(self._take_early)

    def _take_early(self) -> None:
        early, self.early = self.early, None
        self._pool.take_time()
        if early is not None:
            self.answers.early(Answer(early))

    def take_unsent(self) -> bytes:
        return b""

    def kill(self, *, dump_stack: bool = False) -> None:
        stack = "where it was" if dump_stack else None
        self._pool.call_at(self._pool.now + self._pool.kill_seconds, lambda: self.worker.die(stack=stack))

    # -- from the worker -----------------------------------------------------------------------------------------

    def arrive(self, call: Callable[[], object]) -> None:
        """Something that the worker says, after all that it said before."""
        self.arrives_at = max(self.arrives_at, self._pool.now + self._pool.delay())
        self._pool.call_at(self.arrives_at, call)

    def say(self, message: Message) -> None:
        """The worker says that."""
        if isinstance(message, ChunkReported):
            data = dump_frame(_frame_of(message, self._pool.sent[self.number, self.generation, message.chunk]))
            if message.final:
                self._read(partial(self._answer, data))
            else:
                self.early = data
                self.arrive(self._look_into_outbox)
        elif isinstance(message, JobForgotten):
            self._read(partial(self._answer, dump_frame(ForgottenFrame(None))))
        else:
            self._read(partial(self._gone, message))

    def _read(self, take: Callable[[bool], object]) -> None:
        """The coordinator's thread reads that; it, or the lane's own thread, hands it over: it may be plain."""
        plain = self._pool.world.rng.random() < 0.7

        def read() -> None:
            self._look_into_outbox()
            take(plain)

        self.arrive(lambda: self._pool.read_in(read))

    def _answer(self, data: bytes, plain: bool) -> None:
        self.answers.answered(Answer(data, plain))

    def _gone(self, message: Message, plain: bool) -> None:
        put = self.answers.put_plain if plain else self.answers.put
        put(partial(self._bury, message))

    def _bury(self, message: Message) -> None:
        error = EOFError("the worker died")
        self.answers.close(error)
        self.answers.fail_all(error)
        self._pool.post_in(message)
        self.answers.end()


def _frame_of(message: ChunkReported, chunk: Chunk) -> ReportFrame:
    """The report as a worker makes it."""
    payloads, failures = chunk.job.table.payloads, message.failures
    results = [
        result_of(index, payloads[index])
        for at, index in enumerate(chunk.indices[message.first : message.done])
        if at not in failures
    ]
    added = message.added or {}
    for nth, at in enumerate(at for at in range(message.done - message.first) if at not in failures):
        if at in added:
            results[nth] = ResultWithItems(results[nth], [(added[at].items, added[at].ids)])
    packed: Packed | list[Packed] | None = (
        [dump(result) for result in results] if chunk.careful or added else dump_plain(results)
    )
    assert packed is not None
    return ReportFrame(
        chunk=message.chunk,
        first=message.first,
        done=message.done,
        results=packed,
        added=[*added],
        failures={at: _failure(failure) for at, failure in failures.items()},
        stretches=message.stretches,
        busy=message.busy,
        ended=message.ended,
        final=message.final,
        setup_failure=None if message.setup_failure is None else _failure(message.setup_failure),
    )


def _failure(failure: Failure) -> FailureFrame:
    return pack_failure(failure.error, failure.elapsed, charged=failure.charged)


class SimulatedPool:
    """The lanes; for its workers, and for the `Auditor`, it is what `FakeLanes` is."""

    kill_seconds = 0.05
    is_blind = False

    def __init__(self, world: World, settings: LaneSettings, inbox: Any, scheduler: Scheduler, latency: float) -> None:
        self.world = world
        self.scheduler = scheduler
        self.books = scheduler.books
        self.latency = latency
        self.lanes: list[SimulatedLane | None] = [None] * settings.concurrency
        self.workers: list[SimulatedWorker | None] = [None] * settings.concurrency
        self.broken: set[int] = set()  #: lanes whose workers can't be started
        self.jobs: dict[int, Any] = {}  #: by number: those of which a chunk was sent
        self.sent: dict[tuple[int, int, int], Chunk] = {}
        self.watchers: list[Callable[[Message, list[Command]], None]] = []
        self.item_watchers: list[Callable[[Chunk, int, int], None]] = []
        self.start_seconds = 0.1
        self.inbox = inbox
        self._pids = itertools.count(1000)
        self._is_closed = False
        self.loads: Counter[tuple[int, int]] = Counter()

    # -- for the coordinator: see `mpqueue._parent.lane_protocol.LanePool` --------------------------------------------

    def tell_demand(self, lanes: int, seconds: float) -> None:
        """All lanes are there, whatever waits."""

    def start(self, number: int, generation: int) -> None:
        def started() -> None:
            if number in self.broken:
                self.post_in(LaneStartFailed(number, generation, OSError("no worker today")))
                return
            worker = self.workers[number] = SimulatedWorker(self, number, generation, next(self._pids))  # type: ignore[arg-type]
            lane = self.lanes[number] = SimulatedLane(self, worker)
            lane.arrive(lambda: self.post_in(LaneReady(number, generation, worker.pid)))

        self.call_at(self.now + self.start_seconds, started)

    def await_starts(self) -> None:
        raise NotImplementedError

    def lane(self, number: int) -> SimulatedLane | None:
        return self.lanes[number]

    def recycle(self, number: int) -> None:
        self._let_go(number)

    def retire(self, number: int) -> None:
        self._let_go(number)

    def _let_go(self, number: int) -> None:
        worker, lane = self.workers[number], self.lanes[number]
        self.workers[number] = self.lanes[number] = None
        if worker is not None:
            worker.end()
        if lane is not None:
            lane.answers.end()

    def close(self, *, kill: bool) -> None:
        self._is_closed = True
        for number in range(len(self.lanes)):
            self._let_go(number)

    # -- for workers ---------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return self.world.time

    def delay(self) -> float:
        """Seconds that a frame or an answer is under way."""
        return self.latency * self.world.rng.choice((0.0, 1.0, 1.0, 1.0, 20.0))

    def call_at(self, moment: float, call: Callable[[], object], worker: FakeWorker | None = None) -> None:
        turn = 0 if worker is None else worker.turn

        def happen() -> None:
            if not self._is_closed and (worker is None or worker.turn == turn):
                call()

        self.world.call_at(moment, happen)

    def post(self, message: Any) -> None:
        """A worker says something."""
        lane = self.lanes[message.lane]
        if lane is not None and lane.generation == message.generation:
            lane.say(message)

    def post_in(self, message: Message) -> None:
        """It is there."""
        self.inbox.post(message)

    def read_in(self, reader: Callable[[], object]) -> None:
        """A descriptor is ready."""
        self.inbox.readers.append(reader)

    def take_time(self) -> None:
        """A thread does what may take its time."""
        self.world.wait(lambda: False, self.delay())

    def fellows(self, worker: FakeWorker) -> list[FakeWorker]:
        return [worker]

    def loading(self, job: Any, lane: int) -> Try:
        self.loads[job.number, lane] += 1
        return Try()

    def items_begin(self, chunk: Chunk, lo: int, hi: int) -> None:
        for watcher in self.item_watchers:
            watcher(chunk, lo, hi)

    def chunk_of(self, lane: SimulatedLane, frame: ChunkFrame) -> tuple[Chunk, list[Item]]:
        """The chunk that the frame brings, and its items; it must say of it what the books say."""
        chunk = self.books.lanes[lane.number].find(frame.chunk)
        assert chunk is not None
        assert [*frame.indices] == [*chunk.indices]
        assert [*frame.attempts] == [*chunk.attempts]
        packed = frame.items
        if isinstance(packed, Several):
            items = load_several(packed.each)
        else:
            items = [load(one) for one in packed] if isinstance(packed, list) else load(packed)
        payloads = chunk.job.table.payloads_of(chunk.indices)
        assert [item.needs for item in items] == [payload.needs for payload in payloads]
        self.jobs[chunk.job.number] = chunk.job
        self.sent[lane.number, lane.generation, chunk.number] = chunk
        return chunk, payloads


class SimulatedBackend:
    """The engine, as ``JobQueue(backend=...)`` takes it."""

    capabilities = Capabilities()

    def __init__(self, world: World, latency: float, on_open: Callable[[SimulatedPool], object]) -> None:
        self._world, self._latency, self._on_open = world, latency, on_open
        self.scheduler: Scheduler | None = None  #: set by `queue_in`

    def count_workers(self) -> int:
        return 1

    def open(self, settings: LaneSettings, inbox: Any) -> SimulatedPool:
        assert self.scheduler is not None
        pool = SimulatedPool(self._world, settings, inbox, self.scheduler, self._latency)
        self._on_open(pool)
        return pool


def queue_in(
    world: World,
    lanes: int,
    latency: float,
    on_open: Callable[[SimulatedPool], object] = lambda _: None,
    **options: Any,
) -> Any:
    """A queue whose workers are simulated ones of that world."""
    backend = SimulatedBackend(world, latency, on_open)
    queue: Any = JobQueue(lanes, backend=backend, **options)
    backend.scheduler = queue._engine._scheduler
    return queue
