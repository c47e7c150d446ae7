"""The list of a job's items: filtered, searched, sorted, and grouped by failures.

A browser never has more of a job than the rows that it shows, so a job of a million items costs a viewer no more than
one of a hundred. Orders, groups, and the items that a search has found are kept for further requests. While the job
runs, each is made again only after six times as long as that took, so that a viewer takes at most a sixth of a core;
the filter by status is never older than the header.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import and_
from typing import Any, Generic, NamedTuple, TypeVar

from mpqueue._core.state.item_table import ItemTable
from mpqueue._live_page.page_json import cut, searched_text
from mpqueue._live_page.served import ShownJob
from mpqueue._output.failure_groups import FailureGroup, groups_of
from mpqueue.status import FAILED

T = TypeVar("T")

#: The sort keys.
INDEX, ELAPSED, ATTEMPTS = "index", "elapsed", "attempts"
ORDERS = (INDEX, ELAPSED, ATTEMPTS)
#: Seconds that a request searches; the next request for the same words searches the rest.
SEARCHING = 0.4
#: The number of items searched before other threads get their turn, and of items sorted in one go: 1 ms each.
BATCH, RUN = 500, 5_000
#: The number of searches that are kept.
SEARCHES = 4
#: Outdated values are kept for this many times as long as they took to make.
KEPT = 6
#: The most groups of failures that are shown.
MOST_GROUPS = 50


@dataclass(frozen=True, slots=True)
class Wish:
    """The items that a viewer wants to see, and their order."""

    status: int | None = None  #: the items with this status; None: all
    words: tuple[str, ...] = ()  #: in lower case; an item has to have all of them
    group: str | None = None  #: the key of the group of failures that an item is of
    order: str = INDEX
    descending: bool = False
    offset: int = 0  #: the first row to be sent, and their most
    limit: int = 100
    place_of: int | None = None  #: the index of an item whose place in the list is wanted


class Listed(NamedTuple):
    """The items of a `Wish`, in their order. ``searched`` is how many of the job's items were searched so far."""

    indices: Sequence[int]
    searched: int


@dataclass(slots=True)
class _Search:
    """The words that are searched for; ``hits`` has a 1 for each item that has them all."""

    words: tuple[str, ...]
    lock: threading.Lock = field(default_factory=threading.Lock)
    hits: bytearray = field(default_factory=bytearray)
    at: int = 0  #: the next item
    cost: float = 0.0
    ended: float = -math.inf
    whole: bool = False  #: all were searched once
    state: object = None  #: of the job, when the last search of all began


class _Kept(Generic[T]):
    """A value made from all items of a job. Once they have changed, it is made again, but not soon."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._made: tuple[int, Any, float, T] | None = None

    def get(self, count: int, state: object, make: Callable[[], T]) -> T:
        """Return the value for that many items; ``state`` changes whenever one of them does."""
        with self._lock:
            if self._made is not None:
                made_count, made_state, until, made = self._made
                if made_count == count and (made_state == state or self._now() < until):
                    return made
            begun = self._now()
            made = make()
            now = self._now()
            self._made = count, state, now + KEPT * (now - begun), made
            return made


class Listing:
    """The lists of one job's items. Called on threads, several at a time."""

    def __init__(self, job: ShownJob, now: Callable[[], float]) -> None:
        self._job = job
        self._now = now
        self._lock = threading.Lock()
        self._searches: OrderedDict[tuple[str, ...], _Search] = OrderedDict()
        self._keep_nothing()

    def _keep_nothing(self) -> None:
        self._orders: dict[str, _Kept[list[int]]] = {by: _Kept(self._now) for by in ORDERS}
        self._groups: _Kept[list[FailureGroup]] = _Kept(self._now)

    def forget(self) -> None:
        """Free all kept values, since there are no viewers."""
        with self._lock:
            self._searches.clear()
        self._keep_nothing()

    def find(self, wish: Wish, statuses: bytes) -> Listed:
        """The items that are wished for. ``statuses`` are those that the viewer sees."""
        count = len(statuses)
        flags, searched = self._flags(wish, statuses)
        if wish.order == INDEX:
            order: Sequence[int] = range(count)
            if wish.descending:
                order, flags = order[::-1], None if flags is None else flags[::-1]
            return Listed(order if flags is None else list(compress(order, flags)), searched)
        ranked = self._orders[wish.order].get(
            count, self._state(), lambda: _sorted_by(wish.order, self._job.table, count)
        )
        ranked = ranked[::-1] if wish.descending else ranked
        # Items that did not run have no value to be sorted by, and come last in both directions.
        attempts = self._job.table.attempts
        chosen = ranked if flags is None else [index for index in ranked if flags[index]]
        ran = [index for index in chosen if attempts[index]]
        if len(ran) < len(chosen):
            ran += sorted(index for index in chosen if not attempts[index])
        return Listed(ran, searched)

    def _flags(self, wish: Wish, statuses: bytes) -> tuple[bytes | None, int]:
        """A 1 for each item that is wished for; None: all of them."""
        count, flags = len(statuses), None
        searched = count
        if wish.words:
            with self._lock:
                search = self._searches[wish.words] = self._searches.pop(wish.words, _Search(wish.words))
                while len(self._searches) > SEARCHES:
                    self._searches.popitem(last=False)
            with search.lock:  # another request may search for the same words
                self._go_on(search, count)
            flags, searched = bytes(search.hits[:count]).ljust(count, b"\0"), count if search.whole else search.at
        if wish.status is not None:
            flags = _both(flags, statuses.translate(bytes(code == wish.status for code in range(256))))
        if wish.group is not None:
            members = bytearray(count)
            for index in self.members(wish.group):
                if index < count and statuses[index] == FAILED:
                    members[index] = 1
            flags = _both(flags, bytes(members))
        return flags, searched

    # -- searching -------------------------------------------------------------------------------------------

    def _go_on(self, search: _Search, count: int) -> None:
        if search.at == 0:
            state = self._state()
            is_fresh = search.state == state or self._now() < search.ended + KEPT * search.cost
            if is_fresh and len(search.hits) == count:
                return
            search.state, search.cost = state, 0.0
        search.hits.extend(bytes(max(0, count - len(search.hits))))
        table = self._job.table
        begun = now = self._now()
        while search.at < count and (now == begun or now < begun + SEARCHING):
            stop = min(count, search.at + BATCH)
            for index in range(search.at, stop):
                text = searched_text(table, index)
                search.hits[index] = all(word in text for word in search.words)
            search.at = stop
            if self._job.active:  # the queue's own thread may need to run
                threading.Event().wait(0.0005)
            now = self._now()
        search.cost += now - begun
        if search.at >= count:
            search.at, search.ended, search.whole = 0, now, True

    def _state(self) -> object:
        job = self._job
        return (job.completed, job.failed, job.retries, job.epoch)

    # -- failures --------------------------------------------------------------------------------------------

    def failures(self) -> dict[str, Any]:
        """The largest groups of failed items, how many more there are, and the number of all their items, for JSON.

        Costs a few microseconds per failed item.
        """
        groups = self._failed()
        shown = [
            {
                "key": _key_of(group),
                "errorType": group.error_type if group.stage is None else f"{group.error_type} in {group.stage}",
                "place": group.place,
                "message": cut(group.message),
                "count": group.count,
                "first": group.items[0].label,
            }
            for group in groups[:MOST_GROUPS]
        ]
        return {"failed": sum(group.count for group in groups), "groups": shown, "more": len(groups) - len(shown)}

    def members(self, key: str) -> Sequence[int]:
        """The indices of the items in that group; none if there is no such group (any more)."""
        return [item._index for group in self._failed() if _key_of(group) == key for item in group.items]

    def _failed(self) -> list[FailureGroup]:
        # Even if an open job has got more items meanwhile, these groups have the same items.
        state = (self._job.epoch, self._job.failed, self._job.retries)
        return self._groups.get(0, state, lambda: groups_of(self._job.table))


def _key_of(group: FailureGroup) -> str:
    return "@".join([group.error_type, group.place or "", group.stage or ""])


def _sorted_by(by: str, table: ItemTable, count: int) -> list[int]:
    """Sort in parts and merge in Python, so that other threads get their turn: one long sort would block the queue."""
    key = (table.elapsed if by == ELAPSED else table.attempts).__getitem__
    runs = [sorted(range(start, min(count, start + RUN)), key=key) for start in range(0, count, RUN)]
    return runs[0] if len(runs) == 1 else list(heapq.merge(*runs, key=key))


def _both(one: bytes | None, other: bytes) -> bytes:
    return other if one is None else bytes(map(and_, one, other))
