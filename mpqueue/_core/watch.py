"""Timeouts: when to look at a lane, and what to do about what is seen there."""

from __future__ import annotations

import math

from mpqueue._core.books import Books
from mpqueue._core.commands import KillLane, ObserveLane, Warn
from mpqueue._core.lane_book import LaneBook, LaneState, Verdict, Why
from mpqueue._core.messages import LaneBroken
from mpqueue._core.sleeps import LOOK
from mpqueue._core.timers import TimerKind
from mpqueue._wire.ledger import Claim, Phase
from mpqueue._wire.pace import STRETCH_SECONDS

#: Seconds between two looks at least, where nothing runs whose time could be over: a timeout may be as short as nobody
#: can wait, and the coordinator would do nothing else.
SHORTEST = 0.001


def watch_lane(books: Books, lane: LaneBook, *, loaded: bool = False) -> None:
    """Have the lane looked at when the time of what runs there may be over; ``loaded``: no ``setup`` runs any more."""
    job = lane.job
    if job is None or lane.state is not LaneState.READY or not books.engine.can_kill:
        return
    loaded = loaded or job.number in lane.proven
    limits = (job.options.timeout, None if loaded else job.options.setup_timeout)
    limit = min((limit for limit in limits if limit is not None), default=math.inf)
    _look_at(books, lane, books.now + max(SHORTEST, limit))


def _look_at(books: Books, lane: LaneBook, due: float) -> None:
    if books.look_due is None and due < math.inf:
        _look_later(books)
    if due < (math.inf if lane.check_due is None else lane.check_due):
        lane.check_due = due
        books.timers.add(due, TimerKind.LANE_CHECK, lane.number, lane.generation)


def _look_later(books: Books) -> None:
    books.look_due = books.now + LOOK
    books.timers.add(books.look_due, TimerKind.LOOK)


def look_again(books: Books) -> None:
    """The clock was looked at, as time has to be; to be done again while any lane has a limit."""
    if books.look_due is not None and books.look_due <= books.now:
        books.look_due = None
        if any(lane.check_due is not None for lane in books.lanes_at_work()):
            _look_later(books)


def check_due(books: Books, lane: LaneBook, due: float) -> None:
    """A look at the lane has fallen due."""
    if lane.check_due == due:
        lane.check_due = None
        if lane.chunks:
            books.commands.append(ObserveLane(lane.number, lane.generation))


def judge(books: Books, lane: LaneBook, claim: Claim) -> None:
    """The lane was looked at: kill its worker where the time of what it runs is over."""
    job = lane.job
    if job is None or lane.state is not LaneState.READY:
        return
    chunk = lane.find_claimed(claim)
    timeout = job.options.timeout
    limits = {Phase.RUNNING: timeout, Phase.PACKING: timeout, Phase.LOADING: job.options.setup_timeout}
    limit = limits.get(claim.phase)
    if chunk is None or limit is None:
        watch_lane(books, lane, loaded=chunk is not None and claim.phase is not Phase.LOADING)
    elif books.now < (due := claim.since + limit + _begun_later(claim) + books.sleeps.after(claim.since)):
        _look_at(books, lane, due)
        if claim.phase is Phase.LOADING:
            watch_lane(books, lane, loaded=True)  # it may be over at any moment, and an item run
    else:
        why = Why.SETUP_TIMEOUT if claim.phase is Phase.LOADING else Why.TIMEOUT
        kill(books, lane, Verdict(why, chunk.number, claim.lo))


def _begun_later(claim: Claim) -> float:
    """Seconds after the claim was made that what runs now may have begun: one of several has others before it."""
    return STRETCH_SECONDS if claim.phase is Phase.RUNNING and claim.hi - claim.lo > 1 else 0.0


def lane_broken(books: Books, lane: LaneBook, message: LaneBroken) -> None:
    """What the lane's worker sends can't be made sense of."""
    give_up(books, lane, message.why)


def give_up(books: Books, lane: LaneBook, why: str) -> None:
    """The lane's worker is of no more use, and perhaps by an item's doing: have it killed and replaced."""
    if lane.state is LaneState.READY:
        kill(books, lane, Verdict(Why.BROKEN, 0, 0, reason=why))
    elif lane.state is LaneState.STARTING:  # in the initializer
        books.commands.append(KillLane(lane.number))
    else:
        return
    books.commands.append(Warn(f"worker {lane.number} is replaced: {why}"))


def kill(books: Books, lane: LaneBook, verdict: Verdict) -> None:
    """Have the lane's worker killed; what becomes of its items is decided when it is dead.

    Does nothing where the engine can't kill: what runs there ends by itself.
    """
    if not books.engine.can_kill:
        return
    lane.state = LaneState.DYING
    lane.verdict = verdict
    late = verdict.why in (Why.TIMEOUT, Why.SETUP_TIMEOUT)
    books.commands.append(KillLane(lane.number, dump_stack=late))
