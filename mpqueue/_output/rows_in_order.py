"""`RowsInOrder`: items as they end, their rows handed on in the order of the items.

An item that takes hours must not have millions of rows wait in memory. Where a journal has the results, rows are made
when their turn comes. Else, from some size on, what waits is put aside, in a file without a name, and read again then.
What can't be pickled, such as an object that has made itself a lock on its way here, stays in memory.
"""

from __future__ import annotations

import heapq
import pickle
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from mpqueue._os.files import read_at
from mpqueue._wire.pickling.payload import dump_by_reference, dump_by_value, load_kept

#: Bytes of rows that may wait in memory.
MOST_HELD = 32 << 20

Row = dict[str, Any]


class _InFile(NamedTuple):
    """Stands for rows that are in the file."""

    at: int
    length: int


@dataclass(slots=True)
class _RowBatch:
    """Items that follow each other; and their rows, where they are made already, of so many bytes in memory."""

    indices: Sequence[int]
    rows: Sequence[Row | _InFile] | None
    size: float


class RowsInOrder:
    """Used by one thread. ``hand_on`` gets the rows; ``rows_of`` makes those that were not when they were put.

    ``folder`` is where rows are put aside (None: as the system says). Raises what ``rows_of`` and ``hand_on`` raise,
    and OSError where there is no room to put rows aside.
    """

    def __init__(
        self, rows_of: Callable[[Sequence[int]], list[Row]], hand_on: Callable[[list[Row]], object], folder: Path | None
    ) -> None:
        self._rows_of = rows_of
        self._hand_on = hand_on
        self._folder = folder
        self._next = 0
        self._waiting: list[tuple[int, _RowBatch]] = []  #: a heap, by the first item of each
        self._held = 0.0  #: bytes of it in memory
        self._file: IO[bytes] | None = None
        self._end = 0

    def put(self, indices: Sequence[int], rows: list[Row] | None, size: float) -> None:
        """These items, which follow each other, have ended. Their rows, of so many bytes; None: made at their turn."""
        batch = _RowBatch(indices, rows, 0.0 if rows is None else size)
        heapq.heappush(self._waiting, (indices[0], batch))
        self._held += batch.size
        self._go_on()
        if self._held > MOST_HELD:
            self._put_aside()

    def end(self) -> None:
        """No more will come: what waits for others goes on without them."""
        while self._waiting:
            self._next, _ = self._waiting[0]
            self._go_on()
        self.close()

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        if self._file is not None:
            self._file.close()

    def _go_on(self) -> None:
        while self._waiting and self._waiting[0][0] == self._next:
            _, batch = heapq.heappop(self._waiting)
            self._next += len(batch.indices)
            self._held -= batch.size
            self._hand_on(self._rows_in(batch))
        if self._file is not None and not self._waiting:
            self._file.truncate(0)
            self._end = 0

    def _rows_in(self, batch: _RowBatch) -> list[Row]:
        if batch.rows is None:
            return self._rows_of(batch.indices)
        rows: list[Row] = []
        for one in batch.rows:
            rows += self._read(one) if isinstance(one, _InFile) else [one]
        return rows

    def _put_aside(self) -> None:
        for _, batch in self._waiting:
            if batch.size and batch.rows is not None:
                batch.rows, batch.size = self._written(batch.rows), 0.0
        self._held = 0.0

    def _written(self, rows: Sequence[Any]) -> list[Row | _InFile]:
        """What stands for these rows, and those of them that can't be in the file."""
        data = _dump(rows)
        if data is not None:
            return [self._write(data)]
        if len(rows) == 1:
            return [*rows]
        return [one for row in rows for one in self._written([row])]

    def _write(self, data: bytes) -> _InFile:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - `close` does
        self._file.seek(self._end)
        self._file.write(data)
        self._file.flush()
        written = _InFile(self._end, len(data))
        self._end += len(data)
        return written

    def _read(self, written: _InFile) -> list[Row]:
        assert self._file is not None
        rows: list[Row] = _load(read_at(self._file.fileno(), written.length, written.at))
        return rows


def _dump(rows: Sequence[Row]) -> bytes | None:
    """By reference, so that instances are of the same classes later; by value where a class has no name here.

    None for what can't be pickled, or not be loaded again.
    """
    for dump in (dump_by_reference, dump_by_value):
        try:
            data, buffers = dump(rows)
            pickled = pickle.dumps((data, [bytearray(buffer) for buffer in buffers]), pickle.HIGHEST_PROTOCOL)
            _load(pickled)
        except BaseException:  # noqa: BLE001, S112 - users' code
            continue
        return pickled
    return None


def _load(data: bytes) -> Any:
    pickled, buffers = pickle.loads(data)
    return load_kept(pickled, buffers)
