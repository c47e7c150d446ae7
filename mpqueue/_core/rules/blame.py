"""Blame: the item that a dead worker was running loses a try, and no other.

If it is unknown which item a dead worker ran, suspects are sent in groups, each with nothing beside it. If a group's
worker dies, the group is halved; if its report arrives, the whole group is cleared; and if an item is alone when its
worker dies, it is the cause, or else one that ended well in that worker before, and spoiled it: then the item runs once
more, in a new worker. So no other item is ever charged, and n suspects cost about log2(n) deaths.

"Nothing beside it" means that no lane that dies together with its own (`LaneReady.dies_with`) has items.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from mpqueue._core.messages import LaneDied
from mpqueue._core.rules.limits import is_credible, megabytes
from mpqueue._core.rules.outcomes import drop, finish_if_over, put_back, record
from mpqueue._core.rules.reports import put_back_around, setup_failed
from mpqueue._core.state.books import Books
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk, LaneBook, Verdict, Why
from mpqueue._core.state.pending import Care
from mpqueue._wire.memory.ledger import Claim, Phase
from mpqueue.errors import ItemTimeoutError, MemoryLimitError, WorkerCrashedError

#: When most workers die, in the words of error messages.
DURING = "while it ran the item"


class Blame(Enum):
    """What a death means for the items that may have caused it, if any; all others of the chunk just run again."""

    NOBODY = auto()
    SETUP = auto()  #: the job's setup has failed on the lane
    ONE_OF = auto()  #: one of them did it: each is packed, marked and answered by itself now
    PERHAPS = auto()  #: they run again with nothing beside them
    LAST_STRAW = auto()  #: the item runs again in a new worker, while nothing else does
    CHARGED = auto()  #: the item loses a try


class BlameCase(NamedTuple):
    """The blame for a death, and the range of positions in the chunk that it concerns."""

    blame: Blame
    lo: int = 0
    hi: int = 0


NOBODY = BlameCase(Blame.NOBODY)


def worker_died(books: Books, lane: LaneBook, message: LaneDied) -> bool:
    """Take the dead worker's chunks off its lane; True if its death is explained: an item did it, or we killed it."""
    claim, chunks = message.claim, list(lane.chunks)
    if claim is not None and not is_credible(books, lane, claim):
        claim = None
    running = None if claim is None else lane.find_claimed(claim)
    explained = lane.verdict is not None and (lane.verdict.why is not Why.BROKEN or running is not None)
    for at, chunk in enumerate(chunks):
        books.remove_chunk(lane, chunk)
        begun = running is not None and at <= chunks.index(running)
        case = _case(lane, chunk, claim, message, begun=begun, any_begun=running is not None)
        _settle(books, lane, chunk, claim, message, case)
        explained = explained or case.blame is not Blame.NOBODY
        finish_if_over(books, chunk.job)
    return explained


def _case(
    lane: LaneBook, chunk: Chunk, claim: Claim | None, message: LaneDied, *, begun: bool, any_begun: bool
) -> BlameCase:
    """Find out who is to blame for the death, as far as this chunk is concerned."""
    verdict, reported, end = lane.verdict, chunk.reported, chunk.end
    if message.innocent:
        return NOBODY
    if verdict is not None and verdict.why is Why.BROKEN and claim is not None:
        # The running item has broken the line, or the one before; if none has begun, an earlier one, of any job.
        hi = min(claim.hi, end) if claim.is_of(chunk.number) else end
        if begun and hi > reported:
            return _unknown(lane, chunk, message, reported, hi)
        # A worker that has run nothing might be followed by another like it, without end.
        return BlameCase(Blame.SETUP) if (begun or not any_begun) and not lane.last_chunk else NOBODY
    if claim is None:
        if verdict is None or verdict.why is Why.BROKEN:
            return _unknown(lane, chunk, message, reported, end)
        ran_too_long = verdict.why is Why.TIMEOUT and verdict.chunk == chunk.number and reported <= verdict.lo < end
        return BlameCase(Blame.CHARGED, verdict.lo, verdict.lo + 1) if ran_too_long else NOBODY
    if not claim.is_of(chunk.number):
        return NOBODY
    match claim.phase:
        case Phase.LOADING:
            return BlameCase(Blame.SETUP)
        case Phase.IDLE:
            return _unanswered(lane, chunk, message, reported, min(claim.lo, end)) if verdict is None else NOBODY
        case Phase.PACKING:
            return _claimed(chunk, claim, verdict, message, claim.lo + 1)
        case _:  # unpickling an item can kill a worker as well as running it can
            return _claimed(chunk, claim, verdict, message, claim.hi)


def _unknown(lane: LaneBook, chunk: Chunk, message: LaneDied, lo: int, hi: int) -> BlameCase:
    """It is unknown which item the worker ran: one is to blame once it is alone in a group with nothing beside it."""
    if lo >= hi:
        return NOBODY
    if chunk.care < Care.ALONE or hi - lo > 1 or not message.alone:
        return BlameCase(Blame.PERHAPS, lo, hi)
    return _found(lane, lo)


def _unanswered(lane: LaneBook, chunk: Chunk, message: LaneDied, lo: int, hi: int) -> BlameCase:
    """The chunk had run when the worker died before its answer had arrived: by chance, or because of an item.

    One that is alone in the end is charged, or it would be sent for ever.
    """
    if lo >= hi:
        return NOBODY
    if not message.alone or (chunk.isolated and hi - lo > 1):
        return BlameCase(Blame.PERHAPS, lo, hi)
    return _found(lane, lo) if chunk.careful and hi - lo == 1 else BlameCase(Blame.ONE_OF, lo, hi)


def _found(lane: LaneBook, at: int) -> BlameCase:
    """The item at that position is all that may be to blame, unless the worker was spoiled by one that ended before."""
    is_first = not lane.last_chunk and at == 0
    return BlameCase(Blame.CHARGED if is_first else Blame.LAST_STRAW, at, at + 1)


def _claimed(chunk: Chunk, claim: Claim, verdict: Verdict | None, message: LaneDied, hi: int) -> BlameCase:
    """The worker had items in hand, up to ``hi``."""
    lo, hi = max(claim.lo, chunk.reported), min(hi, chunk.end)
    if lo >= hi or (verdict is not None and not _convicts(verdict, chunk, claim)):
        return NOBODY
    if verdict is None and not message.alone:
        return BlameCase(Blame.PERHAPS, lo, hi)  # another worker's item may be the cause
    if hi - lo > 1:
        return BlameCase(Blame.ONE_OF, lo, hi)
    is_last_straw = verdict is not None and not verdict.charged
    return BlameCase(Blame.LAST_STRAW if is_last_straw else Blame.CHARGED, lo, hi)


def _convicts(verdict: Verdict, chunk: Chunk, claim: Claim) -> bool:
    """False if the worker was killed for something else than the item that it ran when it died."""
    return verdict.why in (Why.TIMEOUT, Why.MEMORY) and verdict.chunk == chunk.number and verdict.lo == claim.lo


def _settle(
    books: Books, lane: LaneBook, chunk: Chunk, claim: Claim | None, message: LaneDied, case: BlameCase
) -> None:
    """Put back what the worker had of the chunk, with the care that the case demands."""
    job, blamed = chunk.job, chunk.indices[case.lo : case.hi]
    if case.blame in (Blame.CHARGED, Blame.PERHAPS):
        put_back_around(books, job, chunk, [*range(case.lo, case.hi)])
        if case.blame is Blame.PERHAPS:
            _isolate(books, chunk, blamed)
        elif job.active:
            _charge(books, lane, chunk, blamed[0], claim, message)
        return
    if case.blame is Blame.LAST_STRAW and job.active:
        job.pending.handle_with(blamed[0], Care.APART)
    suspects = blamed if case.blame is Blame.ONE_OF else ()
    put_back(books, job, chunk.indices[chunk.reported : chunk.end], suspects)
    if case.blame is Blame.SETUP and (error := _setup_error(books, job, lane.verdict, message)) is not None:
        setup_failed(books, lane, job, Failure(error))


def _charge(books: Books, lane: LaneBook, chunk: Chunk, index: int, claim: Claim | None, message: LaneDied) -> None:
    """Charge the item that killed its worker; kept apart after the second time."""
    job, verdict = chunk.job, lane.verdict
    error, elapsed = _death_error(books, job, verdict, claim, message), 0.0
    if verdict is not None and verdict.why is not Why.BROKEN:
        # What was killed may have gone on until it died, and have begun to pack what it returned.
        elapsed = books.now - verdict.since
    elif claim is not None and verdict is None and claim.phase is not Phase.IDLE:
        elapsed = books.now - claim.since
    job.table.output.pop(index, None)  # the output of the try before
    record(books, job, [index], [None], {0: Failure(error, elapsed=max(0.0, elapsed))}, message.pid)
    if job.active:
        if isinstance(error, MemoryLimitError):
            job.pending.handle_with(index, Care.APART)
        elif job.is_poison(index):
            job.pending.handle_with(index, Care.ALONE)
    if verdict is not None and verdict.used:
        job.table.note_peaks({index: verdict.used})


def _isolate(books: Books, chunk: Chunk, indices: Sequence[int]) -> None:
    """Send these items with nothing beside them, if they still have to run; in halves, if they were sent so before."""
    job = chunk.job
    if not job.active or job.cancelled:
        return
    drop(books, job, sorted(job.dropped.intersection(indices)))
    indices = [index for index in indices if index not in job.dropped]
    if indices:
        job.pending.put_group(indices, halved=chunk.isolated)


def keeps_suspects_apart(books: Books, lane: LaneBook, job: JobBook) -> bool:
    """False if serving the job on this lane now would bring two suspects together, or keep one waiting for ever."""
    if any(chunk.isolated for chunk in lane.chunks):
        return False
    groups = job.next_care is Care.ALONE
    if lane.dies_with is None:
        return not (groups and lane.chunks)
    mates = books.dying_together[lane.dies_with] & ~lane.bit
    if groups:
        return not mates & books.at_work and not lane.chunks
    if any(chunk.isolated for mate in books.members(mates & books.at_work) for chunk in mate.chunks):
        return False
    return not any(other.next_care is Care.ALONE and other.runnable for other in books.jobs.values())


def _death_error(
    books: Books, job: JobBook, verdict: Verdict | None, claim: Claim | None, message: LaneDied
) -> BaseException:
    """Return the error of the item that is charged."""
    if verdict is None:
        is_done = claim is not None and claim.phase is Phase.IDLE
        return crash_error(message, "after it had run the item, before it could answer" if is_done else DURING)
    if verdict.why is Why.BROKEN:
        return crash_error(message, reason=verdict.reason)
    if verdict.why is Why.MEMORY:
        return _memory_error(books, verdict, "the item's worker")
    return ItemTimeoutError(
        f"the item ran longer than its timeout of {job.options.timeout:g} s; its worker was killed", message.stack
    )


def _memory_error(books: Books, verdict: Verdict, whose: str) -> MemoryLimitError:
    limit = megabytes(books.max_memory or 0)
    return MemoryLimitError(
        f"{whose} had {megabytes(verdict.used)} of private memory, more than per_worker['memory'] of {limit}; "
        "it was killed"
    )


def _setup_error(books: Books, job: JobBook, verdict: Verdict | None, message: LaneDied) -> BaseException | None:
    """Return the error for a death before the job's first item; None if we killed it for another reason."""
    if verdict is None:
        return crash_error(message)
    if verdict.why is Why.BROKEN:
        return crash_error(message, "before it ran an item", verdict.reason)
    if verdict.why is Why.MEMORY:
        return _memory_error(books, verdict, "the worker, in setup,")
    if verdict.why is Why.SETUP_TIMEOUT:
        return TimeoutError(f"setup ran longer than setup_timeout of {job.options.setup_timeout:g} s")
    return None


#: The reasons why a worker is killed, for users.
_REASONS = {
    Why.TIMEOUT: "timeout",
    Why.SETUP_TIMEOUT: "timeout of the setup",
    Why.CANCEL: "cancelled",
    Why.MEMORY: "memory limit",
    Why.BROKEN: "its answers could not be read",
}


def death_of(lane: LaneBook, message: LaneDied) -> str:
    """Describe how the worker ended, in a few words for users."""
    if lane.verdict is not None:
        return f"killed: {_REASONS[lane.verdict.why]}"
    if message.signal is not None:
        return message.signal
    return "how is not known" if message.exitcode is None else f"exit code {message.exitcode}"


def running_item(lane: LaneBook, message: LaneDied) -> int | None:
    """The index of the one item that the worker was running; None if it ran none, or one of several."""
    claim = message.claim
    chunk = None if claim is None else lane.find_claimed(claim)
    if claim is None or chunk is None or claim.phase is not Phase.RUNNING or claim.hi - claim.lo != 1:
        return None
    return chunk.indices[claim.lo] if claim.lo < len(chunk.indices) else None


def crash_error(message: LaneDied, when: str = DURING, reason: str = "") -> WorkerCrashedError:
    """The error for a worker that died by itself, or was killed for that ``reason``."""
    if reason:
        how, when = "was killed", f"{when}: {reason}"
    elif message.signal is not None:
        how = f"was ended by {message.signal}"
    elif message.exitcode is not None:
        how = f"ended with exit code {message.exitcode}"
    else:
        how = "ended, the system does not tell how,"
    who = f"the worker process {message.pid}" if message.pid else "a worker process"
    return WorkerCrashedError(f"{who} {how} {when}", message.exitcode, message.signal, message.pid)
