"""Blame if it is unknown what a dead worker ran: suspects are sent in groups, each with nothing beside it.

If a group's worker dies, the group is halved; if its report arrives, all of it is cleared; and if an item is
alone when its worker dies, it is the cause. So no other item is ever charged, and n suspects cost about log2(n) deaths.

"Nothing beside it" means: on no lane that dies together with its own (`LaneReady.fate`).
"""

from __future__ import annotations

from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneBook
from mpqueue._core.state.pending import Care


def allows(books: Books, lane: LaneBook, job: JobBook) -> bool:
    """False where serving the job on this lane now would bring two suspects together, or keep one waiting for ever."""
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
