"""Taking items back: those that are stuck behind a slow one while another lane is idle, and those that are cancelled.

Stealing begins with a look at the ledger; if there is something to gain, a lower limit follows; after that has settled,
a second look, which shows what the worker will still run. All items beyond go to the idle lanes.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterator

from mpqueue._core.commands import LowerLimit, ObserveLane
from mpqueue._core.messages import ItemsDropped
from mpqueue._core.rules import dispatch, limits, outcomes, reports
from mpqueue._core.rules.outcomes import finish_if_over, put_back
from mpqueue._core.state.books import Books, TimerKind
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk, LaneBook, LaneState, members
from mpqueue._core.state.resources import NO_NEEDS
from mpqueue._wire.memory.ledger import SETTLE, Claim, Phase
from mpqueue.status import JobStatus

#: The part of a chunk's target time that must wait on a lane to be worth taking elsewhere.
WORTH_STEALING = 0.05
#: The most lanes that are looked at together, or a quarter of all: those that are latest, or have most left.
MOST_LOOKS = 64
#: Seconds after which a chunk that has not begun is taken elsewhere: its worker may be stopped. Doubled each time that
#: a job needs it, since big items may take that long to arrive.
BEGIN_SECONDS = 1.0


def consider(books: Books) -> None:
    """Look for stuck items, if a lane is idle and no item is pending."""
    if not _idle(books):
        return
    if books.steal_due is not None or books.look_to_rob:
        return  # a look is due, or under way
    due = math.inf
    for lane in _losers(books):
        due = min(due, _worth_a_look(books, lane))
        if due <= books.now:
            break
    if due < math.inf:
        _check_at(books, due)


def check_due(books: Books, due: float) -> None:
    """Look at every lane that may have stuck items."""
    if books.steal_due != due:
        return
    books.steal_due = None
    if _idle(books):
        losers = [*_losers(books)]
        most = max(MOST_LOOKS, len(losers) // 4)
        if len(losers) > most:
            losers = heapq.nlargest(most, losers, key=lambda lane: abs(lane.free_at - books.now))
        for lane in losers:
            books.look_to_rob |= lane.bit
            books.commands.append(ObserveLane(lane.number, lane.generation))


def limit_settled(books: Books, lane: LaneBook) -> None:
    """Look at the lane: the worker sees a lowered limit by now."""
    if any(chunk.settling is not None for chunk in lane.chunks):
        books.commands.append(ObserveLane(lane.number, lane.generation))


def judge(books: Books, lane: LaneBook, claim: Claim, seen_at: float) -> None:
    """Judge a lane by a look: take back items that a settled limit freed, or lower a limit if that is worth it."""
    for at, chunk in enumerate(lane.chunks):
        if claim.is_of(chunk.number):
            # It may be less than before: a slow item ends the stretch behind it.
            chunk.claimed, chunk.stretch = claim.hi, claim.hi - claim.lo
            for earlier in lane.chunks[:at]:  # it has run without a check: its report shows that
                earlier.claimed, earlier.stretch = earlier.end, 0
    _collect(books, lane, seen_at)
    if lane.job is not None:
        lane.job.lanes_to_rob |= lane.bit
    if books.look_to_rob & lane.bit:
        books.look_to_rob ^= lane.bit
        idle = _idle(books)
        if (
            idle
            and lane.job is not None
            and _may_be_robbed(books, lane.job)
            and _may_lose(lane)
            and _has_room(books, lane)
        ):
            _steal(books, lane, claim, idle)


def _steal(books: Books, lane: LaneBook, claim: Claim, idle: int) -> None:
    running, job = lane.chunks[0], lane.chunks[0].job
    begun = claim.is_of(running.number)
    stuck = books.now - (claim.since if begun else running.sent_at)
    if _is_worth_stealing(books, lane, claim, stuck, idle):
        later = [chunk for chunk in lane.chunks[1:] if chunk.unclaimed]
        for chunk in later:
            lower(books, lane, chunk, 0)
        if _is_slow(books, job, stuck):
            lower(books, lane, running, running.end - running.unclaimed)
        elif not later:
            thieves = idle.bit_count()
            lower(books, lane, running, running.end - -(-running.unclaimed * thieves // (thieves + 1)))
        job.thefts_unbegun += not begun
    if not any(chunk.settling is not None for chunk in lane.chunks):
        # No gain yet: look again when twice the time has passed.
        _check_at(books, books.now + max(_least_gain(books), stuck))


def _least_gain(books: Books) -> float:
    """Return the seconds of work that must wait on a lane to be worth taking elsewhere."""
    return WORTH_STEALING * books.aim


def _is_worth_stealing(books: Books, lane: LaneBook, claim: Claim, stuck: float, idle: int) -> bool:
    running, job = lane.chunks[0], lane.chunks[0].job
    if not claim.is_of(running.number):
        # While it is on its way, it will begin. Taken at once it would only be on its way again, and so for ever.
        patience = _least_gain(books) if lane.forgetting else BEGIN_SECONDS
        return stuck > patience * 2.0 ** min(job.thefts_unbegun, 30)
    if claim.phase is Phase.LOADING:
        # Another lane would have to load for as long.
        return stuck > _least_gain(books) and any(job.number in books.lanes[thief].proven for thief in members(idle))
    waiting = sum(chunk.unclaimed for chunk in lane.chunks) * (job.sizer.seconds_per_item or 0.0)
    return waiting >= _least_gain(books) or _is_slow(books, job, stuck)


def _is_slow(books: Books, job: JobBook, stuck: float) -> bool:
    """True if an item that has been running for that long takes far longer than the others."""
    return stuck > max(_least_gain(books), 4 * (job.sizer.seconds_per_item or 0.0))


def _idle(books: Books) -> int:
    """Return the set of lanes that wait for work."""
    return 0 if books.held else books.free


def _losers(books: Books) -> Iterator[LaneBook]:
    """Return the lanes that may hold items not begun, of jobs that an idle lane may serve."""
    for job in books.jobs.values():
        if job.lanes_to_rob and _may_be_robbed(books, job):
            for number in members(job.lanes_to_rob):
                lane = books.lanes[number]
                if not _may_lose(lane):
                    job.lanes_to_rob ^= lane.bit  # until it gets a chunk, loses one, or is looked at
                elif _has_room(books, lane):
                    yield lane


def _has_room(books: Books, lane: LaneBook) -> bool:
    """True if another lane could begin this lane's items, although this lane goes on."""
    return not books.any_needs or dispatch.fits(books, lane.chunks[0].job, lane.chunks[0].needs or NO_NEEDS)


def _may_be_robbed(books: Books, job: JobBook) -> bool:
    """True if an idle lane may serve the job now."""
    if job.status is not JobStatus.RUNNING or job.cancelled:
        return False
    if job.packing or job.packed:
        return False  # the others wait for items that are still being pickled, and get these
    if not job.may_have_more(None):
        return False  # taken items would only come back here
    return not job.setups or any(job.may_use(thief, books.now) for thief in members(_idle(books)))


def _may_lose(lane: LaneBook) -> bool:
    """True if the lane may hold items that it has not begun.

    That includes items of a stretch that was begun: they become free if one of them is slow.
    """
    if lane.state is not LaneState.READY or not lane.chunks or any(c.settling is not None for c in lane.chunks):
        return False
    return any(chunk.unclaimed or chunk.stretch > 1 for chunk in lane.chunks)


def _worth_a_look(books: Books, lane: LaneBook) -> float:
    """Return when a look is worth it: at once, except for a single item just sent, which begins by itself."""
    if len(lane.chunks) == 1 and (chunk := lane.chunks[0]).unclaimed == 1 and chunk.stretch <= 1:
        return max(books.now, chunk.sent_at + _least_gain(books))
    return books.now


def lower(books: Books, lane: LaneBook, chunk: Chunk, position: int) -> None:
    """Forbid the worker to claim items from there on, unless its limit is that low; free items then come back."""
    if position < (chunk.end if chunk.settling is None else chunk.settling):
        chunk.settling = position
        chunk.settled_at = books.now + SETTLE
        books.commands.append(LowerLimit(lane.number, chunk.number, position))
        books.timers.add(chunk.settled_at, TimerKind.LIMIT_SETTLED, lane.number, lane.generation)


def _collect(books: Books, lane: LaneBook, seen_at: float) -> None:
    for chunk in list(lane.chunks):
        if chunk.settling is None or seen_at < chunk.settled_at:
            continue
        kept = max(chunk.settling, chunk.reported, chunk.claimed)
        chunk.settling = None
        if kept < chunk.end:
            freed = chunk.indices[kept : chunk.end]
            chunk.job.items_out -= chunk.end - kept
            chunk.end = kept
            put_back(books, chunk.job, freed)
            finish_if_over(books, chunk.job)  # all of it may have been cancelled
        if chunk.doomed:
            _end_begun(books, lane, chunk)


def _end_begun(books: Books, lane: LaneBook, chunk: Chunk) -> None:
    """Kill the worker if its running or claimed items were cancelled."""
    chunk.doomed = False
    begun = chunk.indices[max(chunk.reported, chunk.claimed - chunk.stretch) : chunk.end]
    if not chunk.job.dropped.isdisjoint(begun):
        limits.take_back(books, lane)


def _check_at(books: Books, due: float) -> None:
    if books.steal_due is None or due < books.steal_due:
        books.steal_due = due
        books.timers.add(due, TimerKind.STEAL_CHECK)


# -- Cancelling single items: they fail without losing a try, and the job goes on without them. ------------------------
#
# A waiting item fails at once; if its job has not started, at the start. An item on a lane comes back if its worker
# has not begun it: the limit of its chunk is lowered, as if it were stolen. An item that has begun may complete, but
# is not tried again; with ``kill``, its worker is killed, and other items on the lane run again without losing a try.
#
# In a pipeline, inputs are cancelled: each with all items made from it, in every stage.


def items_dropped(books: Books, message: ItemsDropped) -> None:
    """Cancel these items. Items that have ended stay as they are."""
    job, indices = message.job, [index for index in message.indices if not message.job.table.ended(index)]
    if job.status.final or not indices:
        return
    if job.status is JobStatus.PENDING:
        job.dropped.update(indices)
        return
    pipeline = job.pipeline if job.stage is None else job.stage.pipeline
    if pipeline is None:
        _drop(books, job, indices, message.kill)
        outcomes.finish_if_over(books, job)
        return
    inputs = set(indices) if job.stage is None else job.stage.inputs_of(indices)
    pipeline.head.dropped |= inputs
    for each in pipeline.jobs:
        if each.active:  # others have ended before their pipeline, as they do while it is being cancelled
            assert each.stage is not None
            _drop(books, each, each.stage.items_of(inputs), message.kill)
    for each in pipeline.jobs:
        outcomes.finish_if_over(books, each)


def drop_at_start(books: Books, job: JobBook) -> None:
    """End, as the job starts, the items that were cancelled before."""
    job.pending.remove(job.dropped)
    outcomes.drop(books, job, sorted(job.dropped))


def _drop(books: Books, job: JobBook, indices: Collection[int], kill: bool) -> None:
    """Cancel items that have not ended."""
    left = set(indices)
    for lane in books.members(job.lanes):
        for chunk in lane.chunks:
            here = left.intersection(chunk.indices[chunk.reported : chunk.end])
            if here:
                left -= here
                _take_back(books, lane, chunk, here, kill)
    for chunk in (*job.packing, *job.packed):
        here = left.intersection(chunk.indices)
        if here:
            left -= here
            job.dropped |= here
            reports.unpack(books, chunk)  # this drops them
    if not job.table.is_stream:  # its items are dropped one by one, and may be 100,000
        job.pending.remove(left)
    outcomes.drop(books, job, sorted(left))


def _take_back(books: Books, lane: LaneBook, chunk: Chunk, gone: Collection[int], kill: bool) -> None:
    """Take items back from a lane if they have not begun; with ``kill`` all of them."""
    job = chunk.job
    if job.table.is_stream and not kill:
        return  # the consumer gets only the current answer
    job.dropped.update(gone)
    if lane.state is not LaneState.READY:
        return  # the lane's items come back
    if job.table.is_stream:
        if kill:
            limits.take_back(books, lane)
        return
    chunk.doomed |= kill
    first = next(at for at in range(chunk.reported, chunk.end) if chunk.indices[at] in gone)
    lower(books, lane, chunk, first)  # in any case: claimed items stay
