"""Which items run now: read from the lanes' ledgers when somebody asks, on whatever thread that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpqueue._core.books import Books
from mpqueue._core.job_book import JobBook
from mpqueue._core.lane_book import Chunk
from mpqueue._engine.protocol import Lane
from mpqueue._wire.ledger import Phase


def running_items(books: Books, lane_of: Callable[[int], Lane | None], job: JobBook) -> frozenset[int]:
    """The indices of the job's items that workers run."""
    running: set[int] = set()
    for book in books.lanes:
        lane = lane_of(book.number)
        for chunk in list(book.chunks):
            if chunk.job is job and lane is not None:
                running.update(_claimed(lane, chunk))
    return frozenset(running)


def _claimed(lane: Lane, chunk: Chunk) -> Sequence[int]:
    try:
        claim = lane.ledger.read()
    except ValueError:  # the lane was retired meanwhile
        return ()
    if not claim.is_of(chunk.number):
        return ()
    match claim.phase:
        case Phase.RUNNING | Phase.UNPACKING:
            return chunk.indices[claim.lo : claim.hi]
        case Phase.PACKING:
            return chunk.indices[claim.lo : claim.lo + 1]
    return ()
