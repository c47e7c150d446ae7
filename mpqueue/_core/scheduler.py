"""The scheduler: messages about events go in, commands come out.

No thread, no process, no clock, no input or output. The time of each step is an argument, randomness comes from the
source given at the start, so that any history can be replayed from its messages.

    user calls, lanes, time  --messages-->  handle(message, now)  --commands-->  coordinator

After an internal error of mpqueue a half-done step may have left wrong data in the books of a lane. So the affected
jobs end, and a lane of theirs is not used any more: its worker is killed, its next generation begins, and items of
other jobs on it run again without losing a try.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from mpqueue._core import messages
from mpqueue._core.commands import Command, GiveUpJob, KillLane, RecycleLane, SetFlags
from mpqueue._core.messages import FaultFound, Message
from mpqueue._core.rules import dispatch, fleet, job_states, limits, outcomes, reports, stealing
from mpqueue._core.rules.outcomes import fail_rest, finish, finish_if_over, put_back
from mpqueue._core.state.books import LOOK, Books, Timer, TimerKind
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneBook, LaneState
from mpqueue.errors import InternalError
from mpqueue.status import JobStatus

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

    def __init__(self, lanes: int, rng: random.Random, **settings: Any) -> None:
        """``settings`` are those of `Books`."""
        self.books = Books(lanes, rng, **settings)

    @property
    def deadline(self) -> float | None:
        """The moment at which `TimePassed` is due at the latest; None: nothing is due."""
        books, due = self.books, self.books.timers.next_due()
        if due is None:
            return None
        return min(due, books.now + (LOOK if books.any_timeouts and books.at_work else LONGEST_WAIT))

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
        kind = type(message)
        if kind in _LANE_HANDLERS:
            _handle_of_lane(books, message)
        else:
            _HANDLERS[kind](books, message)
        if kind is not messages.ChunkSent:  # each chunk has one, and it lets no more items be sent
            for timer in books.timers.take_due(books.now):
                _timer_due(books, timer)
            dispatch.dispatch(books)
            stealing.consider(books)
            if not books.capabilities.is_here and books.opened:
                fleet.tell_demand(books)
        commands, books.commands = books.commands, []  # their contents must not live until the next step
        return commands

    def break_down(self, error: InternalError) -> list[JobBook]:
        """End all jobs in their current state, as the last resort, and return them: nothing is decided any more."""
        return break_down(self.books, error)


def _handle_of_lane(books: Books, message: Any) -> None:
    """Handle a message of a lane's worker; nothing, if that has been followed by another one."""
    lane = books.live_lane(message.lane, message.generation)
    if lane is None:
        return
    _LANE_HANDLERS[type(message)](books, lane, message)
    if lane.flags is not None and not lane.chunks and lane.state is LaneState.READY:
        books.commands.append(SetFlags(lane.number, lane.flags[0], False, False))
        lane.flags = None


def _timer_due(books: Books, timer: Timer) -> None:
    match timer.kind:
        case TimerKind.RETRY:
            outcomes.retry_due(books, timer.subject, timer.detail, timer.epoch)
        case TimerKind.STEAL_CHECK:
            stealing.check_due(books, timer.due)
        case TimerKind.NO_LANES:
            fleet.nobody_came(books)
        case TimerKind.DRAINED:
            job_states.drain_due(books, timer)
        case TimerKind.STOP:
            job_states.stop_due(books, timer)
        case TimerKind.SETUP_AGAIN | TimerKind.APART | TimerKind.GO_ON:
            pass  # this step's dispatch finds that it may go on
        case _:
            lane = books.live_lane(timer.subject, timer.detail)
            if lane is not None:
                _lane_timer_due(books, lane, timer)


def _lane_timer_due(books: Books, lane: LaneBook, timer: Timer) -> None:
    match timer.kind:
        case TimerKind.LANE_CHECK:
            limits.check_due(books, lane, timer.due)
        case TimerKind.LIMIT_SETTLED:
            stealing.limit_settled(books, lane)
        case _:
            fleet.start_due(books, lane)


def _observed(books: Books, lane: LaneBook, message: messages.LaneObserved) -> None:
    stealing.judge(books, lane, message.claim, books.now if message.asked_at is None else message.asked_at)
    limits.judge(books, lane, message)


def _forgotten(books: Books, lane: LaneBook, message: messages.JobForgotten) -> None:
    lane.forgetting -= 1
    lane.waiting_since = books.now


def _slept(books: Books, message: messages.Slept) -> None:
    books.sleeps.add(message.since, message.until)


def _ignore(books: Books, message: Message) -> None:
    """Do nothing: only the common part of a step is needed."""


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


_HANDLERS: dict[type, Callable[[Books, Any], None]] = {
    messages.JobStartAsked: job_states.started,
    messages.JobPaused: job_states.paused,
    messages.JobResumed: job_states.resumed,
    messages.JobHeldBack: job_states.held_back,
    messages.JobCancelled: job_states.cancelled,
    messages.FailedItemsReset: job_states.failed_items_reset,
    messages.QueueClosing: job_states.queue_closing,
    messages.QueueOpened: fleet.open_lanes,
    messages.TimePassed: _ignore,
    messages.Slept: _slept,
    messages.ItemsAdded: dispatch.items_added,
    messages.JobSealed: dispatch.sealed,
    messages.ItemsDropped: stealing.items_dropped,
    messages.LanesWanted: fleet.lanes_wanted,
    messages.LanesResized: fleet.lanes_resized,
    messages.MemoryRead: limits.memory_read,
    messages.ModulesReloaded: fleet.modules_reloaded,
    messages.FaultFound: fault_found,
    messages.ChunkRefused: reports.refused,
    messages.ChunkPacked: reports.packed,
}

#: Of messages about a lane's worker.
_LANE_HANDLERS: dict[type, Callable[[Books, LaneBook, Any], None]] = {
    messages.LaneReady: fleet.lane_ready,
    messages.LaneInitialized: fleet.lane_initialized,
    messages.LaneStartFailed: fleet.lane_start_failed,
    messages.LaneAbsent: fleet.lane_absent,
    messages.LaneDied: fleet.lane_died,
    messages.LaneBroken: limits.lane_broken,
    messages.LaneObserved: _observed,
    messages.ChunkReported: reports.reported,
    messages.ChunkSent: reports.sent,
    messages.RecordsLeft: reports.records_left,
    messages.ChunkPacking: reports.packing,
    messages.JobForgotten: _forgotten,
}
