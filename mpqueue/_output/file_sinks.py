"""Files of rows, written while a job runs or afterwards: JSON Lines, JSON, CSV and TSV; `parquet_sink` has the last.

`mpqueue.sinks` makes them for users, `mpqueue._output.formats` by the name of a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any

from mpqueue._output.export import COLUMNS, SPREAD, csv_text, json_lines, spread
from mpqueue._output.part_file import PartFile, part_of
from mpqueue._text import counted
from mpqueue.errors import JobStateError, shown

Row = dict[str, Any]

#: Rows of a table that wait until a result shows its keys; if more come, they are written without that.
MOST_WAITING = 1000


class FileSink:
    """A file that gets rows. ``path`` is its final path, ``rows`` the number of rows written."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: Sequence[str] | None = None,
        *,
        in_order: bool = False,
        failures: bool = True,
        escape_formulas: bool = True,
        default: Sequence[str] = COLUMNS,
        or_default: bool = False,
    ) -> None:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"path: expected the path of a file, got {shown(path)} of type {type(path).__name__}")
        switches = (("in_order", in_order), ("failures", failures), ("escape_formulas", escape_formulas))
        for name, value in switches:
            if not isinstance(value, bool):
                raise TypeError(f"{name}: expected True or False, got {shown(value)} of type {type(value).__name__}")
        self.path = Path(os.fsdecode(path))
        self.columns = columns
        self.in_order = in_order
        self.failures = failures
        self.escape_formulas = escape_formulas  #: in tables of text
        self.rows = 0
        self.default = default  #: the columns by default
        self.or_default = or_default  #: these replace ``columns`` that no row has
        target = self.path.absolute()  # as of now: the program may change its folder before the job starts
        self.folder = target.parent
        self._part = PartFile(target)
        self.was_opened = False
        self.is_in_journal = False  #: the part of an earlier run is not needed, since all its rows come again
        self._has_ended = False
        self.left: Path | None = None  #: the path of the remaining part, if not all rows are in it

    def check(self) -> None:
        """Raise the errors of `open`. Makes nothing."""
        if self.was_opened:
            raise JobStateError(
                f"results: expected a sink of the job's own, got {self!r}, which another job has already used"
            )
        self._part.check()

    def open(self) -> None:
        """Make the file. Raises OSError."""
        self.check()
        self._part.open(keep=not self.is_in_journal)
        self.was_opened = True

    def write(self, rows: Sequence[Row]) -> None:
        """Write these rows; if that fails, none of them is in the file."""
        if rows:
            self.put(as_columns(rows), len(rows))

    def put(self, columns: Mapping[str, list[Any]], count: int) -> None:
        """Write that many rows, given as columns, like `write`."""
        raise NotImplementedError

    def _write_held(self) -> None:
        """Write the rows that are in memory, in a format that holds some."""

    def _end(self) -> None:
        """Write the end of the format behind the rows."""

    def _end_once(self) -> None:
        if not self._has_ended:
            self._end()
            self._has_ended = True

    def complete(self) -> None:
        """Complete the file, which gets its name."""
        self._write_held()
        self._end_once()
        self._part.finish()

    def close(self) -> None:
        """Complete the file; if that fails, the written rows stay a part."""
        try:
            self.complete()
        except BaseException:
            with suppress(Exception):  # the first error has more information
                self.leave()
            raise

    def leave(self) -> Path | None:
        """Write the rows that are held, if possible, and leave the file a part; returns its path."""
        with suppress(Exception):  # this may be why the file is left: it is then completed as it is
            self._write_held()
        try:
            if self.rows:
                self._end_once()
        finally:
            part = self._part.leave()
            if part is not None and self.path.absolute().parent == part.parent:
                part = self.path.parent / part.name  # as the path was given, which leads to the same place still
            self.left = part
        return part

    def drop(self) -> None:
        """Remove what was written."""
        self._part.drop()

    def __repr__(self) -> str:
        return f"<{self.path}: {counted(self.rows, 'row')}>"


def check_apart(sink: FileSink, journal: str) -> None:
    """Raise ValueError if the rows would replace a file of that journal, which is a path without links."""
    from mpqueue._parent.journal.checks import BESIDE  # only journals need it

    target, taken = sink.folder / sink.path.name, {f"{journal}{suffix}" for suffix in BESIDE}
    if any(os.path.realpath(path) in taken for path in (target, part_of(target))):
        raise ValueError(f"expected a file that is not the journal's, got {str(sink.path)!r}, which rows would replace")


class JsonLinesSink(FileSink):
    """A file with one JSON value per line."""

    def put(self, columns: Mapping[str, list[Any]], count: int) -> None:
        """Write a line of JSON for each row."""
        self._part.append("".join([f"{line}\n" for line in json_lines(columns)]).encode())
        self.rows += count


class JsonSink(FileSink):
    """A file with one JSON list."""

    def put(self, columns: Mapping[str, list[Any]], count: int) -> None:
        """Write each row as an element of the list."""
        self._part.append((("[\n" if not self.rows else ",\n") + ",\n".join(json_lines(columns))).encode())
        self.rows += count

    def _end(self) -> None:
        self._part.append(b"\n]\n" if self.rows else b"[]\n")


class SpreadingSink(FileSink):
    """A table that by default has a column for each key of results, so its first rows wait until one has a result."""

    def __init__(self, path: str | os.PathLike[str], columns: Sequence[str] | None = None, **options: Any) -> None:
        super().__init__(path, columns, **options)
        self._names: list[str] = []  #: the columns so far
        self._waiting: list[Mapping[str, list[Any]]] = []
        self._waiting_count = 0

    def put(self, columns: Mapping[str, list[Any]], count: int) -> None:
        """Write the rows, or hold them until a result shows its keys."""
        self._waiting.append(columns)
        self._waiting_count += count
        is_decided = self.columns is not None or self._names or self._waiting_count >= MOST_WAITING
        if is_decided or any(value is not None for value in columns.get("result", [...])):
            self._write_waiting()

    def _write_waiting(self) -> None:
        parts, count = self._waiting, self._waiting_count
        self._waiting, self._waiting_count = [], 0
        if not parts:
            return
        columns = {name: [*chain.from_iterable(part[name] for part in parts)] for name in parts[0]}
        if self.columns is None:
            columns = self._spread(columns)
        self._append(columns, count)
        self._names += [name for name in columns if name not in self._names]

    def _spread(self, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Mappings over a column for each key; without columns that only stand in for unknown keys."""
        made = spread(columns)
        for name in SPREAD if self._names else ():
            if name in made and name not in self._names and all(value is None for value in made[name]):
                del made[name]
        return made

    def _append(self, columns: Mapping[str, list[Any]], count: int) -> None:
        """Write that many rows; `_names` are the columns of those before."""
        raise NotImplementedError

    def _write_held(self) -> None:
        self._write_waiting()


class TableSink(SpreadingSink):
    """A table of text. Columns of late keys are added at the end.

    Rows from before a late column are made as long as the others when the file ends.
    """

    delimiter = ","

    def __init__(self, path: str | os.PathLike[str], columns: Sequence[str] | None = None, **options: Any) -> None:
        super().__init__(path, columns, **options)
        self._in_header = 0  #: how many columns were known when the header was written

    def _append(self, columns: Mapping[str, list[Any]], count: int) -> None:
        """Write the rows, below the header."""
        names = [*self._names, *(name for name in columns if name not in self._names)]
        cells = [columns.get(name) or [None] * count for name in names]
        self._part.append((b"" if self._names else self._header(names)) + self._text(cells))
        self.rows += count
        self._in_header = self._in_header or len(names)

    def _text(self, columns: Iterable[list[Any]]) -> bytes:
        return b"".join(csv_text(columns, self.delimiter, escape_formulas=self.escape_formulas))

    def _header(self, names: Iterable[str]) -> bytes:
        return self._text([name] for name in names)

    def _end(self) -> None:
        if not self._names:
            self._part.append(self._header(self.columns or self.default))
        if len(self._names) > self._in_header:
            self._part.rewrite(self._widened)

    def _widened(self, file: IO[bytes]) -> Iterator[bytes]:
        """The header with all columns, and all rows extended to them."""
        delimiter, most = self.delimiter.encode(), len(self._names) - 1
        records = _records(file)
        next(records)
        yield self._header(self._names)
        for record in records:
            there = sum(part.count(delimiter) for part in record.split(b'"')[::2])  # outside of quotes
            yield record[:-1] + delimiter * (most - there) + b"\n"


class TabsSink(TableSink):
    """A table of text whose columns are separated by tabs."""

    delimiter = "\t"


def as_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The columns of these rows, by name."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def _records(file: IO[bytes]) -> Iterator[bytes]:
    """The rows of a file of our own: a line end in quotes belongs to a cell."""
    parts: list[bytes] = []
    is_open = 0
    for line in file:
        parts.append(line)
        is_open ^= line.count(b'"') & 1
        if not is_open:
            yield b"".join(parts)
            parts.clear()
