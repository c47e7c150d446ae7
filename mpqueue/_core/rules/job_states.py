"""What users ask of jobs: start, pause, resume, cancel, try again, close; each as far as the job's state allows it.

Draining: no new items start, and running ones have a limited time, after which they are taken back without losing a
try. All jobs are cancelled first, so that their remaining items end as pending. The finished results of a worker that
is killed when the time is up are taken in before its death is settled. A worker that can't be killed, or does not die,
is not waited for: the jobs end without it, and its items count as not run.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpqueue._core.commands import AnnounceFinished, AnnounceStarted, AnnounceState, SetFlags
from mpqueue._core.messages import (
    FailedItemsReset,
    JobCancelled,
    JobHeldBack,
    JobPaused,
    JobResumed,
    JobSealed,
    JobStartAsked,
    QueueClosing,
)
from mpqueue._core.rules import dispatch, fleet, limits, outcomes, stealing
from mpqueue._core.state.books import Books, Timer, TimerKind
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneState
from mpqueue.errors import JobStateError
from mpqueue.status import FAILED, ITEM_CODES, OVER, JobStatus

#: Seconds in which a killed worker should be dead, while the queue is drained.
DEATH_SECONDS = 5.0


# -- starting ----------------------------------------------------------------------------------------------------------


def started(books: Books, message: JobStartAsked) -> None:
    """Start a pending job; say again that a job has ended which had, by a journal."""
    job = message.job
    if job.status is JobStatus.PENDING:
        _activate(books, message)
        return
    if not job.restored:
        raise JobStateError(
            f"job {job.id!r}: expected a pending job to start, got one that is {job.status}{_remedy(job)}"
        )
    job.restored = False
    ended = AnnounceFinished(job, job.status, job.completed, job.failed, job.duration or 0.0)
    books.commands += [_announcement(job), ended]


def failed_items_reset(books: Books, message: FailedItemsReset) -> None:
    """Start an ended job again, with failed items of it."""
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
    _activate(books, message)


def _activate(books: Books, message: JobStartAsked | FailedItemsReset) -> None:
    job = message.job
    if message.handler is not None:
        job.handler = message.handler
    job.seconds_used = _least_used(books, job)
    job.status = JobStatus.RUNNING
    if job.pipeline is not None:
        job.pipeline.count_lanes = lambda: max(1, books.present)
    job.remember_run()
    job.started_at, job.started_mono = message.wall, books.now
    job.finished_at = job.duration = None
    job.epoch += 1
    job.killed = False
    job.setups.clear()
    books.jobs[job.number] = job
    job.sizer.begin(books.capabilities, books.present)
    _begin_timing(books, job)
    outcomes.begin_limits(books, job)
    books.any_timeouts |= job.has_timeouts
    if job.needs is not None:
        books.any_needs = True
        books.resources.limit_memory(job.needs.memory)
    if job.delivery is not None:
        job.held_back += 1  # until its sink is open
    books.commands.append(_announcement(job))
    if job.dropped:
        stealing.drop_at_start(books, job)
    fleet.start_again(books)
    if books.init_error is not None and not books.ready:
        fleet.fail_for_initializer(books)
    outcomes.finish_if_over(books, job)


def _begin_timing(books: Books, job: JobBook) -> None:
    job.timings.begin(books.now, len(books.lanes), books.ready)
    if job.samples is not None:
        job.samples.begin()
    if len(books.jobs) > 1:
        books.keep_company()


def _least_used(books: Books, job: JobBook) -> float:
    """The worker seconds with which a job joins its equals: it gets no compensation for earlier time."""
    if not books.jobs or job.pipeline is not None or (job.stage is not None and job.stage.place):
        return 0.0
    return min(
        (
            other.seconds_used if other.stage is None else other.stage.pipeline.seconds
            for other in books.jobs.values()
            if other.status is JobStatus.RUNNING and other.options.priority == job.options.priority
            if other.pipeline is None and other not in job.family
        ),
        default=0.0,
    )


def _announcement(job: JobBook) -> AnnounceStarted:
    return AnnounceStarted(job) if job.delivery is None else AnnounceStarted(job, [*job.table.ended_stretches()])


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


# -- pausing -----------------------------------------------------------------------------------------------------------


def paused(books: Books, message: JobPaused) -> None:
    """Start no more items of a running job, or of its pipeline."""
    job = message.job.family[0]
    if job.status is JobStatus.PAUSED:
        return
    if job.status is not JobStatus.RUNNING or job.cancelled:
        state = "being cancelled" if job.active else str(job.status)
        raise JobStateError(f"job {job.id!r}: expected a running job to pause, got one that is {state}")
    for each in job.family:
        if each.active:
            each.status = JobStatus.PAUSED
            each.timings.paused(books.now)
            _announce_state(books, each, "job:paused")
    if books.closing:
        _cancel(books, job, kill=False)


def resumed(books: Books, message: JobResumed) -> None:
    """Let a paused job, or its pipeline, go on."""
    job = message.job.family[0]
    if job.status is JobStatus.RUNNING:
        return
    if job.status is not JobStatus.PAUSED:
        raise JobStateError(f"job {job.id!r}: expected a paused job to resume, got one that is {job.status}")
    for each in job.family:
        if each.paused:
            each.seconds_used = max(each.seconds_used, _least_used(books, each))
            each.status = JobStatus.RUNNING
            each.timings.resumed(books.now)
            _announce_state(books, each, "job:resumed")


def held_back(_: Books, message: JobHeldBack) -> None:
    """Send nothing more of a job until its results have room again."""
    message.job.held_back += 1 if message.held else -1


def _announce_state(books: Books, job: JobBook, event: str) -> None:
    books.commands.append(AnnounceState(job, event, job.status, job.completed, job.failed))
    _flag_lanes(books, job)


def _flag_lanes(books: Books, job: JobBook) -> None:
    """Set the flags of the lanes with the job's chunks to the job's state."""
    wanted = (job.number, job.paused, job.cancelled)
    for lane in books.members(job.lanes):
        if lane.state is LaneState.READY:
            lane.flags = wanted if job.paused or job.cancelled else None
            books.commands.append(SetFlags(lane.number, *wanted))


# -- cancelling --------------------------------------------------------------------------------------------------------


def cancelled(books: Books, message: JobCancelled) -> None:
    """Cancel a job, or its pipeline: it ends when its running items have."""
    job = message.job.family[0]
    if message.kill:
        outcomes.hurry(books, message.job)
    if job.status.final:
        if message.why is not None and job.status in OVER:  # it was found out when all items had ended
            job.status, job.cancelled, job.stopped_why = JobStatus.CANCELLED, True, message.why
        return
    if message.why is not None and not job.cancelled:
        job.stopped_why = message.why
    if job.status is JobStatus.PENDING:
        job.cancelled = True
        outcomes.finish(books, job, JobStatus.CANCELLED)
        job.finished_at = message.wall
    else:
        _cancel(books, job, message.kill)


def _cancel(books: Books, job: JobBook, kill: bool) -> None:
    """Cancel the job, or the pipeline that it is part of."""
    for each in outcomes.drop_all(job):
        if each.active:
            _flag_lanes(books, each)
            if kill:
                limits.end_running(books, each)
            outcomes.finish_if_over(books, each)


def stop_due(books: Books, timer: Timer) -> None:
    """Cancel a job that has too many failures, or is out of time."""
    if (job := outcomes.take_stopped(books, timer)) is not None:
        _cancel(books, job, kill=job.options.stops_at_once)


def queue_closing(books: Books, message: QueueClosing) -> None:
    """End the jobs that may not go on. A second call can only shorten the time of running items."""
    books.closing = True
    if message.within is not None:
        books.draining = True
        books.timers.add(books.now + message.within, TimerKind.DRAINED)
    if message.kill:
        fleet.forget_lanes(books)  # their workers are killed next, without a wait for their deaths
    for job in list(books.jobs.values()):
        if message.cancel or message.within is not None or job.paused:
            _cancel(books, job, kill=False)
        elif job.listed and not job.sealed and job.stage is None:  # no caller can add to it any more, or seal it
            dispatch.sealed(books, JobSealed(job))


def drain_due(books: Books, timer: Timer) -> None:
    """End running items, as their time is over; with a detail, the time of the killed workers is over too."""
    if not books.jobs:
        return
    jobs = list(books.jobs.values())
    if timer.detail or not books.capabilities.own_processes:
        fleet.forget_lanes(books)
        for job in jobs:
            outcomes.finish_if_over(books, job)
        return
    for job in jobs:
        limits.end_running(books, job)
    books.timers.add(books.now + DEATH_SECONDS, TimerKind.DRAINED, detail=True)
