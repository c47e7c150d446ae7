"""Columns of a table of items, one value per item: dense, as an array, a `bytearray` or a list, or sparse.

A sparse column holds only unexpected values of existing items, and nothing for those that are gone: they have ended as
expected. `take`, `put` and `fill` are the same for both. A chunk of a dense column is a slice, a chunk of a sparse one
is a call into C: each costs about 10 ns per item.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol, TypeVar

from mpqueue._os.memory_files import zeros

T = TypeVar("T")

#: Bytes from which on a column has memory of its own, which the system fills with zeros on use: filling it at once
#: would take 1 ms per 100,000 items, while the workers wait for the first of them.
LARGE = 1 << 16

Format = Literal["B", "I", "f", "O"]  #: like in `array`; "O": any object


class Column(Protocol[T]):
    """A column for readers, dense or sparse."""

    def __getitem__(self, index: int, /) -> T: ...

    def __setitem__(self, index: int, value: T, /) -> None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T]: ...


def dense(format: Format, count: int, *, grows: bool = False) -> Any:
    """Return a column of that many zeros (None for objects); one that ``grows`` can be extended."""
    if format == "O":
        return [None] * count
    if format == "B":
        return bytearray(count)
    if grows:
        return array(format, bytes(array(format).itemsize * count))
    size = array(format).itemsize * count
    memory = bytearray(size) if size < LARGE else zeros(size)
    return memoryview(memory).cast(format)


class SparseRows:
    """The rows of a table with sparse columns: those of its ``items``; they have ended if they have ``results``.

    All other rows below ``count`` have ended as expected, and are gone.
    """

    def __init__(self, count: int) -> None:
        self.count = count  #: the number of rows that ever existed, for the scheduler
        self.items = Sparse(self, "O", None, None)
        self.results = Sparse(self, "O", None, None)

    def is_open(self, index: int) -> bool:
        """True if the item exists and has not ended."""
        return dict.__contains__(self.items, index) and not dict.__contains__(self.results, index)


class Sparse(dict[int, Any]):
    """A sparse column. Its readers see a sequence with a value for each row that ever existed.

    A value that is not kept is ``before`` until the item has ended, and ``after`` from then on.
    """

    def __init__(self, rows: SparseRows, format: Format, before: Any, after: Any) -> None:
        super().__init__()
        self.format = format
        self.before, self.after = before, after
        self._rows = rows

    def __missing__(self, index: int) -> Any:
        return self.before if self.before != self.after and self._rows.is_open(index) else self.after

    def __len__(self) -> int:
        return self._rows.count

    @property
    def kept(self) -> int:
        """The number of values that it holds."""
        return dict.__len__(self)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._whole())

    def __bytes__(self) -> bytes:
        return bytes(self._whole())

    def _whole(self) -> Any:
        """Return all values. Rows that are gone cost almost nothing."""
        count, after = len(self), self.after
        column: Any = [after] * count if self.format == "O" else array(self.format, (after,)) * count
        for index in list(self._rows.items.keys()) if self.before != after else ():
            if index < count and self._rows.is_open(index):
                column[index] = self.before
        for index, value in list(self.items()):
            if index < count:
                column[index] = value
        return column

    def count(self, value: Any) -> int:
        """Return how many rows have that value."""
        counted: int = self._whole().count(value)
        return counted

    def translate(self, table: bytes) -> bytes:
        """Return all values as bytes, translated by the table as in `bytes.translate`."""
        return bytes(self).translate(table)


def take(column: Any, indices: Sequence[int]) -> list[Any]:
    """Return the values of these rows."""
    if type(column) is Sparse:
        return [*map(column.__getitem__, indices)]
    if type(indices) is range:
        return list(column[indices.start : indices.stop])
    return [column[index] for index in indices]


def put(column: Any, indices: Sequence[int], values: Sequence[Any]) -> None:
    """Set the values of these rows; for a dense column of numbers and several rows, from an array like it."""
    if type(column) is Sparse:
        column.update(zip(indices, values, strict=True))
    elif type(indices) is range:
        column[indices.start : indices.stop] = values
    else:
        for index, value in zip(indices, values, strict=True):
            column[index] = value


def fill(column: Any, indices: Sequence[int], value: int) -> None:
    """Set all of these rows to that value, in a column of bytes.

    If it is the value that a sparse column expects after the end, nothing is kept.
    """
    if type(column) is not Sparse:
        put(column, indices, bytes((value,)) * len(indices))
    elif value != column.after:
        column.update(dict.fromkeys(indices, value))
    elif column.kept:
        for index in indices:
            column.pop(index, None)


def extend(column: Any, count: int) -> None:
    """Extend a dense column, which grows, by that many zeros (None for objects)."""
    if isinstance(column, list):
        column.extend([None] * count)
    elif isinstance(column, bytearray):
        column.extend(bytes(count))
    else:
        column.frombytes(bytes(count * column.itemsize))


def sparse_of(column: Any, rows: SparseRows, format: Format, after: Any, kept: Iterable[int]) -> Sparse:
    """Return a dense column as a sparse one that keeps only those rows."""
    sparse = Sparse(rows, format, 0 if format != "O" else None, after)
    sparse.update((index, column[index]) for index in kept)
    return sparse
