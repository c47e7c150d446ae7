"""Blame: the item that a dead worker was running loses a try, and no other.

If it is unknown which item a dead worker ran, suspects are sent in groups, each with nothing beside it. If a group's
worker dies, the group is halved; if its report arrives, the whole group is cleared; and if an item is alone when its
worker dies, it is the cause. So no other item is ever charged, and n suspects cost about log2(n) deaths.

"Nothing beside it" means that no lane that dies together with its own (`LaneReady.fate`) has items.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpqueue._core.messages import LaneDied
from mpqueue._core.rules.memory import megabytes, must_run_apart
from mpqueue._core.rules.outcomes import drop, finish_if_over, put_back, record
from mpqueue._core.rules.overdue import is_credible
from mpqueue._core.rules.reports import put_back_around, setup_failed
from mpqueue._core.state.books import Books
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk, LaneBook, Verdict, Why
from mpqueue._core.state.pending import Care
from mpqueue._wire.memory.ledger import Claim, Phase
from mpqueue.errors import ItemTimeoutError, MemoryLimitError, WorkerCrashedError


def worker_died(books: Books, lane: LaneBook, message: LaneDied) -> bool:
    """Take the dead worker's chunks off its lane; True if an item was blamed for its death."""
    claim, verdict = message.claim, lane.verdict
    if claim is not None and not is_credible(books, lane, claim):
        claim = None
    broken = verdict is not None and verdict.why is Why.BROKEN
    begun = _begun(lane.chunks, claim) if broken else ()
    blamed = False
    for chunk in list(lane.chunks):
        books.remove_chunk(lane, chunk)
        if message.innocent:
            put_back(books, chunk.job, chunk.indices[chunk.reported : chunk.end])
        elif claim is not None and chunk in begun:
            blamed = _settle_broken(books, lane, chunk, claim, message) or blamed
        elif claim is None:
            blamed = _settle_unknown(books, chunk, verdict, message) or blamed
        elif claim.is_of(chunk.number):
            settle = _settle_unanswered if claim.phase is Phase.IDLE else _settle_claimed
            blamed = settle(books, lane, chunk, claim, message) or blamed
        else:
            put_back(books, chunk.job, chunk.indices[chunk.reported : chunk.end])
            if broken and not begun:
                _settle_unbegun(books, lane, chunk, message)
        finish_if_over(books, chunk.job)
    return blamed or (verdict is not None and not broken)


def _begun(chunks: Sequence[Chunk], claim: Claim | None) -> Sequence[Chunk]:
    """Return the chunks that the worker may have begun: up to the current one."""
    at = next((at for at, chunk in enumerate(chunks) if claim is not None and claim.is_of(chunk.number)), -1)
    return list(chunks[: at + 1])


def _settle_claimed(books: Books, lane: LaneBook, chunk: Chunk, claim: Claim, message: LaneDied) -> bool:
    """Settle the worker's current chunk: blame the running item, if it is known, and put back the rest."""
    job, verdict = chunk.job, lane.verdict
    if claim.phase is Phase.LOADING:
        put_back(books, job, chunk.indices[chunk.reported : chunk.end])
        error = _loading_error(books, job, verdict, message)
        if error is not None:
            setup_failed(books, lane, job, Failure(error))
        return True
    # Unpickling an item can kill a worker as well as running it can.
    hi = claim.lo + 1 if claim.phase is Phase.PACKING else claim.hi
    lo, hi = max(claim.lo, chunk.reported), min(hi, chunk.end)
    if not _guilty(chunk, claim, verdict) or lo >= hi:
        put_back(books, job, chunk.indices[chunk.reported : chunk.end])
        return False
    if verdict is None and not message.alone:
        # Another worker's item may be the cause: each of them is sent again, with nothing beside it.
        put_back_around(books, job, chunk, list(range(lo, hi)))
        _isolate(books, job, chunk.indices[lo:hi])
        return True
    if verdict is not None and not verdict.charged and hi - lo == 1:
        if job.active:
            must_run_apart(books, chunk, chunk.indices[lo])
        put_back(books, job, chunk.indices[chunk.reported : chunk.end])
        return True
    if hi - lo > 1:
        # One of several tiny items is the cause: they are sent again, each with its own mark.
        job.pending.suspect(chunk.indices[lo:hi]) if job.active else None
        put_back(books, job, chunk.indices[chunk.reported : chunk.end])
        return True
    put_back_around(books, job, chunk, [lo])
    if job.active:
        # What was killed may have gone on until it died, and have begun to pack what it returned.
        since = claim.since if verdict is None else verdict.since
        failure = Failure(_death_error(books, job, verdict, message), elapsed=max(0.0, books.now - since))
        _charge(books, chunk, chunk.indices[lo], failure, message.pid)
        if verdict is not None and verdict.used:
            job.table.note_peaks({chunk.indices[lo]: verdict.used})
    return True


def _settle_unanswered(books: Books, lane: LaneBook, chunk: Chunk, claim: Claim, message: LaneDied) -> bool:
    """Settle a chunk that had run when the worker died before its answer had arrived: by chance, or because of an item.

    Items that ran are sent again without losing a try; one that is alone in the end is charged, or it would be sent for
    ever.
    """
    job = chunk.job
    ran = chunk.indices[chunk.reported : min(claim.lo, chunk.end)]
    if lane.verdict is not None or not ran or not job.active:
        put_back(books, job, chunk.indices[chunk.reported : chunk.end])
        return False
    if not message.alone or (chunk.isolated and len(ran) > 1):
        put_back(books, job, chunk.indices[chunk.reported + len(ran) : chunk.end])
        _isolate(books, job, ran, halved=message.alone)
    elif chunk.careful and len(ran) == 1:
        put_back_around(books, job, chunk, [chunk.reported])
        failure = Failure(crash_error(message, "after it had run the item, before it could answer"))
        _charge(books, chunk, ran[0], failure, message.pid)
    else:
        put_back(books, job, chunk.indices[chunk.reported : chunk.end], suspects=ran)
    return True


def _charge(books: Books, chunk: Chunk, index: int, failure: Failure, pid: int) -> None:
    """Charge the item that killed its worker; kept apart after the second time. Others in its chunk are put back."""
    job = chunk.job
    job.table.forget_costs(index)
    job.table.output.pop(index, None)  # the output of the try before
    record(books, job, [index], [None], {0: failure}, pid)
    if not job.active:
        return
    if isinstance(failure.error, MemoryLimitError):
        must_run_apart(books, chunk, index)
    if job.is_poison(index):
        job.pending.handle_with(index, Care.ALONE)


def _settle_unknown(books: Books, chunk: Chunk, verdict: Verdict | None, message: LaneDied) -> bool:
    """Suspect all items that the worker may have run, in halves until one is alone: it is unknown which one it ran."""
    job, rest = chunk.job, chunk.indices[chunk.reported : chunk.end]
    if verdict is not None and verdict.why is not Why.BROKEN:
        if verdict.why is Why.TIMEOUT and verdict.chunk == chunk.number and chunk.reported <= verdict.lo < chunk.end:
            put_back_around(books, job, chunk, [verdict.lo])
            if job.active:
                failure = Failure(_death_error(books, job, verdict, message), elapsed=books.now - verdict.since)
                _charge(books, chunk, chunk.indices[verdict.lo], failure, message.pid)
        else:
            put_back(books, job, rest)
        return True
    if not rest or not job.active:
        return False
    if chunk.isolated and len(rest) == 1 and message.alone:
        reason = "" if verdict is None else verdict.reason
        _charge(books, chunk, rest[0], Failure(crash_error(message, reason=reason)), message.pid)
    else:
        _isolate(books, job, rest, halved=chunk.isolated)
    return True


def _settle_broken(books: Books, lane: LaneBook, chunk: Chunk, claim: Claim, message: LaneDied) -> bool:
    """Settle a chunk whose worker was killed since its line broke: because of the running item, or the one before."""
    job = chunk.job
    begun = min(claim.hi, chunk.end) if claim.is_of(chunk.number) else chunk.end
    suspects = chunk.indices[chunk.reported : begun]
    put_back(books, job, chunk.indices[max(begun, chunk.reported) : chunk.end])
    reason = "" if lane.verdict is None else lane.verdict.reason
    if not suspects:
        _settle_unbegun(books, lane, chunk, message)
    elif chunk.isolated and len(suspects) == 1 and message.alone and job.active:
        _charge(books, chunk, suspects[0], Failure(crash_error(message, reason=reason)), message.pid)
    else:
        _isolate(books, job, suspects, halved=True)
    return True


def _settle_unbegun(books: Books, lane: LaneBook, chunk: Chunk, message: LaneDied) -> None:
    """Settle a chunk, put back already, that had not begun when the worker's line broke.

    An earlier item of the worker, of any job, may have broken it. A worker that has run nothing might be followed by
    another like it, without end: that counts as a failure of the setup.
    """
    if lane.verdict is not None and not lane.last_chunk:
        failure = Failure(crash_error(message, "before it ran an item", lane.verdict.reason))
        setup_failed(books, lane, chunk.job, failure)


def _isolate(books: Books, job: JobBook, indices: Sequence[int], *, halved: bool = False) -> None:
    """Send these items with nothing beside them, if they still have to run."""
    if not job.active or job.cancelled:
        return
    drop(books, job, sorted(job.dropped.intersection(indices)))
    indices = [index for index in indices if index not in job.dropped]
    if indices:
        books.has_suspects = True
        job.pending.put_group(indices, halved=halved)


def keeps_suspects_apart(books: Books, lane: LaneBook, job: JobBook) -> bool:
    """False if serving the job on this lane now would bring two suspects together, or keep one waiting for ever."""
    if any(chunk.isolated for chunk in lane.chunks):
        return False
    groups = job.next_care is Care.ISOLATED
    if lane.fate is None:
        return not (groups and lane.chunks)
    mates = books.fates[lane.fate] & ~lane.bit
    if groups:
        return not mates & books.at_work and not lane.chunks
    if any(chunk.isolated for mate in books.members(mates & books.exclusive) for chunk in mate.chunks):
        return False
    return not any(other.next_care is Care.ISOLATED and other.runnable for other in books.jobs.values())


def _guilty(chunk: Chunk, claim: Claim, verdict: Verdict | None) -> bool:
    """False if we killed the worker for processes that it had left behind, or for no fault of its own."""
    if verdict is None:
        return True
    return verdict.why in (Why.TIMEOUT, Why.MEMORY) and verdict.chunk == chunk.number and verdict.lo == claim.lo


def _death_error(books: Books, job: JobBook, verdict: Verdict | None, message: LaneDied) -> BaseException:
    if verdict is not None and verdict.why is Why.MEMORY:
        return _memory_error(books, verdict, "the item's worker")
    if verdict is not None:
        return ItemTimeoutError(
            f"the item ran longer than its timeout of {job.options.timeout:g} s; its worker was killed", message.stack
        )
    return crash_error(message)


def _memory_error(books: Books, verdict: Verdict, whose: str) -> MemoryLimitError:
    limit = megabytes(books.max_memory or 0)
    return MemoryLimitError(
        f"{whose} had {megabytes(verdict.used)} of private memory, more than per_worker['memory'] of {limit}; "
        "it was killed"
    )


def _loading_error(books: Books, job: JobBook, verdict: Verdict | None, message: LaneDied) -> BaseException | None:
    """Return the error for a death while loading; None if we killed it for another reason."""
    if verdict is None:
        return crash_error(message)
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


def crash_error(message: LaneDied, when: str = "while it ran the item", reason: str = "") -> WorkerCrashedError:
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
