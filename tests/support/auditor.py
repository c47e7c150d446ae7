"""An auditor of a `FakeLanes`: looks at every step of its scheduler and objects to what must not be.

Where `tests.support.invariants` looks at the books alone, the auditor remembers: what was announced, when a retry is
due, since when something runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mpqueue._core.commands import (
    AnnounceFinished,
    AnnounceItems,
    AnnounceStarted,
    AnnounceState,
    Command,
    LowerLimit,
    SendChunk,
    StartLane,
)
from mpqueue._core.messages import ChunkReported, FailedItemsReset, JobCancelled, Message
from mpqueue._core.rules.dispatch import APART_ALONE, APART_WAIT_S, PASSED_SECONDS, may_start
from mpqueue._core.rules.limits import SHORTEST
from mpqueue._core.state.books import EndedCounts
from mpqueue._core.state.job_book import POISON, JobBook
from mpqueue._core.state.lane_book import Chunk, LaneBook, LaneSeconds, LaneState
from mpqueue._core.state.pending import Care
from mpqueue._wire.frames import STRETCH_SECONDS
from mpqueue._wire.memory.ledger import SETTLE, Phase
from mpqueue.errors import Retry
from mpqueue.status import JobStatus
from tests.support.fake_lanes import FakeLanes
from tests.support.invariants import EPSILON, check_ended, check_invariants, may_serve
from tests.support.timekeeper import Timekeeper


@dataclass
class _Hearing:
    """What was heard of one run of a job."""

    completed: int
    failed: int = 0
    ended: set[int] = field(default_factory=set)
    not_before: dict[int, float] = field(default_factory=dict)  #: when a retry is due
    attempts: Counter[int] = field(default_factory=Counter)


def crew_of(job: JobBook) -> list[JobBook]:
    """The job, or all stages of its pipeline."""
    return [job] if job.stage is None else job.stage.pipeline.jobs


def audited(lanes: int, **options: Any) -> FakeLanes:
    """Lanes with an auditor from their beginning; options as for `FakeLanes`."""
    fleet = FakeLanes(lanes, **options)
    Auditor(fleet)
    return fleet


class Auditor:
    """Watches from its making on. ``steps`` is how many steps of the scheduler it has seen."""

    def __init__(self, fleet: FakeLanes) -> None:
        self.steps = 0
        self._fleet = fleet
        self._books = fleet.books
        self._runs: dict[int, _Hearing] = {}
        self._ended: dict[int, tuple[int, int]] = {}  #: by job: how many had completed and failed when it ended last
        self.finished: Counter[int] = Counter()
        self.started: Counter[int] = Counter()
        #: By job: how many items had completed and failed in an earlier life of the program.
        self.restored: dict[int, tuple[int, int]] = {}
        self._in_line: set[tuple[int, float]] = set()  #: jobs, since when: first in line by now, perhaps
        self._reported: dict[tuple[int, int, int], int] = {}  #: by chunk: how many of its items were reported
        self._lowered: dict[Chunk, tuple[float, int]] = {}  #: when its limit was, and where it ended then
        self._starts: set[tuple[int, int]] = set()  #: lanes and generations whose worker was asked for
        self._counts = EndedCounts()
        self._apart_since: float | None = None  #: since when one that has to run apart waits
        #: By lane and generation: the units of `Books.device` that the worker saw when it began its first such item.
        self._devices: dict[tuple[int, int], Sequence[int]] = {}
        self._over: dict[int, JobBook] = {}  #: jobs that have ended, and may have been started again
        self._timekeeper = Timekeeper(fleet.books)
        self._worked: tuple[LaneSeconds | None, float, float, int] = (None, 0.0, 0.0, 0)
        fleet.watchers.append(self._step)
        fleet.item_watchers.append(self._items_begin)

    def _step(self, message: Message, commands: list[Command]) -> None:
        self.steps += 1
        self._timekeeper.step(message, commands)
        if isinstance(message, ChunkReported):
            self._chunk_reported(message)
        if isinstance(message, JobCancelled) and message.job.status.final:
            check_ended(message.job)
        for command in commands:
            self._commanded(command, message)
        self._in_line = self._passed()
        self._apart_since = self._books.apart_since
        self._check_lane_seconds()
        self.check_ledgers()
        assert self._books.ended == self._counts, "what has ended is what was announced"
        for job in self._over.values():
            assert not job.status.final or not job.waiting, "nothing comes back to a job that has ended"
        check_invariants(self._books)
        self.check_deadlines()

    def _commanded(self, command: Command, message: Message) -> None:
        match command:
            case AnnounceStarted(job):
                self._job_started(job, message)
            case AnnounceItems():
                self._items_told(command)
            case AnnounceState(job):
                hearing = self._runs[job.number]
                assert (command.completed, command.failed) == (hearing.completed, hearing.failed)
                paused = command.event == "job:paused"
                assert command.status is (JobStatus.PAUSED if paused else JobStatus.RUNNING)
            case AnnounceFinished():
                self._job_finished(command)
            case SendChunk():
                self._chunk_sent(command.chunk, self._books.lanes[command.lane])
            case LowerLimit():
                chunk = self._books.lanes[command.lane].find(command.chunk)
                assert chunk is not None
                self._lowered[chunk] = self._fleet.now, chunk.end
            case StartLane():
                self._starts.add((command.lane, command.generation))
            case _:
                pass

    def _check_lane_seconds(self) -> None:
        """While several jobs are active, the books know how long lanes have been at work."""
        kept, now, (counted, since, seconds, lanes) = self._books.lane_seconds, self._books.now, self._worked
        seconds = seconds + lanes * (now - since) if kept is counted else 0.0
        self._worked = kept, now, seconds, self._books.at_work.bit_count()
        assert kept is None or math.isclose(kept.until(now), seconds, abs_tol=EPSILON)

    def check_ledgers(self) -> None:
        """What the books say of a lane's flags and limits is what its worker sees."""
        for lane, worker in zip(self._books.lanes, self._fleet.workers, strict=True):
            started = (lane.number, lane.generation) in self._starts
            assert started or lane.state is not LaneState.STARTING or not self._books.opened, "nobody starts it"
            for chunk in lane.chunks:
                lowered_at, end = self._lowered.get(chunk, (0.0, chunk.end))
                assert chunk.end == end or self._fleet.now >= lowered_at + SETTLE - EPSILON, "taken before it was seen"
            if worker is not None and lane.state is LaneState.READY and worker.generation == lane.generation:
                assert worker.flags[1:] == (lane.flags or (0, False, False))[1:]
                for chunk in lane.chunks:
                    if chunk.settling is not None:
                        assert worker.limits[chunk.number & 1] == (chunk.number, chunk.settling)

    # -- what is announced -------------------------------------------------------------------------------------

    def _job_started(self, job: JobBook, message: Message) -> None:
        assert job.number not in self._runs, "a job starts once"
        self.started[job.number] += 1
        completed, failed = self.restored.pop(job.number, self._ended.get(job.number, (0, 0)))
        if isinstance(message, FailedItemsReset):
            failed -= failed if message.indices is None else len(message.indices)
        tries = Counter(dict(enumerate(job.table.attempts)))
        self._runs[job.number] = _Hearing(completed, failed, attempts=tries)

    def _items_told(self, told: AnnounceItems) -> None:
        hearing, job = self._runs[told.job.number], told.job
        assert told.completed_before == hearing.completed
        assert told.failed_before == hearing.failed
        assert told.status in (JobStatus.RUNNING, JobStatus.PAUSED)
        indices, retrying = set(told.indices), told.retrying.keys()
        assert len(indices) == len(told.indices) > 0
        assert told.failed <= indices
        assert retrying <= indices
        assert not told.failed & retrying
        assert not indices & hearing.ended, "an item ends once"
        for index, retry in told.retrying.items():
            hearing.attempts[index] += 1
            assert retry.attempt == hearing.attempts[index] <= job.options.retry.max_retries
            policy, error = job.options.retry, retry.failure.error
            asked = error.delay if isinstance(error, Retry) else None
            assert retry.delay == (
                float(policy.base_delay) * policy.factor ** (retry.attempt - 1) if asked is None else asked
            )
            hearing.not_before[index] = self._fleet.now + retry.delay
        hearing.ended |= indices - retrying
        hearing.failed += len(told.failed)
        hearing.completed += len(indices) - len(told.failed) - len(retrying)
        if job.listed:
            self._counts.retries += len(retrying)
            if job.stage is None:
                self._counts.failed += len(told.failed)
                self._counts.completed += len(indices) - len(told.failed) - len(retrying)

    def _job_finished(self, told: AnnounceFinished) -> None:
        job = told.job
        hearing = self._runs.pop(job.number, None)
        assert hearing is not None or (told.status is JobStatus.CANCELLED and not self.started[job.number])
        if hearing is not None:
            assert (told.completed, told.failed) == (hearing.completed, hearing.failed)
            self._timekeeper.check(job)
        assert told.duration == (job.duration or 0.0) >= 0
        self.finished[job.number] += 1
        self._ended[job.number] = told.completed, told.failed
        self._over[job.number] = job
        assert told.status is job.status
        assert (told.completed, told.failed) == (job.completed, job.failed)
        check_ended(job)

    # -- what runs ---------------------------------------------------------------------------------------------

    def _chunk_reported(self, report: ChunkReported) -> None:
        of_chunk = (report.lane, report.generation, report.chunk)
        assert report.first >= self._reported.get(of_chunk, 0), (
            "what a worker says comes in the order in which it said it"
        )
        self._reported[of_chunk] = report.done

    def _chunk_sent(self, chunk: Chunk, lane: LaneBook) -> None:
        job = chunk.job
        assert len(chunk.indices) > 0
        assert job.status is JobStatus.RUNNING, "nothing starts while paused"
        assert not job.cancelled, "nothing starts once cancelled"
        assert lane.chunks[0] is chunk or not self._idle_lanes(job), "empty lanes first"
        self._check_care(chunk, lane)
        if self._books.any_needs and lane.chunks[0] is chunk:
            alone = self._books.at_work == lane.bit
            assert self._books.places >= 0 or alone or self._books.most_lanes is not None, "more CPUs than places"
        if chunk.care is Care.APART:
            return  # its turn comes when nothing else runs, or when it has waited long enough
        for other in self._books.jobs.values():
            if other is job or not other.runnable or not other.may_use(lane.number, self._books.now):
                continue
            if other.stage is not None and other in crew_of(job):
                assert job.stage is not None
                capped = not other.may_have_more(None)
                able = may_serve(self._books, lane, other) and other.next_care <= chunk.care
                able = able and not self._had_its_turn()
                assert capped or not able or job.stage.place > other.stage.place, "the last stage first"
                continue
            if not other.may_have_more(None):
                continue
            if other.next_care is Care.APART:
                continue  # waits for all lanes, and no longer than it must
            if self._books.any_needs and self._stood_back(job, other):
                continue
            assert other.options.priority <= job.options.priority, "the higher priority first"
            if other.options.priority == job.options.priority:
                contested = [one for one in self._books.lanes if other.may_use(one.number, self._books.now)]
                held = sum(one.job in crew_of(job) for one in contested)
                assert held <= sum(each.lanes_held for each in crew_of(other)) + 1, (
                    "equal jobs share the lanes that both may use"
                )

    def _had_its_turn(self) -> bool:
        """True where something was perhaps first in line until this step sent it: a later stage stood back for it.

        An earlier stage may be what is first: it has waited for longer. The books say who stands back after the step.
        """
        gone = self._in_line - self._passed()
        return any(self._fleet.now >= since + PASSED_SECONDS for _, since in gone)

    def _passed(self) -> set[tuple[int, float]]:
        return {(job.number, job.waits_since) for job in self._books.jobs.values() if job.waits_since is not None}

    def _stood_back(self, job: JobBook, other: JobBook) -> bool:
        """True where the other job may have had to let this one go first, which is first in line or has needs."""
        return job.needs is not None or other.needs is not None or not may_start(self._books, other)

    def _check_care(self, chunk: Chunk, lane: LaneBook) -> None:
        """What kills workers travels alone, with nothing behind it; what died of memory has the queue to itself."""
        others = [one for other in self._books.lanes for one in other.chunks if one is not chunk]
        apart = [one.sent_at for one in others if one.care is Care.APART]
        assert not apart or self._fleet.now - max(apart) >= APART_ALONE - EPSILON, "beside one that runs apart"
        if chunk.care is Care.APART:
            assert lane.tries == 1 / chunk.job.options.items_per_task, "in a new worker"
            # What is of a higher priority than the first one to wait was perhaps sent meanwhile.
            waiting = [job for job in self._books.jobs.values() if job.next_care is Care.APART]
            least = min(job.options.priority for job in (chunk.job, *waiting))
            sent = [one for one in others if one.job.options.priority <= least]
            since = self._apart_since
            waited = since is not None and self._fleet.now - since >= APART_WAIT_S - EPSILON
            assert not sent or waited, "what runs ends first, unless it has waited for long"
        elif (most := self._books.headroom.lanes) is not None:
            busy = sum(bool(one.chunks) for one in self._books.lanes)
            assert busy <= most or len(self._books.lanes) <= most, "more lanes than there is memory for"
        assert len(lane.chunks) == 1 or max(one.care for one in lane.chunks) < Care.ALONE
        assert len(chunk.indices) == 1 or chunk.care < Care.APART
        for index in chunk.indices:
            # Those of an earlier run count from the next death on.
            if chunk.job.is_poison(index) and chunk.job.table.attempts[index] >= POISON:
                assert chunk.care >= Care.ALONE, "poison among others"

    def _idle_lanes(self, job: JobBook) -> list[int]:
        """Lanes without anything to do that could have the job's items."""
        books = self._books
        if not job.may_have_more(None) or (books.any_needs and not job.runnable):
            return []
        return [lane.number for lane in books.lanes if books.idle(lane) and may_serve(books, lane, job)]

    def _items_begin(self, chunk: Chunk, lo: int, hi: int) -> None:
        """In a worker, on the other side of the flags."""
        job, now = chunk.job, self._fleet.now
        self._check_devices(chunk)
        assert hi <= max(chunk.end, chunk.claimed), "nothing runs that was taken elsewhere"
        if not job.active:
            return
        running = job.status is JobStatus.RUNNING and not job.cancelled
        assert running or self._is_dying(chunk), "nothing begins while paused or cancelled"
        cancelled = job.dropped.intersection(chunk.indices[lo:hi])
        assert not cancelled or self._is_dying(chunk), "nothing begins that was cancelled"
        not_before = self._runs[job.number].not_before
        for index in chunk.indices[lo:hi]:
            assert now >= not_before.get(index, 0.0) - EPSILON, "a retry waits for its time"

    def _check_devices(self, chunk: Chunk) -> None:
        """A worker sees the units that it had at first, and no others."""
        units = None if chunk.grant is None else chunk.grant.units.get(self._books.device or "")
        for lane in self._books.lanes:
            if units is not None and chunk in lane.chunks:
                assert units == self._devices.setdefault((lane.number, lane.generation), units)

    def _is_dying(self, chunk: Chunk) -> bool:
        return any(chunk in lane.chunks and lane.verdict is not None for lane in self._books.lanes)

    def check_deadlines(self) -> None:
        """Nothing runs beyond its timeout."""
        fleet = self._fleet
        for lane, worker in zip(self._books.lanes, fleet.workers, strict=True):
            job = lane.job
            if worker is None or not worker.alive or job is None or worker.idle:
                continue
            claim, options = worker.claim, job.options
            limit = {Phase.RUNNING: options.timeout, Phase.LOADING: options.setup_timeout}.get(claim.phase)
            if limit is not None and any(claim.is_of(chunk.number) for chunk in lane.chunks):
                others_before = STRETCH_SECONDS if claim.phase is Phase.RUNNING and claim.hi - claim.lo > 1 else 0.0
                overdue = fleet.now - claim.since - others_before - max(limit, SHORTEST) - fleet.kill_seconds
                assert overdue <= EPSILON, f"lane {lane.number} is {overdue} s over its time"

    def check_runs(self) -> None:
        """Every run that began has ended once."""
        assert self._runs == {}
        assert all(self.finished[number] == count for number, count in self.started.items())
