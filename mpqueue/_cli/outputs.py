"""Where the rows of a run go while it runs: a file, by its suffix, or JSON Lines on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, TextIO

from mpqueue._cli.usage import UsageError, on_stdout
from mpqueue._os import standard_streams
from mpqueue._output.bars import aside
from mpqueue._output.export import COLUMNS, as_json_line, check_format
from mpqueue._output.file_sinks import FileSink, JsonLinesSink, JsonSink, Row, TableSink, check_apart

#: Beside what an export has, a row tells the input.
ROW = (COLUMNS[0], "payload", *COLUMNS[1:])
STDOUT = "-"


class StdoutRows:
    """A sink: a line for each item, at once."""

    default = ROW
    #: All columns instead of those of which no row has one: rows wait until that is known of the first ones.
    or_default = True

    def __init__(self, file: TextIO, columns: Sequence[str] | None, *, in_order: bool, failures: bool) -> None:
        self._file = file
        self.columns = columns
        self.in_order = in_order
        self.failures = failures

    def write(self, rows: Sequence[Row]) -> None:
        """Write these."""
        with aside() if self._file.isatty() else nullcontext(), standard_streams.pipes_break():
            self._file.writelines(map(as_json_line, rows))
            self._file.flush()

    def close(self) -> None:
        """All is written."""

    def __repr__(self) -> str:
        return "stdout"


@contextmanager
def open_output(
    path: str | None,
    columns: Sequence[str] | None = None,
    *,
    in_order: bool = True,
    failures: bool = True,
    raw_csv: bool = False,
    journal: str | None = None,
) -> Iterator[StdoutRows | FileSink]:
    """The sink for rows. A file is checked here, so that nothing is done for one that can't be written.

    One that would replace the ``journal`` is refused.

    Where rows go to stdout, that is theirs alone meanwhile: what handlers print goes to stderr. Raises UsageError, and
    OutputError where stdout is closed.
    """
    if path is None or path == STDOUT:
        with _stdout_alone() as file:
            yield StdoutRows(file, columns, in_order=in_order, failures=failures)
        return
    try:
        check_format(path)
        suffix = path.rpartition(".")[2].lower()
        make = _parquet if suffix == "parquet" else _SINKS[suffix]
        if suffix in ("csv", "tsv"):
            make = partial(make, escape_formulas=not raw_csv)
        sink = make(path, columns, in_order=in_order, failures=failures, default=ROW, or_default=True)
        sink.check()
        if journal is not None:
            check_apart(sink, os.path.realpath(journal))
    except (ValueError, ImportError, OSError) as error:
        raise UsageError(f"--output: {error}") from None
    yield sink


def _parquet(*arguments: Any, **options: Any) -> FileSink:
    from mpqueue._output.parquet_sink import ParquetSink  # which needs pyarrow

    return ParquetSink(*arguments, **options)


_SINKS: dict[str, Callable[..., FileSink]] = {
    "jsonl": JsonLinesSink,
    "ndjson": JsonLinesSink,
    "json": JsonSink,
    "csv": TableSink,
    "tsv": partial(TableSink, delimiter="\t"),
}


@contextmanager
def rows_on_stdout() -> Iterator[TextIO]:
    """Rows go to stdout. Raises OutputError where it does not take them."""
    with on_stdout(), _open_rows(1) as file:
        yield file


def _open_rows(descriptor: int) -> TextIO:
    """Rows on a descriptor: UTF-8, as in files, whatever the encoding of the terminal is."""
    return open(descriptor, "w", encoding="utf-8", newline="\n", closefd=False)


@contextmanager
def _stdout_alone() -> Iterator[TextIO]:
    standard_streams.follow_numbers()
    with on_stdout():
        rows = os.dup(1)
    os.dup2(2, 1)
    file = _open_rows(rows)
    try:
        with standard_streams.pipes_break():
            yield file
    finally:
        with suppress(OSError):  # each write flushes: what is left is what could not be written, as it has raised
            file.close()
        sys.stdout.flush()
        os.dup2(rows, 1)
        os.close(rows)
