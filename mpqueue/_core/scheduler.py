"""The scheduler: messages about events go in, commands come out.

No thread, no process, no clock, no input or output. The time of each step is an argument, randomness comes from the
source given at the start, so that any history can be replayed from its messages.

    user calls, lanes, time  --messages-->  handle(message, now)  --commands-->  coordinator
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpqueue._core.capabilities import Capabilities
from mpqueue._core.commands import AnnounceFinished, AnnounceStarted, AnnounceState, Command, SetFlags
from mpqueue._core.messages import (
    ChunkPacked,
    ChunkPacking,
    ChunkRefused,
    ChunkReported,
    ChunkSent,
    FailedItemsReset,
    FaultFound,
    ItemsAdded,
    ItemsDropped,
    JobCancelled,
    JobForgotten,
    JobHeldBack,
    JobPaused,
    JobResumed,
    JobSealed,
    JobStartAsked,
    LaneAbsent,
    LaneBroken,
    LaneDied,
    LaneInitialized,
    LaneObserved,
    LaneReady,
    LanesResized,
    LaneStartFailed,
    LanesWanted,
    MemoryRead,
    Message,
    ModulesReloaded,
    QueueClosing,
    QueueOpened,
    RecordsLeft,
    Slept,
    TimePassed,
)
from mpqueue._core.rules import (
    arrivals,
    dispatch,
    distrust,
    draining,
    dropping,
    fleet,
    memory,
    outcomes,
    overdue,
    reports,
    stealing,
    stopping,
)
from mpqueue._core.state.books import NOTHING, Books, Decide
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneBook, LaneState
from mpqueue._core.state.timers import Timer, TimerKind
from mpqueue.errors import InternalError, JobStateError
from mpqueue.status import FAILED, ITEM_CODES, OVER, JobStatus

if TYPE_CHECKING:
    import random

#: Seconds after which it wants to be called again: users may ask for longer waits than a system supports.
LONGEST_WAIT = 86400.0


class Scheduler:
    """Makes all decisions: which item runs where, which is tried again, when a job is over.

    Only `handle` writes into the books. The maker of a job builds its `JobBook` and table; from the first message that
    names them, they are the scheduler's.

    Raises `JobStateError` from `handle`, having changed nothing, for a call that the job's state does not allow.
    """

    def __init__(
        self,
        lanes: int,
        rng: random.Random,
        *,
        max_items_per_worker: int | None = None,
        max_memory_per_worker: int | None = None,
        has_initializer: bool = False,
        engine: Capabilities = Capabilities(),  # noqa: B008 - frozen
        decide: Decide | None = None,
        resources: Mapping[str, int] = NOTHING,
        device: str | None = None,
    ) -> None:
        self.books = Books(
            lanes,
            max_items_per_worker,
            rng,
            engine,
            max_memory_per_worker,
            has_initializer,
            decide,
            resources=resources,
            device=device,
        )

    @property
    def deadline(self) -> float | None:
        """The moment at which `TimePassed` is due at the latest; None: nothing is due."""
        due = self.books.timers.next_due()
        return None if due is None else min(due, self.books.now + LONGEST_WAIT)

    @property
    def quiet(self) -> bool:
        """True if no job is active and no worker has work left, including its initializer."""
        books = self.books
        starting = books.opened and books.has_initializer
        return not books.jobs and not any(
            lane.chunks or lane.forgetting or (starting and lane.state is LaneState.STARTING) for lane in books.lanes
        )

    def handle(self, message: Message, now: float) -> list[Command]:
        """Handle one message; returns the commands, in order."""
        books = self.books
        books.now = max(now, books.now)
        books.commands = []
        _HANDLERS[type(message)](self, message)
        if type(message) is not ChunkSent:  # each chunk has one, and it lets no more items be sent
            self._take_due_timers()
            dispatch.dispatch(books)
            stealing.consider(books)
            if books.engine.follows_demand and books.opened:
                fleet.tell_demand(books)
        commands, books.commands = books.commands, []  # their contents must not live until the next step
        return commands

    def break_down(self, error: InternalError) -> list[JobBook]:
        """End all jobs in their current state, as the last resort, and return them: nothing is decided any more."""
        return distrust.break_down(self.books, error)

    # -- jobs ------------------------------------------------------------------------------------------------

    def _job_started(self, message: JobStartAsked) -> None:
        job = message.job
        if job.status is not JobStatus.PENDING:
            if not job.restored:
                raise JobStateError(
                    f"job {job.id!r}: expected a pending job to start, got one that is {job.status}{_remedy(job)}"
                )
            job.restored = False
            ended = AnnounceFinished(job, job.status, job.completed, job.failed, job.duration or 0.0)
            self.books.commands += [_started(job), ended]
            return
        self._activate(message)

    def _activate(self, message: JobStartAsked | FailedItemsReset) -> None:
        books, job = self.books, message.job
        if message.handler is not None:
            job.handler = message.handler
        job.seconds_used = self._least_used(job)
        job.status = JobStatus.RUNNING
        if job.pipeline is not None:
            job.pipeline.count_lanes = lambda: max(1, books.present)
        job.remember_run()
        job.started_at, job.started_mono = message.wall, books.now
        job.finished_at = job.duration = None
        job.epoch += 1
        job.setups.clear()
        job.fault = job.interrupted = None
        books.jobs[job.number] = job
        books.any_apart |= job.pending.any_apart
        job.sizer.begin(books.engine, books.present)
        self._begin_timing(job)
        stopping.begin(books, job)
        if job.needs is not None:
            books.any_needs = True
            books.resources.limit_memory(job.needs.memory)
        if job.delivery is not None:
            job.held_back += 1  # until its sink is open
        books.commands.append(_started(job))
        if job.dropped:
            dropping.begin(books, job)
        fleet.start_again(books)
        if books.init_error is not None and not books.ready:
            fleet.fail_for_initializer(books)
        outcomes.finish_if_over(books, job)

    def _begin_timing(self, job: JobBook) -> None:
        job.timings.begin(self.books.now, len(self.books.lanes), self.books.ready)
        if job.samples is not None:
            job.samples.begin()
        if len(self.books.jobs) > 1:
            self.books.keep_company()

    def _least_used(self, job: JobBook) -> float:
        """The worker seconds with which a job joins its equals: it gets no compensation for earlier time."""
        if not self.books.jobs or job.pipeline is not None or (job.stage is not None and job.stage.place):
            return 0.0
        return min(
            (
                other.seconds_used if other.stage is None else other.stage.pipeline.seconds
                for other in self.books.jobs.values()
                if other.status is JobStatus.RUNNING and other.options.priority == job.options.priority
                if other.pipeline is None and other not in job.family
            ),
            default=0.0,
        )

    def _failed_items_reset(self, message: FailedItemsReset) -> None:
        job = message.job
        if job.stage is not None or job.pipeline is not None:
            raise JobStateError(f"job {job.id!r}: expected a job with one handler to retry, got one with stages")
        if job.status not in (JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS):
            raise JobStateError(f"job {job.id!r}: expected a job that has ended, got one that is {job.status}")
        _check_failed(job, message.indices)
        job.restored = False
        again = job.table.forget_failures(message.indices)
        job.failed -= len(again)
        job.dropped.difference_update(again)
        for index in again:
            job.pending.add_due(index)
        self._activate(message)

    def _job_paused(self, message: JobPaused) -> None:
        job = message.job.family[0]
        if job.status is JobStatus.PAUSED:
            return
        if job.status is not JobStatus.RUNNING or job.cancelled:
            state = "being cancelled" if job.active else str(job.status)
            raise JobStateError(f"job {job.id!r}: expected a running job to pause, got one that is {state}")
        for each in job.family:
            if each.active:
                self._pause(each)
        if self.books.closing:
            self._cancel(job, kill=False)

    def _pause(self, job: JobBook) -> None:
        job.status = JobStatus.PAUSED
        job.timings.paused(self.books.now)
        self._announce_state(job, "job:paused")
        self._flag_lanes(job)

    def _job_resumed(self, message: JobResumed) -> None:
        job = message.job.family[0]
        if job.status is JobStatus.RUNNING:
            return
        if job.status is not JobStatus.PAUSED:
            raise JobStateError(f"job {job.id!r}: expected a paused job to resume, got one that is {job.status}")
        for each in job.family:
            if each.paused:
                self._resume(each)

    def _resume(self, job: JobBook) -> None:
        job.seconds_used = max(job.seconds_used, self._least_used(job))
        job.status = JobStatus.RUNNING
        job.timings.resumed(self.books.now)
        self._announce_state(job, "job:resumed")
        self._flag_lanes(job)

    def _job_held_back(self, message: JobHeldBack) -> None:
        message.job.held_back += 1 if message.held else -1

    def _announce_state(self, job: JobBook, event: str) -> None:
        self.books.commands.append(AnnounceState(job, event, job.status, job.completed, job.failed))

    def _job_cancelled(self, message: JobCancelled) -> None:
        job = message.job.family[0]
        if job.status.final:
            if message.why is not None and job.status in OVER:  # it was found out when all items had ended
                job.status, job.cancelled, job.stopped_why = JobStatus.CANCELLED, True, message.why
            return
        if message.why is not None and not job.cancelled:
            job.stopped_why = message.why
        if job.status is JobStatus.PENDING:
            job.cancelled = True
            outcomes.finish(self.books, job, JobStatus.CANCELLED)
            job.finished_at = message.wall
        else:
            self._cancel(job, message.kill)

    def _cancel(self, job: JobBook, kill: bool) -> None:
        """Cancel the job, or the pipeline that it is part of."""
        for each in stopping.drop_all(job):
            if each.active:
                self._cancel_one(each, kill)

    def _cancel_one(self, job: JobBook, kill: bool) -> None:
        self._flag_lanes(job)
        if kill:
            overdue.end_running(self.books, job)
        outcomes.finish_if_over(self.books, job)

    def _flag_lanes(self, job: JobBook) -> None:
        """Set the flags of the lanes with the job's chunks to the job's state."""
        wanted = (job.number, job.paused, job.cancelled)
        for lane in self.books.members(job.lanes):
            if lane.state is LaneState.READY:
                lane.flags = wanted if job.paused or job.cancelled else None
                self.books.commands.append(SetFlags(lane.number, *wanted))

    def _queue_closing(self, message: QueueClosing) -> None:
        self.books.closing = True
        if message.within is not None:
            draining.begin(self.books, message.within)
        if message.kill:
            fleet.forget_lanes(self.books)  # their workers are killed next, without a wait for their deaths
        for job in list(self.books.jobs.values()):
            if message.cancel or message.within is not None or job.paused:
                self._cancel(job, kill=False)
            elif job.listed and not job.sealed and job.stage is None:  # no caller can add to it any more, or seal it
                arrivals.sealed(self.books, JobSealed(job))

    # -- lanes -----------------------------------------------------------------------------------------------

    def _lane_message(self, message: Any) -> None:
        lane = self.books.live_lane(message.lane, message.generation)
        if lane is None:
            return
        _LANE_HANDLERS[type(message)](self.books, lane, message)
        if lane.flags is not None and not lane.chunks and lane.state is LaneState.READY:
            self.books.commands.append(SetFlags(lane.number, lane.flags[0], False, False))
            lane.flags = None

    def _chunk_sent(self, message: ChunkSent) -> None:
        lane = self.books.live_lane(message.lane, message.generation)
        if lane is not None and (chunk := lane.find(message.chunk)) is not None:
            reports.sent(chunk, message)

    def _books_message(self, message: Message) -> None:
        _BOOKS_HANDLERS[type(message)](self.books, message)

    # -- time ------------------------------------------------------------------------------------------------

    def _take_due_timers(self) -> None:
        books = self.books
        for timer in books.timers.take_due(books.now):
            self._timer_due(timer)

    def _timer_due(self, timer: Timer) -> None:
        books = self.books
        match timer.kind:
            case TimerKind.RETRY:
                outcomes.retry_due(books, timer.subject, timer.detail, timer.epoch)
            case TimerKind.STEAL_CHECK:
                stealing.check_due(books, timer.due)
            case TimerKind.LOOK:
                overdue.look_again(books)
            case TimerKind.NO_LANES:
                fleet.nobody_came(books)
            case TimerKind.DRAINED:
                draining.time_is_up(books, killed=bool(timer.detail))
            case TimerKind.STOP:
                if (job := stopping.due(books, timer)) is not None:
                    self._cancel(job, kill=False)
            case TimerKind.SETUP_AGAIN | TimerKind.APART | TimerKind.GO_ON:
                pass  # this step's dispatch finds that it may go on
            case _:
                lane = books.live_lane(timer.subject, timer.detail)
                if lane is not None:
                    _lane_timer_due(books, lane, timer)


def _lane_timer_due(books: Books, lane: LaneBook, timer: Timer) -> None:
    match timer.kind:
        case TimerKind.LANE_CHECK:
            overdue.check_due(books, lane, timer.due)
        case TimerKind.LIMIT_SETTLED:
            stealing.limit_settled(books, lane)
        case _:
            fleet.start_due(books, lane)


def _started(job: JobBook) -> AnnounceStarted:
    return AnnounceStarted(job) if job.delivery is None else AnnounceStarted(job, [*job.table.ended_stretches()])


def _observed(books: Books, lane: LaneBook, message: LaneObserved) -> None:
    stealing.judge(books, lane, message.claim, books.now if message.asked_at is None else message.asked_at)
    overdue.judge(books, lane, message)


def _forgotten(books: Books, lane: LaneBook, message: JobForgotten) -> None:
    lane.forgetting -= 1
    lane.waiting_since = books.now


def _slept(books: Books, message: Slept) -> None:
    books.sleeps.add(message.since, message.until)


def _ignore(books: Books, message: Message) -> None:
    """Do nothing: only the common part of a step is needed."""


_BOOKS_HANDLERS: dict[type, Callable[[Books, Any], None]] = {
    QueueOpened: fleet.open_lanes,
    TimePassed: _ignore,
    Slept: _slept,
    ItemsAdded: arrivals.items_added,
    JobSealed: arrivals.sealed,
    ItemsDropped: dropping.items_dropped,
    LanesWanted: fleet.lanes_wanted,
    LanesResized: fleet.lanes_resized,
    MemoryRead: memory.memory_read,
    ModulesReloaded: fleet.modules_reloaded,
    FaultFound: distrust.fault_found,
    ChunkRefused: reports.refused,
    ChunkPacked: reports.packed,
}

_LANE_HANDLERS: dict[type, Callable[[Books, LaneBook, Any], None]] = {
    LaneReady: fleet.lane_ready,
    LaneInitialized: fleet.lane_initialized,
    LaneStartFailed: fleet.lane_start_failed,
    LaneAbsent: fleet.lane_absent,
    LaneDied: fleet.lane_died,
    LaneBroken: overdue.lane_broken,
    LaneObserved: _observed,
    ChunkReported: reports.reported,
    RecordsLeft: reports.records_left,
    ChunkPacking: reports.packing,
    JobForgotten: _forgotten,
}

_HANDLERS: dict[type, Callable[[Scheduler, Any], None]] = {
    JobStartAsked: Scheduler._job_started,
    JobPaused: Scheduler._job_paused,
    JobResumed: Scheduler._job_resumed,
    JobHeldBack: Scheduler._job_held_back,
    JobCancelled: Scheduler._job_cancelled,
    FailedItemsReset: Scheduler._failed_items_reset,
    QueueClosing: Scheduler._queue_closing,
    ChunkSent: Scheduler._chunk_sent,
    **dict.fromkeys(_BOOKS_HANDLERS, Scheduler._books_message),
    **dict.fromkeys(_LANE_HANDLERS, Scheduler._lane_message),
}


def _check_failed(job: JobBook, indices: Sequence[int] | None) -> None:
    """Raise `JobStateError` if one of these items has not failed."""
    table = job.table
    for index in () if indices is None else indices:
        if table.status[index] != FAILED:
            raise JobStateError(
                f"job {job.id!r}: expected failed items to retry, got item {table.named_plainly(index)}, which is "
                f"{ITEM_CODES[table.status[index]]}"
            )


def _remedy(job: JobBook) -> str:
    """Return advice for a caller that starts a job that is not pending."""
    if not job.status.final:
        return ""
    if len(job.family) > 1:
        return f"; run_stages() with another id, or after clear_job({job.family[0].id!r}), makes it anew"
    failed = "retry_failed() runs its failed items again, and " if job.status is JobStatus.COMPLETED_WITH_ERRORS else ""
    return f"; {failed}create_job() with replace=True makes it anew"
