"""Jobs that stop before their end: cancelled, with too many failed items, or out of time."""

from __future__ import annotations

from mpqueue._core.commands import HurryJob
from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.timers import Timer, TimerKind
from mpqueue.status import JobStatus


def begin(books: Books, job: JobBook) -> None:
    """Count the job's failures and its time from now on."""
    job.stopped_why, job.excused = None, 0
    if job.options.deadline is not None:
        books.timers.add(books.now + job.options.deadline, TimerKind.STOP, job.number, 0, job.epoch)


def count_failures(books: Books, job: JobBook) -> None:
    """Stop the job before more items are sent, if too many have failed."""
    most = job.options.max_failures
    if most is not None and _failures(job) > most:
        books.timers.add(books.now, TimerKind.STOP, job.number, 1, job.epoch)
        if job.options.stops_at_once and not job.killed:
            hurry(books, job)  # here: it may end in this step


def hurry(books: Books, job: JobBook) -> None:
    """Note that the job, with the pipeline that it is part of, is killed, also if it has just ended."""
    for each in job.family:
        each.killed = True
    books.commands.append(HurryJob(job))


def _failures(job: JobBook) -> int:
    return job.failed - job.failed_before - job.excused


def due(books: Books, timer: Timer) -> JobBook | None:
    """Return the job to cancel now, with the reason noted; None if it has ended, or is being cancelled."""
    job = books.jobs.get(timer.subject)
    if job is None or job.epoch != timer.epoch or job.cancelled:
        return None
    failed, options = _failures(job), job.options
    if timer.detail:
        job.stopped_why = f"{failed} items failed, more than max_failures={options.max_failures}"
    else:
        job.stopped_why = f"it was not over after deadline={options.deadline:g} seconds"
    return job


def drop_all(job: JobBook) -> list[JobBook]:
    """Start no more items of the job, or of its pipeline; waiting ones are pending, without losing a try.

    Returns the jobs concerned, in the order in which they have to end: the head of a pipeline is the last one.
    """
    family = [each for each in job.family if each.active]
    for each in family:  # all of them first: the end of one stage may be that of the next
        each.cancelled = True
        if each.status is JobStatus.PAUSED:
            each.status = JobStatus.RUNNING
        each.drop_pending()
    return sorted(family, key=lambda each: each.pipeline is not None)
