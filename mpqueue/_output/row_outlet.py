"""`RowOutlet`: items that have ended, as rows for a sink.

Everything but `open` happens on the job's own thread, since it runs users' code: the sink's, and that of results.
"""

from __future__ import annotations

import contextlib
import heapq
import inspect
import logging
import pickle
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol, runtime_checkable

from mpqueue._core.state.item_table import Elsewhere, ItemTable
from mpqueue._core.state.pending import stretches
from mpqueue._os.files import read_at
from mpqueue._output.export import (
    COLUMNS,
    OUTPUT,
    TOGETHER,
    RowItem,
    absent_columns,
    batched,
    check_columns,
    column_names,
    no_such_column,
    reads_result,
    rows_of,
    with_names,
)
from mpqueue._output.file_sinks import FileSink, Row, check_apart
from mpqueue._text import counted
from mpqueue._wire.pickling.payload import dump_by_reference, dump_by_value, load_parts
from mpqueue.errors import JobStateError, shown
from mpqueue.status import FAILED

log = logging.getLogger("mpqueue")

#: The number of items whose rows are made at a time if their results are read from a journal: those may be big.
READ_PIECE = 64
#: Rows that wait until the columns are known; if more come, they are written without that.
MOST_UNDECIDED = 1000


@runtime_checkable
class Sink(Protocol):
    """A sink for the results of a job, ``create_job(results=...)``: any object with these two methods.

    ``rows`` are dicts, one per ended item: its id, status, attempts, elapsed, error and result; or the names in an
    attribute ``columns``, as in `Job.export`. A ``payload.key`` that no item has is a ValueError when the job is
    created; any other column that no row has gets a warning at the end. With ``in_order = True`` rows come in the order
    of the items, with ``failures = False`` without failed items. A method ``open()`` is called when the job is started,
    before any work; ``leave()`` instead of ``close()`` if rows are missing: the job was cancelled, or a call failed.

    All of them are called on one thread of the job's own. An error of any of them stops the job, and is the
    ``__cause__`` of the `SinkError` that its run raises; that of ``open`` is also raised by the call that starts the
    job. If a job goes on from a journal, ``write`` also gets the rows of items that had ended before.
    """

    def write(self, rows: list[Row], /) -> object:
        """Write these rows, in this order. While it takes its time, only a bounded number of rows waits."""

    def close(self) -> object:
        """Finish: all rows were written."""


#: The values of ``results``.
Results = Literal["keep", "discard"] | Sink


def check_sink(results: Any, journal: str | None) -> None:
    """Raise TypeError if it is no sink, ValueError if it would replace the journal, and errors of its check."""
    if isinstance(results, type) or not isinstance(results, Sink):
        raise TypeError(
            "results: expected 'keep', 'discard' or a sink (an object with write(rows) and close(): mpqueue.sinks), "
            f"got {shown(results)} of type {type(results).__name__}"
        )
    for name in ("open", "write", "close", "leave"):
        method = getattr(results, name, None)
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            raise TypeError(
                f"results: expected a sink whose {name} is a function, got a coroutine function: {method!r}"
            )
    columns = getattr(results, "columns", None)
    if columns is not None:
        column_names(columns)
    check = getattr(results, "check", None)
    if callable(check):
        check()
    if journal is not None and isinstance(results, FileSink):
        check_apart(results, journal)


#: The outlet that writes into each open sink, by the sink's identity.
_OPEN: weakref.WeakValueDictionary[int, RowOutlet] = weakref.WeakValueDictionary()
_OPENING = threading.Lock()


class RowOutlet:
    """An `Outlet` that gives a sink its rows. Raises ValueError for a column that no item has."""

    def __init__(self, sink: Sink, table: ItemTable, job_id: str, *, captured: bool) -> None:
        self._sink = sink
        self._table = table
        self.job_id = job_id
        columns = getattr(sink, "columns", None)
        self._captured = captured
        #: Both are known once there is a row: an open job's first item decides where ids come from.
        self._default: tuple[str, ...] = ()
        self._columns: Sequence[str] = () if columns is None else column_names(columns)
        if not table.grows:
            check_columns(table, self._columns, ended=False)
        #: Columns without a value so far.
        self._unseen = set() if columns is None else set(self._columns)
        #: Rows that wait until each chosen column has a value; None: they don't (any more).
        self._undecided: list[Row] | None = [] if self._unseen and getattr(sink, "or_default", False) else None
        self._seen_results = False
        self._with_failures = getattr(sink, "failures", True) is not False
        folder = sink.folder if isinstance(sink, FileSink) else None
        in_order = getattr(sink, "in_order", False) is True
        self._in_order = RowsInOrder(self._rows_of, self._hand_on, folder) if in_order else None
        self._rows = 0  #: the rows that the sink has
        self._was_closed = False

    def open(self) -> None:
        """Open the sink. Raises `JobStateError` if another job writes into it, and the sink's errors."""
        with _OPENING:
            holder = _OPEN.setdefault(id(self._sink), self)
        if holder is not self:
            raise JobStateError(
                f"results: expected a sink of the job's own, got {shown(self._sink)}, which job {holder.job_id!r} "
                "writes into; wait until that job is over, or give each job a sink"
            )
        table = self._table
        if isinstance(self._sink, FileSink) and table.source is not None and any(True for _ in table.ended_stretches()):
            self._sink.is_in_journal = True
        opened = getattr(self._sink, "open", None)
        if callable(opened):
            try:
                _called(opened)
            except BaseException:
                self._free()
                raise

    def _free(self) -> None:
        """Free the sink for another job."""
        with _OPENING:
            if _OPEN.get(id(self._sink)) is self:
                del _OPEN[id(self._sink)]

    def put(self, indices: Sequence[int], size: int) -> None:
        """Give the sink the rows of these items, or hold them until their turn."""
        each = size / max(1, len(indices))
        for piece in batched(indices, TOGETHER if size else READ_PIECE):
            if self._in_order is None:
                self._hand_on(self._rows_of(piece))
            else:
                for stretch in stretches(piece):
                    rows = None if self._table.source is not None else self._rows_of(stretch)
                    self._in_order.put(stretch, rows, each * len(stretch))

    def finish(self) -> None:
        """Give the sink all rows that are held, and close it; warn about columns that no row had."""
        self._hand_on_rest()
        if self._unseen and self._rows and self._columns != self._default:
            log.warning("job %r: expected rows with the columns %s, got none that has %s",
                        self.job_id, ", ".join(self._columns), ", ".join(sorted(self._unseen)))  # fmt: skip
        self._was_closed = True
        try:
            _called(self._sink.close)
        finally:
            self._free()

    def leave(self) -> str:
        """Leave the sink, unless it was closed; returns the number of rows that are kept, and their place."""
        where, count = None if self._was_closed else self._leave(), self._rows
        if isinstance(self._sink, FileSink):
            where = self._sink.left
            count = 0 if where is None else self._sink.rows
        if not count:
            return "nothing"
        return f"{counted(count, 'row')} in {where if isinstance(where, Path) else shown(self._sink)}"

    def _leave(self) -> object:
        try:
            with contextlib.suppress(Exception):  # the sink itself may fail
                self._hand_on_rest()
        finally:
            leave: Callable[[], object] = getattr(self._sink, "leave", self._sink.close)
            try:
                left = _called(leave)
            finally:
                self._free()
        return left

    def _hand_on_rest(self) -> None:
        """Hand on the rows that wait for earlier items, or for the columns."""
        if self._in_order is not None:
            self._in_order.end()
        self._decide()

    def _hand_on(self, rows: list[Row]) -> None:
        if self._undecided is not None:
            self._undecided += rows
            if self._unseen and len(self._undecided) < MOST_UNDECIDED:
                return
            self._decide()
        elif rows:
            if len(rows[0]) > len(self._columns):  # made before the decision
                rows = [{name: row[name] for name in self._columns} for row in rows]
            _called(self._sink.write, rows)
            self._rows += len(rows)

    def _decide(self) -> None:
        """Decide on the columns of rows from now on: the chosen ones, or all, if no result has one of those."""
        rows, self._undecided = self._undecided, None
        if rows is None:
            return
        if self._unseen and self._seen_results:
            wrong = no_such_column(min(self._unseen), (row.get("result") for row in rows), self._table.payloads)
            log.warning("columns: %s; %s has all columns instead",
                        wrong, getattr(self._sink, "path", "the output"))  # fmt: skip
            self._columns = self._default
            self._sink.columns = None  # type: ignore[attr-defined]
        self._hand_on(rows)

    def _rows_of(self, indices: Sequence[int]) -> list[Row]:
        if not self._default:
            names = with_names(getattr(self._sink, "default", COLUMNS), has_ids=self._table.ids is not None)
            self._default = (*names, *(OUTPUT if self._captured else ()))
            self._columns = self._columns or self._default
        table, columns = self._table, self._columns
        if self._undecided is not None:
            columns = tuple(dict.fromkeys((*columns, *self._default)))
        if not self._with_failures:
            indices = [index for index in indices if table.status[index] != FAILED]
        results = table.held_results(indices)
        if table.source is None or Elsewhere not in set(map(type, results)) or not any(map(reads_result, columns)):
            return self._made(indices, results, columns)

        def make(at: int, result: Any) -> Row:
            return self._made([indices[at]], [result], columns)[0]

        def leave_out(at: int, error: Exception) -> None:
            log.error("job %r: item %s has no row, since its result can't be read again: %s",
                      self.job_id, table.named(indices[at]), error)  # fmt: skip

        made = table.source.each(results, table.slots_of(indices) or indices, make, leave_out)
        return [row for row in made if row is not None]

    def _made(self, indices: Sequence[int], results: Sequence[Any], columns: Sequence[str]) -> list[Row]:
        """The rows of these items, with these results."""
        if self._unseen:
            for index, result in zip(indices, results, strict=True):
                self._unseen &= absent_columns(RowItem(self._table, index, result), self._unseen)
                self._seen_results = self._seen_results or result is not None
        return rows_of(self._table, indices, columns, results)


def _called(method: Callable[..., object], *arguments: Any) -> object:
    """Call it and return its value. Raises its errors, and TypeError for a coroutine, which has not run."""
    made = method(*arguments)
    if inspect.iscoroutine(made):
        made.close()
        raise TypeError(f"expected a function, got one that returns a coroutine: {shown(method)}")
    return made


# -- `RowsInOrder`: items as they end, their rows handed on in the order of the items. ---------------------------------
#
# While one item takes hours, millions of rows must not wait in memory. If a journal has the results, rows are made when
# their turn comes. Otherwise, from some size on, waiting rows are put aside in a file without a name, and read again at
# their turn. Rows that can't be pickled, such as an object that has made itself a lock on its way here, stay in memory.

#: The most bytes of rows that wait in memory.
MOST_HELD = 32 << 20


class _InFile(NamedTuple):
    """Stands for rows that are in the file."""

    at: int
    length: int


@dataclass(slots=True)
class _RowBatch:
    """Consecutive items; and their rows, if they are made already, with their bytes in memory if they count."""

    indices: Sequence[int]
    rows: list[Row] | _InFile | None
    size: float


class RowsInOrder:
    """Rows in the items' order. Used by one thread. ``hand_on`` gets them; ``rows_of`` makes those not made when put.

    ``folder`` is the folder for rows put aside (None: the system's). Raises the errors of ``rows_of`` and ``hand_on``,
    and OSError if there is no room to put rows aside.
    """

    def __init__(
        self, rows_of: Callable[[Sequence[int]], list[Row]], hand_on: Callable[[list[Row]], object], folder: Path | None
    ) -> None:
        self._rows_of = rows_of
        self._hand_on = hand_on
        self._folder = folder
        self._next = 0
        self._waiting: list[tuple[int, _RowBatch]] = []  #: a heap, by each batch's first item
        self._held = 0.0  #: its bytes in memory
        self._file: IO[bytes] | None = None
        self._end = 0

    def put(self, indices: Sequence[int], rows: list[Row] | None, size: float) -> None:
        """Take consecutive ended items and their rows, with the rows' bytes; None: made at their turn."""
        batch = _RowBatch(indices, rows, 0.0 if rows is None else size)
        heapq.heappush(self._waiting, (indices[0], batch))
        self._held += batch.size
        self._go_on()
        if self._held > MOST_HELD:
            self._put_aside()

    def end(self) -> None:
        """Hand on the rows that wait for others, which will not come. If that fails, forget them."""
        try:
            while self._waiting:
                self._next, _ = self._waiting[0]
                self._go_on()
        finally:
            self._waiting.clear()
            if self._file is not None:
                self._file.close()

    def _go_on(self) -> None:
        while self._waiting and self._waiting[0][0] == self._next:
            _, batch = heapq.heappop(self._waiting)
            self._next += len(batch.indices)
            self._held -= batch.size
            rows = batch.rows
            if isinstance(rows, _InFile):
                assert self._file is not None
                rows = _load(read_at(self._file.fileno(), rows.length, rows.at))
            self._hand_on(self._rows_of(batch.indices) if rows is None else rows)
        if self._file is not None and not self._waiting:
            self._file.truncate(0)
            self._end = 0

    def _put_aside(self) -> None:
        for _, batch in self._waiting:
            if batch.size and isinstance(batch.rows, list):
                data = _dump(batch.rows)
                batch.rows, batch.size = batch.rows if data is None else self._write(data), 0.0
        self._held = 0.0

    def _write(self, data: bytes) -> _InFile:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - `close` does
        self._file.seek(self._end)
        self._file.write(data)
        self._file.flush()
        written = _InFile(self._end, len(data))
        self._end += len(data)
        return written


def _dump(rows: Sequence[Row]) -> bytes | None:
    """Pickle by reference, so that instances are of the same classes later; by value if a class has no name here.

    None if they can't be pickled, or can't be loaded again.
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
    return load_parts(pickled, buffers)
