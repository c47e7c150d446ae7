"""Cancelling single items: they fail without losing a try, and the job goes on without them.

A waiting item fails at once; if its job has not started, at the start. An item on a lane comes back if its worker has
not begun it: the limit of its chunk is lowered, as if it were stolen. An item that has begun may complete, but is not
tried again; with ``kill``, its worker is killed, and other items on the lane run again without losing a try.

In a pipeline, inputs are cancelled: each with all items made from it, in every stage.
"""

from __future__ import annotations

from collections.abc import Collection

from mpqueue._core.messages import ItemsDropped
from mpqueue._core.rules import outcomes, overdue, reports, stealing
from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk, LaneBook, LaneState
from mpqueue.status import JobStatus


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
        assert each.stage is not None
        _drop(books, each, each.stage.items_of(inputs), message.kill)
    for each in pipeline.jobs:
        outcomes.finish_if_over(books, each)


def begin(books: Books, job: JobBook) -> None:
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
            overdue.take_back(books, lane)
        return
    chunk.doomed |= kill
    first = next(at for at in range(chunk.reported, chunk.end) if chunk.indices[at] in gone)
    stealing.lower(books, lane, chunk, first)  # in any case: claimed items stay
