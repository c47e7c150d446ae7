"""What the rows of a stream tell, and of which items: each has one row, which is found by what the item is."""

from __future__ import annotations

import pickle
from collections.abc import Hashable
from typing import Any, NamedTuple

from mpqueue._core.state.item_table import Elsewhere, ItemTable
from mpqueue._parent.journal.chunk_rows import RowReader, parts_of, whole_content
from mpqueue._parent.journal.kept_values import Kept, NotKept, ReadFile, Unreadable, restore
from mpqueue._parent.journal.sealed import unseal
from mpqueue._parent.transport.kept_errors import text_of
from mpqueue.errors import JournalError

#: The columns of ``stream_items``, as places name them.
BODY, ITEM = b"stream_items", b"stream_items.item"
#: A slot has 64 bits.
_SLOTS = 1 << 64


class Named(NamedTuple):
    """One item of a stream: what it is, and the how manieth of its like, from 0."""

    identity: bytes
    nth: int

    def place(self, table: bytes, job: int) -> bytes:
        """Where what is written of it belongs, for `seal`. Takes 0.3 us."""
        return b"%b %d %d %b" % (table, job, self.nth, self.identity)

    @property
    def slot(self) -> int:
        """A number that it has in each run, and no other item of the stream has, as good as surely."""
        return (int.from_bytes(self.identity[:8], "big") + self.nth) % _SLOTS


class Told(NamedTuple):
    """What a row says: how its item ended, in which state it was, in which generation, its outcome, and its code."""

    status: int
    state: bytes
    generation: int
    outcome: tuple[Any] | bytes
    code: int = 0  #: the number of the code that made it; version 2 of the journal had none

    def write(
        self, table: ItemTable, index: int, number: int, reader: RowReader, read_file: ReadFile, path: str
    ) -> None:
        """Write it into a table, which ``reader`` has, at that place; for its result stands the row of that number."""
        indices = range(index, index + 1)
        if isinstance(self.outcome, bytes):
            reader.write(number, whole_content(pickle.loads(self.outcome), read_file, path), indices)
        else:
            table.complete(indices, [Elsewhere(number)])


def read_row(body: Any, named: Named, job: int, path: str) -> Told:
    """Raises `JournalError` for a row that is damaged, that of another item, or with what can't be imported here."""
    try:
        return Told(*unseal(body, named.place(BODY, job), f"{path}: a row of a stream"))
    except JournalError:
        raise
    except Exception as error:
        raise JournalError(f"{path}: a row of a stream can't be read here: {text_of(error)}") from error


def read_result(told: Told, read_file: ReadFile, path: str) -> Any:
    """What a completed item returned; an `Unreadable` where it can't be read. Raises `JournalError`."""
    if not isinstance(told.outcome, bytes):
        return told.outcome[0]
    (part,) = parts_of(whole_content(pickle.loads(told.outcome), read_file, path), 1)
    found = restore(Kept(*part.kept), read_file)
    return found if part.size is None or isinstance(found, Unreadable) else found[part.places[0]]


def read_item(body: Any, named: Named, job: int, path: str) -> tuple[Hashable, Any]:
    """An item's id (None where it has none), and the item. Raises `JournalError` for what is damaged."""
    found = unseal(body, named.place(ITEM, job), f"{path}: an item of a stream")
    item_id, item = (None if kept is None else restore(Kept(*kept), _no_file) for kept in found)
    return item_id, NotKept() if found[1] is None else item


def _no_file(name: str) -> bytes:
    raise FileNotFoundError(name)
