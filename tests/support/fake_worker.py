"""A worker that only pretends: it keeps the ledger as a real one does, and its items say themselves what they do.

It follows `mpqueue._worker.chunk_run` and its chunk timer: claims in stretches, the limit, flags between
stretches, the end of a chunk after 50 ms, the cut after 25 ms, finished items sent early. Nothing here waits: what
takes time is an entry in the calendar of `tests.support.fake_lanes`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from mpqueue._core.commands import ForgetJob, SendChunk
from mpqueue._core.messages import ChunkReported, JobForgotten, LaneDied
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._wire.frames import STRETCH_LIMIT, Ended, WorkTimes
from mpqueue._wire.memory.ledger import MAX_CHUNK_ITEMS, Claim, Phase
from mpqueue._wire.parcels import AddedItems, Yielded
from mpqueue._worker import timing
from mpqueue._worker.chunk_timer import CUT_PART
from mpqueue._worker.worker_links import Growth

if TYPE_CHECKING:
    from tests.support.fake_lanes import FakeLanes


class Outcome(Enum):
    """How a try ends."""

    RESULT = auto()
    FAILURE = auto()  #: it raises
    CRASH = auto()  #: it takes the worker with it
    HANG = auto()  #: it does not end
    SPOIL = auto()  #: it ends well, and its worker dies as soon as it wants to answer


class Packing(Enum):
    """What comes of pickling an item."""

    FINE = auto()
    UNPICKLABLE = auto()  #: it never leaves the parent
    UNREADABLE = auto()  #: the worker can't unpickle it
    DEADLY = auto()  #: unpickling it kills the worker


@dataclass(frozen=True, slots=True)
class Try:
    """What one try does, after so many seconds."""

    seconds: float = 0.0
    outcome: Outcome = Outcome.RESULT
    error: BaseException = field(default_factory=lambda: ValueError("no"))

    def __reduce__(self) -> tuple[Any, ...]:
        """By the error's arguments: libraries that are imported elsewhere have exceptions pickled in other ways."""
        return _make_try, (self.seconds, self.outcome, type(self.error), self.error.args)


def _make_try(seconds: float, outcome: Outcome, kind: type[BaseException], args: tuple[Any, ...]) -> Try:
    return Try(seconds, outcome, kind(*args))


@dataclass(frozen=True, slots=True)
class Item:
    """What the tries of one item do; the last goes for all that follow."""

    tries: tuple[Try, ...] = (Try(),)
    packing: Packing = Packing.FINE
    needs: int = 0  #: bytes of memory that it has while it runs
    keeps: int = 0  #: bytes that its worker has more once it has run
    adds: tuple[Item, ...] = ()  #: what its result brings along for its job, an open one
    returns: Item | None = None  #: in a stage: the next stage's item
    yields: tuple[Item, ...] | None = None  #: or these


def result_of(item: Item) -> Any:
    """What an item of a stage returns."""
    return (item.returns or Item()) if item.yields is None else Yielded([*item.yields])


#: Bytes of memory of a worker that has run nothing.
BASE = 10
#: A claim holds so many bits of a chunk's number.
CHUNK_MASK = (1 << 21) - 1


@dataclass(frozen=True, slots=True)
class Handler:
    """A job's handler: what loading it does, by the lane's number and how often that was done there (from 1)."""

    load: Callable[[int, int], Try] | None = None

    @property
    def light(self) -> bool:
        """See `PackedHandler.light`: of one whose loading does nothing, a worker hears later that it may go."""
        return self.load is None


@dataclass(slots=True)
class _Run:
    """A chunk on its way through the worker: as `ChunkRun`, with the ends of its items known beforehand."""

    chunk: Chunk
    items: list[Item]  #: as they were sent
    started: float
    size: int
    part_started: float
    loading: float = 0.0  #: seconds of this part
    done: int = 0
    sent: int = 0
    lo: int = 0  #: where the stretch at hand begins
    stretch_started: float = 0.0
    ends: list[float] = field(default_factory=list)  #: when its items end; infinity: never
    crash_at: float = math.inf
    failures: dict[int, Failure] = field(default_factory=dict)
    spoilers: list[int] = field(default_factory=list)  #: positions after which the worker can't answer
    stretches: list[tuple[int, int, float]] = field(default_factory=list)
    was_cut: bool = False

    @property
    def limit(self) -> float:
        """Seconds after which it is ended, between two items."""
        return self.chunk.limit

    def is_spoiled(self, done: int) -> bool:
        """True where one of the first ``done`` items keeps the worker from answering."""
        return any(position < done for position in self.spoilers)


class FakeWorker:
    """One generation of a lane."""

    def __init__(self, fleet: FakeLanes, lane: int, generation: int, pid: int) -> None:
        self.fleet = fleet
        self.lane = lane
        self.generation = generation
        self.pid = pid
        self.alive = True
        self.turn = 0  #: entries in the calendar that were made in an earlier turn mean nothing
        self.claim = Claim(0, Phase.IDLE, 0, 0, fleet.now)
        self.limits = [(-1, MAX_CHUNK_ITEMS), (-1, MAX_CHUNK_ITEMS)]  #: for chunks of even and of odd number
        self.flags = (-1, False, False)  #: (job, pause, cancel)
        self.paces: dict[int, float | None] = {}  #: seconds an item, of each job that is loaded
        self.kept = BASE  #: bytes of memory that it has between items
        self.base = 0  #: those that it had when it began what it claims
        self.has_run = False
        self._growth = Growth()
        self._home = 0  #: the chunk that was begun last
        self._frames: deque[tuple[SendChunk | ForgetJob, list[Item], Sequence[int]]] = deque()
        self._run: _Run | None = None

    @property
    def idle(self) -> bool:
        """True where it has nothing to do."""
        return self._run is None and not self._frames

    def receive(self, frame: SendChunk | ForgetJob, items: list[Item], forgotten: Sequence[int] = ()) -> None:
        """A frame arrived, with a chunk's items in it and the numbers of jobs that may go."""
        if self.alive:
            self._frames.append((frame, items, forgotten))
            self._take_next()

    @property
    def used(self) -> int:
        """Bytes of memory that it has now."""
        run = self._run
        if run is None or not run.ends:
            return self.kept
        done = bisect_right(run.ends, self.fleet.now)
        running = run.items[run.lo + done].needs if done < len(run.ends) else 0
        return self.kept + sum(item.keeps for item in run.items[run.lo : run.lo + done]) + running

    def has_too_much(self) -> bool:
        """See `ChunkRun._has_too_much`."""
        self.base = self.kept
        most = self.fleet.books.max_memory
        return most is not None and self._growth.likely(self.kept) > most and self.has_run

    def die(self, exitcode: int = -9, signal: str | None = "SIGKILL", stack: str | None = None) -> None:
        """The process is gone; its ledger stays as it is."""
        if self.alive:
            fellows = self.fleet.fellows(self)
            alone = sum(not worker.idle for worker in fellows) <= 1
            for worker in fellows:
                idle = worker.idle and (self.fleet.is_blind or worker is not self)
                worker.end()
                claim = None if self.fleet.is_blind else worker.claim
                self.fleet.post(
                    LaneDied(worker.lane, worker.generation, worker.pid, exitcode, signal, claim, stack, alone, idle)
                )

    def end(self) -> None:
        """The process ends, and nobody is told."""
        self.alive = False
        self.turn += 1

    # -- one frame after the other ---------------------------------------------------------------------------

    def _take_next(self) -> None:
        while self.alive and self._run is None and self._frames:
            frame, items, forgotten = self._frames.popleft()
            if isinstance(frame, ForgetJob):
                self.paces.pop(frame.job.number, None)
                self.claim = Claim(self._home, Phase.IDLE, 0, 0, self.fleet.now)
                self.fleet.post(JobForgotten(self.lane, self.generation, frame.job.number))
            else:
                self._begin(frame, items, forgotten)

    def _begin(self, frame: SendChunk, items: list[Item], forgotten: Sequence[int]) -> None:
        now, job = self.fleet.now, frame.chunk.job
        self._run = _Run(frame.chunk, items, now, 1, now)
        self._home = frame.chunk.number & CHUNK_MASK
        for number in forgotten:
            self.paces.pop(number, None)
        self._claim(Phase.UNPACKING, 0, 0)
        if job.number in self.paces:
            self._begin_items()
            return
        assert frame.with_handler, "the first chunk of a job brings its handler"
        self._claim(Phase.LOADING, 0, 0)
        loading = self.fleet.loading(job, self.lane)
        if loading.outcome is Outcome.CRASH:
            self._call_at(now + loading.seconds, self.crash)
        elif loading.outcome is not Outcome.HANG:
            self._call_at(now + loading.seconds, lambda: self._loaded(loading))

    def _loaded(self, loading: Try) -> None:
        run = self._run
        assert run is not None
        self._claim(Phase.UNPACKING, 0, 0)
        if loading.outcome is Outcome.FAILURE:
            self._answer(run, Ended.SETUP_FAILED, Failure(loading.error, "a traceback", loading.seconds))
        else:
            self.paces[run.chunk.job.number] = None
            self._begin_items()
        self._take_next()

    def _begin_items(self) -> None:
        run = self._run
        assert run is not None
        run.started = self.fleet.now
        run.loading = run.started - run.part_started
        chunk = run.chunk
        if self.has_too_much():
            self._answer(run, Ended.MEMORY)
            return
        if chunk.careful:
            self._next_stretch()
            return
        self._claim(Phase.UNPACKING, 0, len(chunk.indices))
        odd = {item.packing for item in run.items}
        if Packing.DEADLY in odd:
            self.crash()
        elif Packing.UNREADABLE in odd:
            self._answer(run, Ended.UNREADABLE)
        else:
            pace = self.paces[chunk.job.number]
            run.size = timing.first_size(pace)
            self._next_stretch()

    # -- stretches -------------------------------------------------------------------------------------------

    def _next_stretch(self) -> None:
        """What happens between two stretches; see `ChunkRun._run_stretches`."""
        run = self._run
        while run is not None and self.alive:
            chunk, lo = run.chunk, run.done
            hi = min(lo + run.size, len(chunk.indices))
            ended = self._why_end(run, hi - lo)
            if ended is not None:
                self._report(ended)
                return
            phase = Phase.UNPACKING if chunk.careful else Phase.RUNNING
            self._claim(phase, lo, hi)
            number, position = self.limits[chunk.number & 1]
            if number == chunk.number and position < hi:
                if position <= lo:
                    self._report(Ended.LIMIT)
                    return
                hi = position
                self._claim(phase, lo, hi)
            if not chunk.careful or self._unpack_one(run, lo):
                self._start_stretch(run, lo, hi)
                return

    def _why_end(self, run: _Run, size: int) -> Ended | None:
        if run.done >= len(run.chunk.indices):
            return Ended.DONE
        expected = timing.expected_seconds(size, self.paces[run.chunk.job.number])
        if run.done and self.fleet.now - run.started + expected >= run.limit:
            return Ended.TIME
        job, paused, cancelled = self.flags
        if job == run.chunk.job.number and (paused or cancelled):
            return Ended.CANCELLED if cancelled else Ended.PAUSED
        return Ended.MEMORY if run.done and self.has_too_much() else None

    def _unpack_one(self, run: _Run, position: int) -> bool:
        item = run.items[position]
        if item.packing is Packing.DEADLY:
            self.crash()
            return False
        if item.packing is Packing.UNREADABLE:
            run.failures[position] = Failure(EOFError("unreadable"), "a traceback", charged=False)
            run.done += 1
            return False
        self._claim(Phase.RUNNING, position, position + 1)
        return True

    def _start_stretch(self, run: _Run, lo: int, hi: int) -> None:
        chunk = run.chunk
        attempts = chunk.attempts
        self.fleet.items_begin(chunk, lo, hi)
        at = run.stretch_started = self.fleet.now
        run.lo, run.ends, run.crash_at, run.was_cut = lo, [], math.inf, False
        for position in range(lo, hi):
            attempt = attempts[position] if attempts else 1
            tries = run.items[position].tries
            doing = tries[min(attempt, len(tries)) - 1]
            at += doing.seconds
            if doing.outcome in (Outcome.CRASH, Outcome.HANG):
                run.crash_at = at if doing.outcome is Outcome.CRASH else math.inf
                run.ends.append(math.inf)
                break
            if doing.outcome is Outcome.SPOIL:
                run.spoilers.append(position)
            if doing.outcome is Outcome.FAILURE:
                run.failures[position] = Failure(doing.error, "a traceback", doing.seconds)
            run.ends.append(at)
        self._schedule(run, hi - lo > 1 and not chunk.careful)

    def _schedule(self, run: _Run, cut: bool) -> None:
        """Enter what will happen in the stretch at hand; replaces what was entered for it before."""
        now, end = self.fleet.now, run.ends[-1]
        self.turn += 1
        late = min(run.started + CUT_PART * run.limit, run.stretch_started + CUT_PART * STRETCH_LIMIT)
        if cut and now < late < end:
            self._call_at(late, self._cut)
        if now < run.started + run.limit < end:
            self._call_at(run.started + run.limit, self._send_early)
        if end < math.inf:
            self._call_at(end, self._stretch_done)
        elif run.crash_at < math.inf:
            self._call_at(run.crash_at, self.crash)

    def _cut(self) -> None:
        """See `chunk_timer.cut_off`."""
        run = self._run
        assert run is not None
        position = run.lo + bisect_right(run.ends, self.fleet.now)
        del run.ends[position + 1 - run.lo :]
        run.was_cut = True
        if position > run.lo:
            self.base = self.used
        if run.ends[-1] < math.inf:
            run.crash_at = math.inf
        self._claim(Phase.RUNNING, position, position + 1)
        self._schedule(run, cut=False)

    def _send_early(self) -> None:
        """See `chunk_timer.send_early`."""
        run = self._run
        assert run is not None
        done = run.lo + bisect_right(run.ends, self.fleet.now)
        if done > run.sent and not run.is_spoiled(done):
            self.fleet.post(self._part(run, done, Ended.DONE, final=False))

    def _stretch_done(self) -> None:
        run = self._run
        assert run is not None
        lo, count, seconds = run.lo, len(run.ends), self.fleet.now - run.stretch_started
        pace = self.paces[run.chunk.job.number] or 0.0
        run.done = lo + count
        self.kept, run.ends, self.has_run = self.used, [], True
        if run.was_cut and count > 1:
            run.stretches.append((lo, run.done - 1, pace))
            lo, seconds = run.done - 1, max(0.0, seconds - pace * (count - 1))
        pace = seconds / (run.done - lo)
        self.paces[run.chunk.job.number] = pace
        run.stretches.append((lo, run.done, pace))
        run.size = 1 if run.chunk.careful else timing.next_size(pace, count)
        self._next_stretch()
        self._take_next()

    def crash(self) -> None:
        """What it runs takes it along."""
        self.die(exitcode=-11, signal="SIGSEGV")

    # -- the way home ----------------------------------------------------------------------------------------

    def _claim(self, phase: Phase, lo: int, hi: int) -> None:
        self.claim = Claim(self._home, phase, lo, hi, self.fleet.now)

    def initializes(self, *, ended: bool) -> None:
        """It begins the pool's initializer, or is through with it."""
        self.claim = Claim(0, Phase.IDLE if ended else Phase.LOADING, 0, 0, self.fleet.now)

    def _report(self, ended: Ended) -> None:
        run = self._run
        assert run is not None
        self._claim(Phase.IDLE, run.done, run.done)
        if run.is_spoiled(run.done):
            self.die(exitcode=1, signal=None)
        else:
            self._answer(run, ended)

    def _answer(self, run: _Run, ended: Ended, setup_failure: Failure | None = None) -> None:
        """The report. Where nothing ran, what was claimed before stays so."""
        self.turn += 1
        self.fleet.post(self._part(run, run.done, ended, setup_failure=setup_failure))
        self._run = None

    def _part(
        self, run: _Run, done: int, ended: Ended, *, final: bool = True, setup_failure: Failure | None = None
    ) -> ChunkReported:
        first, run.sent = run.sent, done
        now, started, loading = self.fleet.now, run.part_started, run.loading
        run.part_started, run.loading = now, 0.0
        indices, items, job = run.chunk.indices[first:done], run.items[first:done], run.chunk.job
        failures = {at - first: failure for at, failure in run.failures.items() if first <= at < done}
        results = [*indices] if job.stage is None else [result_of(item) for item in items]
        results = [None if at in failures else result for at, result in enumerate(results)] if failures else results
        yielded = {at: len(result.values) for at, result in enumerate(results) if type(result) is Yielded}
        return ChunkReported(
            lane=self.lane,
            generation=self.generation,
            chunk=run.chunk.number,
            first=first,
            done=done,
            results=results,
            failures=failures,
            stretches=[
                (min(hi, done) - max(lo, first), pace, pace)
                for lo, hi, pace in run.stretches
                if lo < done and hi > first
            ],
            busy=now - started - loading,
            ended=ended,
            final=final,
            setup_failure=setup_failure,
            times=WorkTimes(started, now, loading, 0.0, 0.0, now - started - loading, 0.0, 0.0, 0.0),
            received=now + self.fleet.latency,
            decoded=now + self.fleet.latency,
            added=self._added(job, items, failures),
            yielded=yielded or None,
        )

    @staticmethod
    def _added(job: JobBook, items: Sequence[Item], failures: dict[int, Failure]) -> dict[int, AddedItems] | None:
        if not job.table.grows or job.stage is not None:
            return None
        return {at: AddedItems([*item.adds], None) for at, item in enumerate(items) if item.adds and at not in failures}

    def _call_at(self, moment: float, call: Callable[[], None]) -> None:
        self.fleet.call_at(moment, call, self)
