"""Open jobs: created with or without items, they get more while they run, until they are sealed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._call_checks import check_items
from mpqueue._core.messages import ItemsAdded
from mpqueue._core.state.item_table import ItemTable, check_unique, read_all
from mpqueue._core.state.job_book import JobBook
from mpqueue._parent.surroundings.replies import Reply
from mpqueue._queue.new_job import take_rule
from mpqueue._wire.added_items import AddedItems, plain_ids
from mpqueue._wire.item_names import IdRule, rule_of
from mpqueue.errors import JobFullError, JobStateError

if TYPE_CHECKING:
    from mpqueue._queue.host import QueueHost


def make_growing(items: Iterable[Any]) -> ItemTable:
    """Return an open job's first items. Raises the errors of `make_table`, and TypeError for ids that are not plain."""
    payloads = read_all(items)
    rule = rule_of(payloads[0]) if payloads else IdRule.POSITION
    ids = plain_ids(rule, payloads)
    check_unique(ids or [])
    return ItemTable(payloads, ids, rule, grows=True)


def add_items(host: QueueHost, book: JobBook, items: Iterable[Any], *, wait: bool) -> int:
    """Give the job more items; returns how many of them are new. See `JobQueue.add_items`."""
    table = book.table
    if not table.grows or book.stage is not None:
        raise JobStateError(f"job {book.id!r}: expected a job made by open_job() to add items to, got another")
    host.check_journal()
    check_items(items)
    given, most = read_all(items), book.options.max_waiting
    rule, ids = _ids_of(table, given)
    at = added = 0
    while True:
        # All of them at once or none, unless the call may wait in between.
        end = len(given) if most is None or not wait or book.started_at is None else at + most
        offered = table.look_at(given[at:end], None if ids is None else ids[at:end])
        room, posted = Reply[None](), Reply[None]()
        taken = host.ask(partial(_offer, host, book, offered, rule, room, posted, wait=wait))
        if taken is None:  # another thread has added the first item meanwhile
            rule, ids = _ids_of(table, given)
            continue
        at, added = at + taken.looked_at, added + taken.new
        if wait:
            host.await_written(posted)
        if at >= len(given):
            return added
        if taken.looked_at < len(offered.items):
            room.result()


def _ids_of(table: ItemTable, items: list[Any]) -> tuple[IdRule, list[Any] | None]:
    rule = table.rule if len(table) or not items else rule_of(items[0])
    return rule, plain_ids(rule, items)


class _Taken(NamedTuple):
    """The number of items looked at, from the first on, and how many of these are new."""

    looked_at: int
    new: int


def _offer(
    host: QueueHost,
    book: JobBook,
    offered: AddedItems,
    rule: IdRule,
    room: Reply[None],
    posted: Reply[None],
    *,
    wait: bool,
) -> _Taken | None:
    """Give the job as many items as it has room for, on the coordinator's thread.

    ``room`` resolves when there is more room, ``posted`` when the journal gets the items taken, if the caller waits.
    Returns None if the ``rule`` is not that of the job's first item.
    """
    host.closer.check_open("add items")  # checked once more: closing the queue has sealed the job
    _check_takes_items(book)
    table, most = book.table, book.options.max_waiting
    if len(table) and table.rule is not rule:
        return None
    free = None if most is None else max(0, most - book.waiting)
    count = len(offered.items)
    chosen, looked_at = table.choose(offered, free)
    if looked_at < count:
        assert free is not None
        assert most is not None
        if not wait or book.started_at is None:
            raise _full(book, offered, free)
        host.engine.coordinator().when(partial(_has_room, book, most), room)
    if not len(table) and rule is not IdRule.POSITION and chosen.items:
        take_rule(book, rule)
    if book.active:
        table.take_in(chosen, rule)
        host.handle(ItemsAdded(book, chosen.new))
    else:  # the scheduler gets the job with these
        book.take_in(chosen, rule)
    host.items_added(book, posted if wait else None)
    return _Taken(looked_at, len(chosen.new))


def _check_takes_items(book: JobBook) -> None:
    if book.sealed or book.cancelled or book.status.final:
        state = "sealed" if book.sealed and not book.status.final else "cancelled" if book.cancelled else book.status
        raise JobStateError(f"job {book.id!r}: expected an open job to add items to, got one that is {state}")


def _full(book: JobBook, offered: AddedItems, free: int) -> JobFullError:
    count, how = len(offered.items), "start it first" if book.started_at is None else "wait=True waits for room"
    return JobFullError(
        f"job {book.id!r}: expected at most {free} items, since {book.waiting} wait already and "
        f"max_waiting={book.options.max_waiting}, got {count}; none was added; {how}"
    )


def _has_room(book: JobBook, most: int) -> bool:
    return book.waiting < most or book.sealed or book.cancelled or book.status.final
