"""Single items that are cancelled: they fail without losing a try, and the job goes on without them.

One that waits fails at once; of a job that has not started, when it does. One that is on a lane comes back where its
worker has not begun it: the limit of its chunk is lowered, as if it were stolen. One that has begun may complete, but
is not tried again; with ``kill``, its worker is ended, and what else was on the lane runs again without losing a try.

Of a pipeline, inputs are cancelled: with each of them all that comes of it, in every stage.
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
    """Cancel these items. Those that have ended stay as they are."""
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
    """Cancel items of which none has ended."""
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
            reports.unpack(books, chunk)  # which drops them
    if not job.table.is_stream:  # of which one item after the other is dropped, of a hundred thousand
        job.pending.remove(left)
    outcomes.drop(books, job, sorted(left))


def _take_back(books: Books, lane: LaneBook, chunk: Chunk, gone: Collection[int], kill: bool) -> None:
    """Take items back from a lane, as far as they have not begun; with ``kill`` all of them."""
    job = chunk.job
    if job.table.is_stream and not kill:
        return  # the consumer gets no other answer than that of now
    job.dropped.update(gone)
    if lane.state is not LaneState.READY:
        return  # what was on it comes back
    if job.table.is_stream:
        if kill:
            overdue.take_back(books, lane)
        return
    chunk.doomed |= kill
    first = next(at for at in range(chunk.reported, chunk.end) if chunk.indices[at] in gone)
    stealing.lower(books, lane, chunk, first)  # however much is claimed by now: that stays
