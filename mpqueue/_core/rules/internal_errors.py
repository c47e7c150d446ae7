"""Distrust after an internal error of mpqueue: the affected jobs end, and none of their lanes is trusted.

A half-done step may have left wrong data in the books of a lane. So such a lane is not used any more: its worker is
killed, its next generation begins, and items of other jobs on it run again without losing a try.
"""

from __future__ import annotations

from collections.abc import Collection

from mpqueue._core.commands import GiveUpJob, KillLane, RecycleLane
from mpqueue._core.messages import FaultFound
from mpqueue._core.rules import fleet
from mpqueue._core.rules.outcomes import fail_rest, finish, finish_if_over, put_back
from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneBook
from mpqueue.errors import InternalError
from mpqueue.status import JobStatus


def fault_found(books: Books, fault: FaultFound) -> None:
    """End the jobs and lanes that the fault affects; see `FaultFound`."""
    named = None if fault.lane is None else books.lanes[fault.lane]
    if named is not None and fault.generation not in (None, named.generation):
        named = None  # that worker has ended, and the fault with it
        if fault.job is None or not fault.job.active:
            return
    jobs = _touched(books, fault.job, named)
    for lane in _distrusted(books, jobs, fault.job, named):
        _replace(books, lane)
    for job in jobs:
        _end(books, job, fault.error)
    if fault.job is not None and named is None and fault.job.status.final and fault.job not in jobs:
        fault.job.fault = fault.error
        books.commands.append(GiveUpJob(fault.job))


def break_down(books: Books, error: InternalError) -> list[JobBook]:
    """End all jobs in their current state: nothing works any more. Returns those that were active."""
    jobs = list(books.jobs.values())
    books.jobs.clear()
    for job in jobs:
        job.fault = error
        job.status = JobStatus.COMPLETED_WITH_ERRORS
    return jobs


def _touched(books: Books, job: JobBook | None, lane: LaneBook | None) -> list[JobBook]:
    """Return the job that the fault names; else that of the lane that it names; else all active ones."""
    if job is not None:
        return [each for each in job.family if each.active]
    if lane is not None and lane.job is not None:
        return [each for each in lane.job.family if each.active]
    return list(books.jobs.values())


def _distrusted(books: Books, jobs: Collection[JobBook], job: JobBook | None, named: LaneBook | None) -> list[LaneBook]:
    if job is None and named is None:
        return list(books.lanes)
    return [lane for lane in books.lanes if lane is named or lane.job in jobs]


def _replace(books: Books, lane: LaneBook) -> None:
    was_starting = lane.pid is None
    for chunk in list(lane.chunks):
        books.remove_chunk(lane, chunk)
        put_back(books, chunk.job, chunk.indices[chunk.reported : chunk.end])
        finish_if_over(books, chunk.job)
    for job in books.jobs.values():
        job.timings.lane_gone(lane.number, books.now, worked=False, died=True)
    if books.opened:
        books.commands += [KillLane(lane.number), RecycleLane(lane.number)]
        fleet.start_anew(books, lane, after_pause=was_starting)


def _end(books: Books, job: JobBook, error: InternalError) -> None:
    job.fault = error
    fail_rest(books, job, error)
    if job.active:  # items might still have been added
        finish(books, job, JobStatus.CANCELLED if job.cancelled else JobStatus.COMPLETED_WITH_ERRORS)
