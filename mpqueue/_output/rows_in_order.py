"""`RowsInOrder`: rows as items end, handed on in the order of the items.

An item that takes hours must not have millions of rows wait in memory: from some size on what waits is put aside, in a
file without a name, and read again when its turn comes.
"""

from __future__ import annotations

import heapq
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from mpqueue._os.files import read_at
from mpqueue._wire.pickling.payload import dump_by_reference, dump_by_value, load_kept

#: Bytes of rows that may wait in memory.
MOST_HELD = 32 << 20

Row = dict[str, Any]


class _RowBatch:
    """Rows of ``count`` items from ``first`` on; in memory, or (``at``) in the file."""

    __slots__ = ("at", "count", "first", "length", "rows", "size")

    def __init__(self, first: int, count: int, rows: list[Row], size: float) -> None:
        self.first, self.count, self.rows, self.size = first, count, rows, size
        self.at = self.length = 0

    def __lt__(self, other: _RowBatch) -> bool:
        return self.first < other.first


class RowsInOrder:
    """Used by one thread. ``hand_on`` gets the rows; ``folder`` is where they are put aside (None: as the system says).

    Raises what ``hand_on`` raises, OSError where there is no room to put rows aside, and what pickling them raises.
    """

    def __init__(self, hand_on: Callable[[list[Row]], object], folder: Path | None) -> None:
        self._hand_on = hand_on
        self._folder = folder
        self._next = 0
        self._waiting: list[_RowBatch] = []  #: a heap
        self._held = 0.0  #: bytes of it in memory
        self._file: IO[bytes] | None = None
        self._end = 0

    def put(self, first: int, count: int, rows: list[Row], size: float) -> None:
        """These are the rows of the ``count`` items from ``first`` on (some may have none), of so many bytes."""
        if first == self._next:
            self._hand_on(rows)
            self._next += count
            self._go_on()
            return
        heapq.heappush(self._waiting, _RowBatch(first, count, rows, size))
        self._held += size
        if self._held > MOST_HELD:
            self._put_aside()

    def end(self) -> None:
        """No more will come: what waits for others goes on without them."""
        while self._waiting:
            self._next = self._waiting[0].first
            self._go_on()
        self.close()

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        if self._file is not None:
            self._file.close()

    def _go_on(self) -> None:
        while self._waiting and self._waiting[0].first == self._next:
            batch = heapq.heappop(self._waiting)
            self._next += batch.count
            if batch.length:
                self._hand_on(self._read(batch))
            else:
                self._held -= batch.size
                self._hand_on(batch.rows)
        if self._file is not None and not self._waiting:
            self._file.truncate(0)
            self._end = 0

    def _put_aside(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - `close` does
        for batch in self._waiting:
            if batch.length:
                continue
            data = _dump(batch.rows)
            self._file.seek(self._end)
            self._file.write(data)
            batch.at, batch.length, batch.rows = self._end, len(data), []
            self._end += len(data)
        self._file.flush()
        self._held = 0.0

    def _read(self, batch: _RowBatch) -> list[Row]:
        assert self._file is not None
        data = read_at(self._file.fileno(), batch.length, batch.at)
        rows: list[Row] = _load(data)
        return rows


def _dump(rows: list[Row]) -> bytes:
    """By reference, so that instances are of the same classes later; by value where a class has no name here."""
    try:
        data, buffers = dump_by_reference(rows)
    except Exception:  # noqa: BLE001 - users' code
        data, buffers = dump_by_value(rows)
    return pickle.dumps((data, [bytearray(buffer) for buffer in buffers]), pickle.HIGHEST_PROTOCOL)


def _load(data: bytes) -> Any:
    pickled, buffers = pickle.loads(data)
    return load_kept(pickled, buffers)
