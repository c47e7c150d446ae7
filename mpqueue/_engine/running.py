"""Which items run now, and how far: read from the lanes' ledgers when somebody asks, on whatever thread that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mpqueue._core.books import Books
from mpqueue._core.job_book import JobBook
from mpqueue._core.lane_book import Chunk
from mpqueue._engine.protocol import Lane
from mpqueue._wire.ledger import Phase


def running_items(books: Books, lane_of: Callable[[int], Lane | None], job: JobBook) -> Mapping[int, float]:
    """The indices of the job's items that workers run, each with what its handler said of its progress, 0 to 1."""
    running: dict[int, float] = {}
    for book in books.lanes:
        lane = lane_of(book.number)
        for chunk in list(book.chunks):
            if chunk.job is job and lane is not None:
                claimed, fraction = _claimed(lane, chunk)
                running.update(dict.fromkeys(claimed, fraction))
    return running


def _claimed(lane: Lane, chunk: Chunk) -> tuple[Sequence[int], float]:
    try:
        claim = lane.ledger.read()
    except ValueError:  # the lane was retired meanwhile
        return (), 0.0
    if not claim.is_of(chunk.number):
        return (), 0.0
    match claim.phase:
        case Phase.RUNNING if claim.hi - claim.lo == 1:
            return chunk.indices[claim.lo : claim.hi], claim.fraction
        case Phase.RUNNING | Phase.UNPACKING:  # of many, nobody can tell which one spoke
            return chunk.indices[claim.lo : claim.hi], 0.0
        case Phase.PACKING:
            return chunk.indices[claim.lo : claim.lo + 1], 1.0
    return (), 0.0
