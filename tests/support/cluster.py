"""A cluster of thousands of workers in simulated time, with one coordinator that is busy while it decides.

The scheduler is the real one. `FakeLanes` knows everything that can happen to a worker, and has an entry in its
calendar for each item; here nothing ever fails, and a chunk is one entry, so that ten thousand workers cost little more
than what is decided about them. And here the coordinator takes some time for each message, while others wait. So it
shows when one coordinator is not enough::

    cluster = Cluster(10_000, latency=0.001, service=lambda message, taken: 57e-6)
    job = cluster.job([0.05] * 4_000_000)
    cluster.start(job)
    cluster.run_until_over(job)
    print(cluster.utilisation, cluster.busy)
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from mpqueue._core.capabilities import Capabilities
from mpqueue._core.commands import (
    Command,
    ForgetJob,
    LowerLimit,
    ObserveLane,
    SendChunk,
    SetFlags,
    StartLane,
)
from mpqueue._core.messages import (
    ChunkReported,
    ChunkSent,
    JobForgotten,
    JobPaused,
    JobResumed,
    JobStartAsked,
    LaneObserved,
    LaneReady,
    Message,
    QueueOpened,
    TimePassed,
)
from mpqueue._core.scheduler import Scheduler
from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._options import JobOptions
from mpqueue._wire.frames import Ended
from mpqueue._wire.memory.ledger import Claim, Phase
from mpqueue._worker.chunk.stretches import expected_seconds
from mpqueue.retry import RetryPolicy
from tests.support.fake_worker import Handler

#: Seconds that the coordinator takes for a message, by the message and by what the scheduler has really taken for it.
Service = Callable[[Message, float], float]

_CHUNK_MASK = (1 << 21) - 1


class Cluster:
    """A scheduler, its lanes, and the time that passes for them.

    ``latency`` is the seconds that a frame, a report, or a look at a worker is under way.
    """

    def __init__(
        self,
        lanes: int,
        *,
        latency: float = 0.0,
        service: Service = lambda _, taken: taken,
        engine: Capabilities = Capabilities(),  # noqa: B008 - frozen
    ) -> None:
        self.scheduler = Scheduler(lanes, random.Random(0), engine=engine)
        self.books = self.scheduler.books
        self.now = 0.0
        self.latency = latency
        self.workers = [_Worker(self, lane) for lane in range(lanes)]
        self.steps: list[float] = []  #: CPU seconds that the scheduler has taken for each message
        self.counts: Counter[type] = Counter()  #: messages so far, by type
        self.served = 0.0  #: seconds that the coordinator was busy
        self.worked = 0.0  #: seconds that workers ran items
        self.chunks: list[tuple[float, Chunk]] = []  #: when each was sent; for those who want to know
        self._service = service
        self._free_at = 0.0
        self._inbox: deque[Message] = deque()
        self._is_serving = False
        self._calendar: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = itertools.count()
        self._numbers = itertools.count(1)
        self._began = 0.0

    def job(self, seconds: Sequence[float], **options: Any) -> JobBook:
        """A job of items that take so long each."""
        number = next(self._numbers)
        book = JobBook(number, f"job-{number}", make_table(seconds), JobOptions(RetryPolicy(), **options), Handler())
        book.table.payloads = seconds  # type: ignore[assignment] # no copy: there are millions
        return book

    def start(self, *jobs: JobBook) -> None:
        """Start jobs, and the workers where these are the first: they are there at once."""
        if not self.books.opened:
            for command in self.scheduler.handle(QueueOpened(), self.now):
                assert isinstance(command, StartLane)
                self.scheduler.handle(LaneReady(command.lane, command.generation, command.lane + 1), self.now)
            self._began = self.now
        for job in jobs:
            self.post(JobStartAsked(job, self.now))

    def pause(self, job: JobBook) -> None:
        """Pause a job."""
        self.post(JobPaused(job))

    def resume(self, job: JobBook) -> None:
        """Resume a job."""
        self.post(JobResumed(job))

    # -- time --------------------------------------------------------------------------------------------------

    def run_until(self, moment: float) -> None:
        """Let everything happen up to a moment, which is the time afterwards."""
        while (due := self._next_moment()) is not None and due <= moment:
            self._step(due)
        self.now = max(self.now, moment)

    def run_until_over(self, *jobs: JobBook) -> None:
        """Let everything happen until these jobs have ended."""
        while not all(job.status.final for job in jobs):
            due = self._next_moment()
            assert due is not None, "nothing will ever happen"
            self._step(due)

    def post(self, message: Message) -> None:
        """Something for the coordinator has arrived."""
        self._inbox.append(message)
        if not self._is_serving:
            self._serve()

    def post_later(self, message: Message) -> None:
        """A worker says something."""
        self.call_at(self.now + self.latency, lambda: self.post(message))

    def call_at(self, moment: float, call: Callable[[], object]) -> None:
        """Have something happen then."""
        heapq.heappush(self._calendar, (moment, next(self._serial), call))

    def _next_moment(self) -> float | None:
        due = self._calendar[0][0] if self._calendar else None
        deadline = None if self._is_serving else self.scheduler.deadline
        moments = [moment for moment in (due, deadline) if moment is not None]
        return min(moments) if moments else None

    def _step(self, due: float) -> None:
        self.now = max(self.now, due)
        if self._calendar and self._calendar[0][0] <= self.now:
            heapq.heappop(self._calendar)[2]()
        else:
            self.post(TimePassed())

    # -- the coordinator -----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Take the next message: what follows from it happens when the coordinator has decided."""
        self._is_serving = bool(self._inbox)
        if not self._inbox:
            return
        message = self._inbox.popleft()
        commands, seconds = self._handle(message)
        for command in commands:
            if isinstance(command, SendChunk):
                chunk = command.chunk
                self.chunks.append((self.now, chunk))
                size = 9 * len(chunk.indices)
                sent = ChunkSent(command.lane, command.generation, chunk.number, size, 0.0, self.now)
                seconds += self._handle(sent)[1]
        self.served += seconds
        self.call_at(self.now + seconds, lambda: self._carry_out(commands))

    def _handle(self, message: Message) -> tuple[list[Command], float]:
        began = time.thread_time()
        commands = self.scheduler.handle(message, self.now)
        taken = time.thread_time() - began
        self.steps.append(taken)
        self.counts[type(message)] += 1
        return commands, self._service(message, taken)

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            self._do(command)
        self._serve()

    def _do(self, command: Command) -> None:
        match command:
            case SendChunk(lane, _, chunk):
                worker = self.workers[lane]
                self.call_at(self.now + self.latency, lambda: worker.receive(chunk))
            case LowerLimit(lane, number, position):
                worker = self.workers[lane]
                self.call_at(self.now + self.latency, lambda: worker.lower(number, position))
            case ObserveLane(lane, generation):
                worker, asked = self.workers[lane], self.now
                self.call_at(
                    self.now + self.latency,
                    lambda: self.post_later(LaneObserved(lane, generation, worker.claim, asked)),
                )
            case SetFlags(lane, stopped, pause, cancel):
                worker = self.workers[lane]
                self.call_at(self.now + self.latency, lambda: worker.set_flags(stopped, pause or cancel, cancel))
            case ForgetJob(lane, generation, job, at_once):
                if at_once:
                    self.post(JobForgotten(lane, generation, job.number))
            case _:
                assert not isinstance(command, StartLane)

    # -- what came of it -----------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds since the first job was started."""
        return self.now - self._began

    @property
    def utilisation(self) -> float:
        """The part of the workers' time in which they ran items."""
        return self.worked / (len(self.workers) * self.elapsed)

    @property
    def busy(self) -> float:
        """The part of its time for which the coordinator was busy."""
        return self.served / self.elapsed


class _Worker:
    """Runs one chunk after the other; as `ChunkRun`, an item at a time."""

    def __init__(self, cluster: Cluster, lane: int) -> None:
        self._cluster = cluster
        self._lane = lane
        self._waiting: deque[Chunk] = deque()
        self._chunk: Chunk | None = None
        self._started = 0.0
        self._ends: list[float] = []  #: when each of the chunk's items has ended
        self._sent = 0
        self._told = 0.0
        self._turn = 0
        self._last = 0
        self._stopped: tuple[int, bool, bool] = (0, False, False)
        self._limits: dict[int, int] = {}

    @property
    def claim(self) -> Claim:
        """What it says that it is at."""
        if self._chunk is None:
            return Claim(self._last & _CHUNK_MASK, Phase.IDLE, 0, 0, self._told)
        at = self._at()
        since = self._ends[at - 1] if at else self._started
        return Claim(self._chunk.number & _CHUNK_MASK, Phase.RUNNING, at, at + 1, since)

    def _at(self) -> int:
        return min(bisect_right(self._ends, self._cluster.now), len(self._ends) - 1)

    def receive(self, chunk: Chunk) -> None:
        """A chunk arrived."""
        self._waiting.append(chunk)
        if self._chunk is None:
            self._begin()

    def lower(self, number: int, position: int) -> None:
        """Nothing from that position on is to be begun in that chunk."""
        self._limits[number] = position
        if self._chunk is not None and self._chunk.number == number:
            self._end_at(max(position, self._at() + 1), Ended.LIMIT)

    def set_flags(self, job: int, stopped: bool, cancelled: bool) -> None:
        """Chunks of that job are to end, or not any more."""
        self._stopped = (job, stopped, cancelled)
        if stopped and self._chunk is not None and self._chunk.job.number == job:
            self._end_at(self._at() + 1, Ended.CANCELLED if cancelled else Ended.PAUSED)

    def _begin(self) -> None:
        cluster, chunk = self._cluster, self._waiting.popleft()
        self._chunk, self._last, self._sent = chunk, chunk.number, 0
        self._started = self._told = cluster.now
        payloads = chunk.job.table.payloads
        self._ends = list(itertools.accumulate((payloads[index] for index in chunk.indices), initial=cluster.now))[1:]
        job, stopped, cancelled = self._stopped
        limit = self._limits.pop(chunk.number, len(self._ends))
        if (stopped and job == chunk.job.number) or not limit:
            ended = Ended.LIMIT if not limit else Ended.CANCELLED if cancelled else Ended.PAUSED
            self._ends = []
            self._turn += 1
            self._report(0, ended, self._turn)
            return
        over = self._started + chunk.limit
        at = bisect_left(self._ends, over - expected_seconds(1, self._ends[0] - self._started)) + 1
        self._end_at(min(limit, at), Ended.TIME if at < limit else Ended.LIMIT)

    def _end_at(self, done: int, why: Ended) -> None:
        """After so many items the chunk ends."""
        chunk, cluster = self._chunk, self._cluster
        assert chunk is not None
        if done >= len(self._ends):
            why = Ended.DONE if len(self._ends) == len(chunk.indices) else why
            done = len(self._ends)
        del self._ends[done:]
        self._turn += 1
        turn, end, over = self._turn, self._ends[-1], self._started + chunk.limit
        if cluster.now < over < end and not self._sent:
            cluster.call_at(over, lambda: self._send_early(turn))
        cluster.call_at(end, lambda: self._report(done, why, turn))

    def _send_early(self, turn: int) -> None:
        if turn != self._turn:
            return
        done = bisect_right(self._ends, self._cluster.now)
        if done:
            self._tell(done, Ended.DONE, final=False)

    def _report(self, done: int, why: Ended, turn: int) -> None:
        if turn != self._turn:
            return
        self._tell(done, why, final=True)
        self._cluster.worked += (self._ends[-1] - self._started) if self._ends else 0.0
        self._chunk = None
        if self._waiting:
            self._begin()

    def _tell(self, done: int, why: Ended, *, final: bool) -> None:
        chunk, now, first = self._chunk, self._cluster.now, self._sent
        assert chunk is not None
        starts = [self._started, *self._ends]
        stretches = [(1, starts[at + 1] - starts[at], 0.0) for at in range(first, done)]
        busy, self._told, self._sent = now - self._told, now, done
        self._cluster.post_later(
            ChunkReported(
                lane=self._lane,
                generation=self._cluster.books.lanes[self._lane].generation,
                chunk=chunk.number,
                first=first,
                done=done,
                results=[None] * (done - first),
                failures={},
                stretches=stretches,
                busy=busy,
                ended=why,
                final=final,
                size=9 * (done - first),
            )
        )
