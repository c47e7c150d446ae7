"""Jobs whose items arrive while they run: streams and open jobs."""

from __future__ import annotations

from mpqueue._core.messages import ItemsAdded, JobSealed
from mpqueue._core.rules import outcomes
from mpqueue._core.state.books import Books
from mpqueue._core.state.pending import Care
from mpqueue.errors import JobStateError


def items_added(books: Books, message: ItemsAdded) -> None:
    """Let more items be dispatched, or fail at once if that is not possible; or count items that have ended before."""
    job = message.job
    job.table.admit(message.indices)
    if message.failed is not None:
        if job.active:
            job.completed += len(message.indices) - message.failed
            job.failed += message.failed
    elif job.active and not job.cancelled:
        if message.care is Care.NONE:
            job.pending.add(message.indices)
        else:
            books.any_apart |= message.care is Care.APART
            for index in message.indices:
                job.pending.handle_with(index, message.care)
                job.pending.add_due(index)
        outcomes.fail_if_barred(books, job)


def sealed(books: Books, message: JobSealed) -> None:
    """Take no more items from outside. Raises `JobStateError` for a stage, which the stage before it seals."""
    job = message.job
    if job.stage is not None:
        raise JobStateError(f"job {job.id!r}: expected an open job to seal, got a stage of a pipeline")
    job.sealed = True
    outcomes.finish_if_over(books, job)
