"""Which items run now, and how far: read from the lanes' ledgers on demand, on any thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk, LaneBook, LaneState
from mpqueue._parent.lane_protocol import Lane
from mpqueue._wire.memory.ledger import Claim, Phase


def running_items(books: Books, lane_of: Callable[[int], Lane | None], job: JobBook) -> Mapping[int, float]:
    """The indices of the job's items that workers run, each with what its handler said of its progress, 0 to 1."""
    running: dict[int, float] = {}
    for book in books.lanes:
        lane = lane_of(book.number)
        for chunk in list(book.chunks):
            if chunk.job is job and (claim := _claim_of(lane)) is not None and claim.is_of(chunk.number):
                running.update(dict.fromkeys(*_claimed(claim, chunk)))
    return running


def _claim_of(lane: Lane | None) -> Claim | None:
    return None if lane is None else lane.peek()


def _claimed(claim: Claim, chunk: Chunk) -> tuple[Sequence[int], float]:
    match claim.phase:
        case Phase.RUNNING if claim.hi - claim.lo == 1:
            return chunk.indices[claim.lo : claim.hi], claim.fraction
        case Phase.RUNNING | Phase.UNPACKING:  # of many, it is unknown which one reported
            return chunk.indices[claim.lo : claim.hi], 0.0
        case Phase.PACKING:
            return chunk.indices[claim.lo : claim.lo + 1], 1.0
    return (), 0.0


@dataclass(frozen=True, slots=True)
class LaneNow:
    """What a lane is at. ``job`` is the number of the job whose items it has, None where it has none."""

    number: int
    state: LaneState
    pid: int | None
    job: int | None = None
    phase: Phase = Phase.IDLE
    #: the indices that it may be running now: one, or some that are so short as to go together
    items: Sequence[int] = ()
    since: float = 0.0  #: since when, by the monotonic clock
    fraction: float = 0.0  #: how far a single one is, by its handler's `report`


def lanes_now(books: Books, lane_of: Callable[[int], Lane | None]) -> list[LaneNow]:
    """What each lane is at, but for those that are not wanted any more, and whose workers have gone.

    Costs 2 us a lane; each is seen whole or a moment later, as another thread changes them.
    """
    there = [book for book in list(books.lanes) if not (book.state is LaneState.ABSENT and books.is_surplus(book))]
    return [_lane_now(book, lane_of(book.number)) for book in there]


def _lane_now(book: LaneBook, lane: Lane | None) -> LaneNow:
    number, state, pid, chunks, claim = book.number, book.state, book.pid, list(book.chunks), _claim_of(lane)
    if claim is None or not chunks:
        return LaneNow(number, state, pid)
    job = chunks[0].job.number
    for chunk in chunks:
        if claim.is_of(chunk.number):
            items, fraction = _claimed(claim, chunk)
            return LaneNow(number, state, pid, job, claim.phase, items, claim.since, fraction)
    return LaneNow(number, state, pid, job)
