"""One lane under test: commands go to it, messages come from it. The same for a real worker and for the fake one.

A bench stands where the scheduler stands. `RealBench` has the real coordinator below it, loky's lane and a real worker
process; `FakeBench` has `tests.support.fake_lanes`, which stands in for all of these in `tests/unit` and
`tests/simulation`. `tests/simulation/test_workers.py` holds both to the same page, so what the fakes show of the
scheduler holds for real workers too.

The items are those of the fake worker: they say themselves what they do, and a real worker acts it out.
"""

from __future__ import annotations

import itertools
import os
import pickle
import queue
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from mpqueue._core.commands import (
    Command,
    ForgetJob,
    InitializeLane,
    KillLane,
    LowerLimit,
    ObserveLane,
    RecycleLane,
    RetireLane,
    SendChunk,
    SetFlags,
    StartLane,
)
from mpqueue._core.messages import (
    ChunkPacked,
    ChunkPacking,
    ChunkRefused,
    ChunkReported,
    ChunkSent,
    JobForgotten,
    LaneDied,
    LaneInitialized,
    LaneObserved,
    LaneReady,
)
from mpqueue._core.scheduler import Scheduler
from mpqueue._core.state.books import Books
from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.pending import Care
from mpqueue._engines.loky.loky_lane import LokyLane
from mpqueue._engines.loky.loky_pool import LokyPool
from mpqueue._options import JobOptions
from mpqueue._parent.coordinator import Coordinator
from mpqueue._parent.inbox import SystemClock
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._wire.memory.ledger import FLAG_JOB, Claim, Phase
from mpqueue._wire.pickling.packed_handler import PackedHandler, pack_handler
from mpqueue._worker import main, worker_links
from mpqueue._worker.handlers.current_item import current_item
from mpqueue.retry import RetryPolicy
from tests.support import handlers as do
from tests.support.fake_lanes import FakeLanes
from tests.support.fake_worker import Handler, Item, Outcome, Packing, Try
from tests.support.waiting import DEFAULT_TIMEOUT, Gate, spend, wait_until

T = TypeVar("T")

#: Seconds of a try that lasts until `Bench.let_go`.
UNTIL_TOLD = 1e3
#: Seconds that it lasts at least: what is behind it is claimed by itself, and the flags are looked at anew.
AT_LEAST = 0.01
#: Seconds that a chunk may take where its end is not what the test is about.
PATIENT = 1e6
#: What the contract is about; other messages say what it costs.
_CONTRACT = (LaneReady, LaneDied, LaneInitialized, LaneObserved, ChunkReported, ChunkRefused, JobForgotten)


@dataclass(frozen=True, slots=True)
class _Do:
    """A message that makes the script ask for something."""

    commands: list[Command]


class _Script:
    """In the scheduler's place: decides nothing, notes what it hears, and asks for what the test says."""

    deadline = None

    def __init__(self) -> None:
        self.books = Books(1, random.Random(0))
        self.heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.left: set[int] = set()  #: the numbers of the chunks that have left, or never will
        self._sending: dict[int, SendChunk] = {}

    def handle(self, message: Any, _: float) -> list[Command]:
        """See `Scheduler.handle`."""
        if isinstance(message, _Do):
            sending = [command for command in message.commands if isinstance(command, SendChunk)]
            self._sending.update((command.chunk.number, command) for command in sending)
            return message.commands
        if isinstance(message, _CONTRACT):
            self.heard.put(message)
        return self._pass_on(message)

    def _pass_on(self, message: Any) -> list[Command]:
        """A chunk whose items have to be pickled first goes out as soon as they are."""
        match message:
            case ChunkSent():
                self.left.add(message.chunk)
            case ChunkPacking():
                chunk = self._sending[message.chunk].chunk
                chunk.job.packing.append(chunk)
            case ChunkPacked(job):
                return [self._sending[job.packing.popleft().number]]
            case ChunkRefused(job):
                self.left.add(job.packing.popleft().number)
        return []


class Bench(ABC):
    """A lane, its number 0, with the worker of the first generation up; commands in, messages out."""

    #: Whether what a worker does takes real time, so that it may be slower than planned.
    is_real: bool

    def __init__(self) -> None:
        self.chunk_seconds = PATIENT  #: after so many the worker ends a chunk
        self.script = _Script()
        self.generation = 0
        #: (phase, lo, hi) that the worker claimed when it ran the item of that index, by job and index
        self.claims: dict[tuple[int, int], tuple[Phase, int, int]] = {}
        self._job_numbers = itertools.count(1)
        self._chunk_numbers = itertools.count(1)

    # -- what differs ----------------------------------------------------------------------------------------

    @abstractmethod
    def do(self, *commands: Command) -> None:
        """Have commands carried out, as the scheduler does with those of one step."""

    @abstractmethod
    def take_any(self) -> Any:
        """The next message of the contract, whatever it is."""

    @abstractmethod
    def let_go(self) -> None:
        """End what lasts until it is told."""

    @abstractmethod
    def handler(self, job_id: str, loads: Sequence[Try]) -> Any:
        """What acts the items out; ``loads``: what loading it does the first time, the second time, ...

        Where there are none, it is a light one, which a worker may keep for a while.
        """

    @abstractmethod
    def payload(self, item: Item) -> Any:
        """What goes into the job's table for an item."""

    @abstractmethod
    def initialize(self, doing: Try) -> None:
        """Have the worker run an initializer that does this."""

    @abstractmethod
    def pass_time(self) -> None:
        """Let a moment pass while the test looks again and again."""

    # -- a job and its chunks --------------------------------------------------------------------------------

    def job(self, *items: Item, loads: Sequence[Try] = ()) -> JobBook:
        """A job; see `handler`."""
        number = next(self._job_numbers)
        handler = self.handler(f"job-{number}", loads)
        table = make_table([self.payload(item) for item in items])
        return JobBook(number, f"job-{number}", table, JobOptions(RetryPolicy()), handler)

    def send(self, job: JobBook, *, careful: bool = False, brings: bool = True, attempts: Sequence[int] = ()) -> int:
        """Send all items of a job as the next chunk, which ``brings`` the handler; returns the chunk's number."""
        care, number = Care.CAREFUL if careful else Care.NONE, next(self._chunk_numbers)
        chunk = Chunk(number, job, range(job.total), care, 0.0, 0.0, self.chunk_seconds, attempts=attempts)
        self.do(SendChunk(0, self.generation, chunk, brings))
        return number

    def take(self, kind: type[T]) -> T:
        """The next message, which is of that kind and of the worker that is up."""
        message = self.take_any()
        assert isinstance(message, kind), message
        if not isinstance(message, ChunkRefused):
            assert (message.lane, message.generation) == (0, self.generation)  # type: ignore[attr-defined]
        return message

    def run(self, job: JobBook, **how: Any) -> ChunkReported:
        """Send a job's items, and return the report."""
        self.send(job, **how)
        return self.take(ChunkReported)

    # -- a worker --------------------------------------------------------------------------------------------

    def start(self) -> LaneReady:
        """Start the next generation."""
        self.generation += 1
        self.do(StartLane(0, self.generation))
        ready = self.take(LaneReady)
        self.begin()
        return ready

    def begin(self, chunk_seconds: float | None = None) -> None:
        """From now on the worker ends a chunk after so many seconds, and it claims nothing, as a new one."""
        if chunk_seconds is not None:
            self.chunk_seconds = chunk_seconds
        self.initialize(Try())
        while not isinstance(self.take_any(), LaneInitialized):
            """What a test that failed has left."""

    def replace(self) -> None:
        """A worker died: start the next one."""
        self.do(RetireLane(0))
        self.start()

    def recycle(self) -> None:
        """Let the idle worker go, and start the next one."""
        self.do(RecycleLane(0))
        self.start()

    def observe(self) -> Claim:
        """What the worker claims now."""
        self.do(ObserveLane(0, self.generation))
        return self.take(LaneObserved).claim

    def await_claim(self, number: int, phase: Phase, lo: int, hi: int) -> None:
        """Until the worker claims this, saying nothing meanwhile."""
        seen: list[Claim] = []

        def is_there() -> bool:
            seen[:] = [self.observe()]
            return seen[0][:4] == (number, phase, lo, hi)

        wait_until(lambda: is_there() or self.pass_time(), what=f"the claim {phase.name} {lo} to {hi}")

    def kill(self, *, dump_stack: bool = False) -> LaneDied:
        """Kill the worker."""
        self.do(KillLane(0, dump_stack))
        return self.take(LaneDied)

    def forget(self, job: JobBook) -> None:
        """Have the worker drop a job's handler."""
        self.do(ForgetJob(0, self.generation, job, at_once=not job.handler.light))

    def set_flags(self, job: int, *, pause: bool = False, cancel: bool = False) -> None:
        """Set the lane's flags, for the job of that number."""
        self.do(SetFlags(0, job, pause, cancel))

    def lower(self, chunk: int, position: int) -> None:
        """Let nothing be claimed from that position on in that chunk."""
        self.do(LowerLimit(0, chunk, position))


# -- the fake one ----------------------------------------------------------------------------------------------------


class FakeBench(Bench):
    """A fake worker. What lasts until it is told ends as soon as nothing else happens before."""

    is_real = False

    def __init__(self) -> None:
        super().__init__()
        self.fleet = FakeLanes(1)
        self.fleet.books = self.script.books
        self.fleet.scheduler = cast("Scheduler", self.script)
        self.fleet.item_watchers.append(self._note)

    def _note(self, chunk: Chunk, lo: int, hi: int) -> None:
        worker = self.fleet.workers[0]
        assert worker is not None
        for index in chunk.indices[lo:hi]:
            self.claims[chunk.job.number, index] = worker.claim[1:4]

    def do(self, *commands: Command) -> None:
        """See `Bench.do`."""
        self.fleet.handle(cast("Any", _Do([*commands])))

    def take_any(self) -> Any:
        """See `Bench.take_any`."""
        while self.script.heard.empty():
            self.fleet.step()
        return self.script.heard.get()

    def let_go(self) -> None:
        """See `Bench.let_go`."""

    def handler(self, job_id: str, loads: Sequence[Try]) -> Handler:
        """See `Bench.handler`."""
        return Handler((lambda _, nth: loads[min(nth, len(loads)) - 1]) if loads else None)

    def payload(self, item: Item) -> Any:
        """See `Bench.payload`."""
        return item

    def initialize(self, doing: Try) -> None:
        """See `Bench.initialize`."""
        self.fleet.initialize_with(lambda _: doing)
        self.do(InitializeLane(0, self.generation))

    def pass_time(self) -> None:
        """See `Bench.pass_time`."""
        self.fleet.step()


# -- the real one ----------------------------------------------------------------------------------------------------


class RealBench(Bench):
    """A real worker, loky's, below the real coordinator."""

    is_real = True

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._gates = itertools.count()
        self._folder = folder
        self._order = folder / "order"  #: what the initializer does
        self.gate = self._new_gate()
        initializer = pack_handler("initializer", partial(_initialize, self._order), None, "position")
        self.coordinator = Coordinator(
            cast("Scheduler", self.script), SystemClock(), lambda _: None, initializer, "bench-coordinator"
        )
        self.coordinator.start()
        self.pool = LokyPool(LaneSettings(1), self.coordinator.inbox)
        self.coordinator.ask(lambda: self.coordinator.open(self.pool))

    def _new_gate(self) -> Gate:
        return Gate(self._folder / f"gate-{next(self._gates)}")

    def send(self, job: JobBook, **how: Any) -> int:
        """See `Bench.send`. The chunk has left by then, where its worker is the one that is up."""
        number, lane = super().send(job, **how), self.pool.lane(0)
        if lane is not None and lane.generation == self.generation:
            wait_until(lambda: number in self.script.left, what="the chunk to leave")
        return number

    def warm_up(self) -> None:
        """Have the lane start its threads, so that a test of a lane that stays need not."""
        self.set_flags(1)
        self.run(self.job(Item((Try(outcome=Outcome.FAILURE),))))

    def begin(self, chunk_seconds: float | None = None) -> None:
        """See `Bench.begin`."""
        self.let_go()
        self.gate = self._new_gate()
        super().begin(chunk_seconds)

    def close(self) -> None:
        """End everything."""
        self.pool.close(kill=True)
        self.coordinator.stop()

    def do(self, *commands: Command) -> None:
        """See `Bench.do`."""
        self.coordinator.post(cast("Any", _Do([*commands])))

    def take_any(self) -> Any:
        """See `Bench.take_any`."""
        message = self.script.heard.get(timeout=DEFAULT_TIMEOUT)
        if isinstance(message, ChunkReported):
            for job, index, phase, lo, hi in filter(None, message.results):
                self.claims[job, index] = Phase(phase), lo, hi
        return message

    def let_go(self) -> None:
        """See `Bench.let_go`."""
        self.gate.open()

    def handler(self, job_id: str, loads: Sequence[Try]) -> PackedHandler:
        """See `Bench.handler`."""
        setup = partial(_set_up, self.gate, job_id, [*loads]) if loads else None
        return pack_handler(job_id, partial(_act_item, self.gate), setup, "position")

    def set_flags(self, job: int, *, pause: bool = False, cancel: bool = False) -> None:
        """See `Bench.set_flags`. Returns when they are set, which a thread of the lane does."""
        words = cast("LokyLane", self.pool.lane(0)).ledger.words
        before = words[FLAG_JOB]  # which counts changes, beside the job
        super().set_flags(job, pause=pause, cancel=cancel)
        wait_until(
            lambda: words[FLAG_JOB] != before and words[FLAG_JOB] & 0xFFFFFFFF == job, what="the flags to be set"
        )

    def lower(self, chunk: int, position: int) -> None:
        """See `Bench.lower`. Returns when it is in the ledger: what comes next must not overtake it."""
        super().lower(chunk, position)
        lane = cast("LokyLane", self.pool.lane(0))
        wait_until(lambda: lane.ledger.limit(chunk) == position, what="the limit to be set")

    def payload(self, item: Item) -> Any:
        """See `Bench.payload`."""
        return item if item.packing is Packing.FINE else _OddlyPacked(item)

    def initialize(self, doing: Try) -> None:
        """See `Bench.initialize`."""
        self._order.write_bytes(pickle.dumps((doing, self.gate)))
        self.do(InitializeLane(0, self.generation))

    def pass_time(self) -> None:
        """See `Bench.pass_time`."""


class _OddlyPacked:
    """An item that is never run."""

    def __init__(self, item: Item) -> None:
        self.packing = item.packing

    def __reduce__(self) -> Any:
        if self.packing is Packing.UNPICKLABLE:
            raise TypeError("unpicklable")
        return (_refuse if self.packing is Packing.UNREADABLE else do.segfault), (None,)


def _refuse(_: None) -> None:
    raise EOFError("unreadable")


# -- in the real worker ----------------------------------------------------------------------------------------------


def _initialize(order: Path) -> None:
    doing, gate = pickle.loads(order.read_bytes())
    _act(doing, gate)


def _set_up(gate: Gate, job_id: str, loads: Sequence[Try]) -> None:
    nth = sum(name.startswith(f"{job_id}-") for name in gate.arrived())
    gate.announce(f"{job_id}-{nth}")
    _act(loads[min(nth, len(loads) - 1)], gate)


def _act_item(gate: Gate, item: Item, state: None = None) -> Any:
    """Act an item out; returns its job and index, and what the worker claims meanwhile, as plain data."""
    here, current = _here(), current_item()
    _act(item.tries[min(current.attempt, len(item.tries)) - 1], gate)
    claim = here.ledger.read()
    return here.running.job, current.id, int(claim.phase), claim.lo, claim.hi


def _act(doing: Try, gate: Gate) -> None:
    if doing.seconds >= UNTIL_TOLD:
        gate.pass_through("the worker")
        spend(AT_LEAST)
    elif doing.seconds:
        spend(doing.seconds)
    if doing.outcome is Outcome.FAILURE:
        raise doing.error
    if doing.outcome is Outcome.CRASH:
        do.segfault(None)
    if doing.outcome is Outcome.HANG:
        do.hang_sleep(None)
    if doing.outcome is Outcome.SPOIL:  # it ends when it makes its answer
        vars(main)["dump_frame"] = lambda _: os._exit(1)


def _here() -> worker_links.WorkerLinks:
    here = worker_links.here()
    assert here is not None
    return here
