"""Limits of time and memory: when to look at a lane, how to act on the look, and workers with too much memory.

A worker ends its chunk by itself, between two items, if it is over its limit, or has grown with each of the last items
such that it soon will be; then it is replaced and no item is charged. The decisions here are about workers seen over
their limit within an item:

- If the item's own part is the larger one (it has at least doubled its worker's memory), it is killed and charged.
- Otherwise earlier items are to blame. The item may end by itself until the next look; then it is killed too, not
  charged, and runs again *apart*: in a new worker, while nothing else runs. There it is charged in any case.

A worker that has too much before its first item still runs one item, and is then replaced. That item is judged by its
own part.

If the machine has almost nothing left although no new items are sent, the largest worker is killed before the system
kills one, or this process; its item is not charged and runs again apart. One worker always goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpqueue._core.commands import GiveUpAnswer, KillLane, ObserveLane, Warn
from mpqueue._core.messages import LaneBroken, LaneObserved, MemoryRead, WorkerMemory
from mpqueue._core.state.books import Books, TimerKind
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneBook, LaneState, Verdict, Why
from mpqueue._core.state.pending import Care
from mpqueue._wire.frames import STRETCH_SECONDS
from mpqueue._wire.memory.ledger import Claim, Phase

#: The least seconds between two checks, if no running item's time could be over: a timeout may be shorter than any
#: wait, and the coordinator would do nothing else.
SHORTEST = 0.001
#: Seconds that a worker may take to begin a chunk, and to answer once it has nothing else to do. No users' code runs
#: meanwhile; that is limited by ``timeout`` and ``setup_timeout``.
ANSWER_LIMIT = 30.0
#: The least of these seconds for a worker to begin a chunk, if its items have less time than that.
BEGIN_LIMIT = 5.0
#: Seconds that unpickling one answer may take here.
UNPICKLE_LIMIT = 30.0
#: Seconds between the look that finds work overdue and the one that acts on it.
SECOND_LOOK = 1.0
#: Seconds by which a claim may be later than now: the clock is the same, but was read a moment apart.
CLOCK_SLACK = 1.0

#: The kinds of overdue work, in the words of error messages.
UNTAKEN = "it did not begin what it was sent"
UNANSWERED = "it was done and did not answer"
DAMAGED = "what it says of itself makes no sense: something else has written there"
UNPICKLED = "what it answered is still being unpickled"


def watch_lane(books: Books, lane: LaneBook, *, loaded: bool = False) -> None:
    """Schedule a look at the lane when its work should be over, or begun; ``loaded``: no ``setup`` runs any more."""
    job = lane.job
    if job is None or lane.state is not LaneState.READY:
        return
    limit, options = ANSWER_LIMIT, job.options
    if options.timeout is not None and options.timeout < limit:
        limit = options.timeout
    if options.setup_timeout is not None and not loaded and job.number not in lane.proven:
        limit = min(limit, options.setup_timeout)
    _look_at(books, lane, books.now + max(SHORTEST, limit))


def await_answer(books: Books, lane: LaneBook) -> None:
    """Have the lane looked at when its worker should have begun what it was asked, or its answer be unpickled."""
    _look_at(books, lane, books.now + ANSWER_LIMIT)


def _look_at(books: Books, lane: LaneBook, due: float) -> None:
    if lane.check_due is None or due < lane.check_due:
        lane.check_due = due
        books.timers.add(due, TimerKind.LANE_CHECK, lane.number, lane.generation)


def check_due(books: Books, lane: LaneBook, due: float) -> None:
    """Look at the lane: a look is due."""
    if lane.check_due == due:
        lane.check_due = None
        if lane.chunks or lane.forgetting or lane.state is LaneState.STARTING:
            books.commands.append(ObserveLane(lane.number, lane.generation))


def judge(books: Books, lane: LaneBook, seen: LaneObserved) -> None:
    """Judge a lane by a look: kill its worker if its work's time is over, or if it does not answer."""
    _judge_waits(books, lane, seen)
    claim, job = seen.claim, lane.job
    if job is None or lane.state is not LaneState.READY:
        return
    chunk = lane.find_claimed(claim)
    timeout = job.options.timeout
    limits = {Phase.RUNNING: timeout, Phase.PACKING: timeout, Phase.LOADING: job.options.setup_timeout}
    if claim.hi > claim.lo:
        limits[Phase.UNPACKING] = timeout
    limit = limits.get(claim.phase)
    if chunk is None or limit is None:
        watch_lane(books, lane, loaded=chunk is not None and claim.phase is not Phase.LOADING)
    elif books.now < (due := claim.since + limit + _begun_later(claim) + books.sleeps.after(claim.since)):
        _look_at(books, lane, due)
        await_answer(books, lane)
        if claim.phase is Phase.LOADING:
            watch_lane(books, lane, loaded=True)  # its time may be over at any moment, and an item may run
    else:
        why = Why.SETUP_TIMEOUT if claim.phase is Phase.LOADING else Why.TIMEOUT
        kill(books, lane, Verdict(why, chunk.number, claim.lo, since=claim.since))


def _begun_later(claim: Claim) -> float:
    """Return the seconds after the claim at which the running item may have begun: others may have run before it."""
    return STRETCH_SECONDS if claim.phase is Phase.RUNNING and claim.hi - claim.lo > 1 else 0.0


def is_credible(books: Books, lane: LaneBook, claim: Claim) -> bool:
    """False if no worker can claim that at this time: other code has written into the ledger."""
    if not books.capabilities.shares_memory:
        return True
    known = claim.is_of(lane.last_chunk) or lane.find_claimed(claim) is not None
    return known and claim.since <= books.now + CLOCK_SLACK


def _judge_waits(books: Books, lane: LaneBook, seen: LaneObserved) -> None:
    """Give up what the lane is late with, apart from users' code: an answer, or the worker.

    Work has to be overdue at two looks in a row. Between them the worker had time to run, even if the machine, or this
    process, was busy before.
    """
    found = _awaited(books, lane, seen)
    if found is None:
        lane.overdue = None
        if lane.forgetting or lane.state is not LaneState.READY:
            await_answer(books, lane)
        return
    what, since, limit = found
    due = since + limit + books.sleeps.after(since)
    if books.now < due:
        lane.overdue = None
        _look_at(books, lane, due)
    elif lane.overdue != (what, since):
        lane.overdue = (what, since)
        _look_at(books, lane, books.now + SECOND_LOOK)
    elif what is UNPICKLED:
        books.commands.append(GiveUpAnswer(lane.number, lane.generation))
        _look_at(books, lane, books.now + SECOND_LOOK)
    else:
        give_up(books, lane, f"{what} within {limit:g} s" if limit else what)


def _awaited(books: Books, lane: LaneBook, seen: LaneObserved) -> tuple[str, float, float] | None:
    """Return what the lane is late with, apart from users' code, since when, and how long it may take."""
    claim = seen.claim
    if seen.unpickling_since is not None:
        return UNPICKLED, seen.unpickling_since, UNPICKLE_LIMIT
    if lane.state is LaneState.DYING or not books.capabilities.shares_memory:  # an agent judges its workers itself
        return None
    if not is_credible(books, lane, claim):
        return DAMAGED, 0.0, 0.0
    chunk = lane.find_claimed(claim)
    if chunk is None:
        if claim.phase is Phase.LOADING or not (lane.chunks or lane.forgetting or lane.state is LaneState.STARTING):
            return None
        return UNTAKEN, lane.waiting_since, _begin_limit(lane)
    if claim.phase is Phase.IDLE or (claim.phase is Phase.UNPACKING and claim.lo == claim.hi):
        return UNANSWERED, claim.since, ANSWER_LIMIT
    if chunk is not lane.chunks[0]:
        return UNANSWERED, claim.since, ANSWER_LIMIT
    return None


def _begin_limit(lane: LaneBook) -> float:
    """Return the seconds that the worker may take to begin a chunk.

    An earlier item may have read the frame away: so the wait is at most as long as for an item that hangs.
    """
    timeout = None if lane.job is None or not lane.last_chunk else lane.job.options.timeout
    return ANSWER_LIMIT if timeout is None else min(ANSWER_LIMIT, max(BEGIN_LIMIT, timeout))


def lane_broken(books: Books, lane: LaneBook, message: LaneBroken) -> None:
    """Give up the lane, whose worker sends invalid data."""
    give_up(books, lane, message.why)


def give_up(books: Books, lane: LaneBook, why: str) -> None:
    """Kill and replace the lane's worker: it is of no more use, perhaps because of an item."""
    if lane.state is LaneState.READY:
        kill(books, lane, Verdict(Why.BROKEN, reason=why))
    elif lane.state is LaneState.STARTING:  # in the initializer
        books.commands.append(KillLane(lane.number))
    else:
        return
    books.commands.append(Warn(f"worker {lane.number} is replaced: {why}"))


def end_running(books: Books, job: JobBook) -> None:
    """Kill the workers that hold items of the job, which was cancelled: no item is charged."""
    for lane in books.members(job.lanes):
        take_back(books, lane)


def take_back(books: Books, lane: LaneBook) -> None:
    """Kill the worker for the lane's chunks, unless it is being killed already: no item is charged."""
    if lane.state is LaneState.READY:
        kill(books, lane, Verdict(Why.CANCEL))


def kill(books: Books, lane: LaneBook, verdict: Verdict) -> None:
    """Kill the lane's worker; its items are handled when it is dead.

    Does nothing if the engine can't kill: then the running item ends by itself.
    """
    if not books.capabilities.own_processes:
        return
    books.enter(lane, LaneState.DYING)
    lane.verdict = verdict
    late = verdict.why in (Why.TIMEOUT, Why.SETUP_TIMEOUT)
    books.commands.append(KillLane(lane.number, dump_stack=late))


def memory_read(books: Books, message: MemoryRead) -> None:
    """Act on a look at the memory."""
    books.headroom.look(message, books.now)
    for worker in message.workers:
        lane = books.live_lane(worker.lane, worker.generation)
        if lane is not None and lane.state is LaneState.READY:
            _judge_memory(books, lane, worker)
    if message.available is not None and books.headroom.scarce:
        _give_way(books, message.workers)


def _give_way(books: Books, workers: Sequence[WorkerMemory]) -> None:
    """Kill the largest of the workers that run one item, unless it is the only one that runs anything."""
    if books.at_work.bit_count() < 2 or any(lane.state is LaneState.DYING for lane in books.lanes):
        return  # a dying worker is about to free its memory
    for worker in sorted(workers, key=lambda worker: -worker.used):
        lane, claim = books.live_lane(worker.lane, worker.generation), worker.claim
        chunk = None if lane is None else lane.find_claimed(claim)
        if lane is not None and chunk is not None and claim.phase is Phase.RUNNING and claim.hi - claim.lo == 1:
            kill(books, lane, Verdict(Why.MEMORY, chunk.number, claim.lo, charged=False, used=worker.used))
            return


def _judge_memory(books: Books, lane: LaneBook, worker: WorkerMemory) -> None:
    most, claim = books.max_memory, worker.claim
    if most is not None and claim.lo == 0 and worker.base > most and claim.phase is not Phase.IDLE:
        # A worker that has run items ends a chunk in this state: this one has run none.
        most += worker.base
    if most is None or worker.used <= most:
        lane.over = None
        return
    chunk = lane.find_claimed(claim)
    about_to_begin = claim.phase is Phase.UNPACKING and claim.lo == claim.hi
    if chunk is None or claim.phase is Phase.IDLE or about_to_begin:
        _judge_between_items(books, lane, worker.used, most)
        return
    seen = (claim.chunk, claim.lo, claim.since)
    again, lane.over = lane.over == seen, seen
    if claim.phase is Phase.LOADING:
        if again:
            kill(books, lane, Verdict(Why.MEMORY, chunk.number, claim.lo, used=worker.used))
        return
    # It may be packing the results of several items that ran under one mark.
    culprit = claim.phase is not Phase.PACKING and claim.hi - claim.lo == 1 and worker.used - worker.base >= worker.base
    if culprit or again:
        charged = culprit or chunk.care is Care.APART
        kill(books, lane, Verdict(Why.MEMORY, chunk.number, claim.lo, charged, worker.used, since=claim.since))


def _judge_between_items(books: Books, lane: LaneBook, used: int, most: int) -> None:
    """Replace the worker; but one that has run nothing would be followed by another like it, without end."""
    if lane.chunks:
        return  # it notices that itself at the next item
    if lane.tries > 0:
        books.renew_later(lane)
    elif not books.base_warned:
        books.base_warned = True
        books.commands.append(
            Warn(
                f"worker {lane.number} has {megabytes(used)} of private memory before it has run any item, more than "
                f"per_worker['memory'] of {megabytes(most)}: each worker is replaced after one item"
            )
        )


def megabytes(count: int) -> str:
    """The number of bytes as text for people, in megabytes."""
    return f"{count / 1e6:,.0f} MB"
