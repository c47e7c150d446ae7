"""`StreamItems`: the items of a stream as they are read, each with what it is.

An item's identity is a digest of its id, where the first item has one, else of its value, as in a job with a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from mpqueue._parent.journal.growth import StreamItem
from mpqueue._parent.journal.identity import (
    Key,
    NoIdentityError,
    digest,
    digest_of_key,
    name_unstable,
    state_of,
    unknowable,
)
from mpqueue._wire.ids import IdRule, find_id, rule_of
from mpqueue.errors import shown


class StreamItems(Iterator[StreamItem]):
    """The items of a stream, each with its identity and state, as they are read.

    Raises TypeError for an item without an identity, and what the input and ``key`` raise.

    Runs on the thread that reads the input, since it runs code of the items' classes. An interruption costs no item.
    """

    def __init__(self, items: Iterator[Any], key: Key | None = None) -> None:
        self._items = items
        self._key = key
        self._rule: IdRule | None = None
        self._count = 0
        self._read: list[Any] = []  #: an item of which it is still to be found out what it is

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamItem:
        if not self._read:
            self._read.append(next(self._items))
        try:
            entry = self._entry(self._read[0])
        except StopIteration as error:  # of ``key``, or of an item's class: it would look like the end of the input
            raise RuntimeError("finding out what an item is raised StopIteration") from error
        self._count += 1
        self._read.clear()
        return entry

    def _entry(self, item: Any) -> StreamItem:
        if self._rule is None:
            self._rule = rule_of(item)
        if self._rule is IdRule.POSITION:
            identity = self._digest(item)
            state = identity if self._key is None else digest_of_key(self._key, item, self._count)
            return StreamItem(item, identity, state)
        try:
            item_id = find_id(self._rule, item, self._count)
        except (KeyError, TypeError, IndexError, AttributeError):
            where = 'an "id" key' if self._rule is IdRule.KEY else "an .id attribute"
            raise TypeError(
                f"items[{self._count}]: expected {where}, as the first item has, got {shown(item)}"
            ) from None
        identity = self._digest(item_id)
        return StreamItem(
            item, identity, state_of(item) if self._key is None else digest_of_key(self._key, item, item_id), item_id
        )

    def _digest(self, value: Any) -> bytes:
        try:
            return digest(value)
        except NoIdentityError:
            what = name_unstable([value], [self._count])
            raise unknowable(what, has_ids=self._rule is not IdRule.POSITION) from None
