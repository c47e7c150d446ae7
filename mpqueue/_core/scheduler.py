"""The scheduler: messages about events go in, commands come out.

No thread, no process, no clock, no input or output. The time of each step is an argument, randomness comes from the
source given at the start, so that any history can be replayed from its messages.

    user calls, lanes, time  --messages-->  handle(message, now)  --commands-->  coordinator
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpqueue._core import messages
from mpqueue._core.commands import Command, SetFlags
from mpqueue._core.messages import Message
from mpqueue._core.rules import dispatch, fleet, job_states, limits, outcomes, reports, stealing
from mpqueue._core.state.books import LOOK, Books, Timer, TimerKind
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

    def break_down(self, error: InternalError) -> None:
        """End all jobs in their current state: an internal error may have left wrong data in the books.

        Nothing is decided any more. Items that have not ended stay as they are, and lose no try.
        """
        for job in self.books.jobs.values():
            job.fault = error
            job.status = JobStatus.COMPLETED_WITH_ERRORS
        self.books.jobs.clear()


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
