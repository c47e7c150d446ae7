"""Jobs whose items arrive while they run: streams and open jobs."""

from __future__ import annotations

from mpqueue._core.messages import ItemsAdded, JobSealed
from mpqueue._core.rules import outcomes
from mpqueue._core.state.books import Books
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.pending import Care
from mpqueue.errors import JobStateError


def items_added(books: Books, message: ItemsAdded) -> None:
    """Let more items be dispatched, or fail at once if that is not possible; or count items that have ended before."""
    job = message.job
    job.table.admit(message.indices)
    how = message.how
    if not job.active:
        return
    if how is None:
        job.completed += len(message.indices)
    elif isinstance(how, Failure):
        for index in message.indices:
            job.table.fail_try(index, how, None)
        outcomes.fail(books, job, dict.fromkeys(message.indices, how))
    elif not job.cancelled:
        if how is Care.NONE:
            job.pending.add(message.indices)
        else:
            books.any_apart |= how is Care.APART
            for index in message.indices:
                job.pending.handle_with(index, how)
                job.pending.add_due(index)
        outcomes.fail_if_barred(books, job)


def sealed(books: Books, message: JobSealed) -> None:
    """Take no more items from outside. Raises `JobStateError` for a stage, which the stage before it seals."""
    job = message.job
    if job.stage is not None:
        raise JobStateError(f"job {job.id!r}: expected an open job to seal, got a stage of a pipeline")
    job.sealed = True
    outcomes.finish_if_over(books, job)
