"""Timeouts: when to look at a lane, and what to do about what is seen there."""

from __future__ import annotations

from mpqueue._core.books import Books
from mpqueue._core.commands import KillLane, ObserveLane
from mpqueue._core.lane_book import LaneBook, LaneState, Verdict, Why
from mpqueue._core.timers import TimerKind
from mpqueue._wire.ledger import Claim, Phase


def watch_lane(books: Books, lane: LaneBook, since: float | None = None) -> None:
    """Have the lane looked at when the time of what runs there (since then; None: from now) may be over."""
    job = lane.job
    if job is None or lane.state is not LaneState.READY:
        return
    limits = [limit for limit in (job.options.timeout, job.options.setup_timeout) if limit is not None]
    if not limits:
        return
    due = (books.now if since is None else since) + min(limits)
    if lane.check_due is None or due < lane.check_due:
        lane.check_due = due
        books.timers.add(due, TimerKind.LANE_CHECK, lane.number, lane.generation)


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
    chunk = next((chunk for chunk in lane.chunks if claim.is_of(chunk.number)), None)
    limit = {Phase.RUNNING: job.options.timeout, Phase.LOADING: job.options.setup_timeout}.get(claim.phase)
    if chunk is None or limit is None:
        watch_lane(books, lane)
    elif books.now < claim.since + limit:
        if lane.check_due is None or claim.since + limit < lane.check_due:
            lane.check_due = claim.since + limit
            books.timers.add(lane.check_due, TimerKind.LANE_CHECK, lane.number, lane.generation)
    else:
        why = Why.TIMEOUT if claim.phase is Phase.RUNNING else Why.SETUP_TIMEOUT
        kill(books, lane, Verdict(why, chunk.number, claim.lo))


def kill(books: Books, lane: LaneBook, verdict: Verdict) -> None:
    """Have the lane's worker killed; what becomes of its items is decided when it is dead."""
    lane.state = LaneState.DYING
    lane.verdict = verdict
    books.commands.append(KillLane(lane.number, dump_stack=verdict.why is not Why.CANCEL))
