"""The output to stdout or to a file: the rows of a run while it runs, and the findings of commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TextIO

from mpqueue._cli.flags import Add
from mpqueue._cli.usage import on_stdout, usage_errors
from mpqueue._os import standard_streams
from mpqueue._output.export import COLUMNS, json_lines
from mpqueue._output.file_sinks import FileSink, Row, as_columns, check_apart
from mpqueue._output.formats import sink_for
from mpqueue._output.progress import aside
from mpqueue._queue.job import Job
from mpqueue._text import fitting

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import RecordedJob

#: A row's columns: an export's, with the input.
ROW = (COLUMNS[0], "payload", *COLUMNS[1:])
STDOUT = "-"


#: Prints a line of JSON for programs, or a text for people, on stdout; None prints nothing. Raises OutputError.
Tell = Callable[[Mapping[str, Any] | None, str | None], None]


@contextmanager
def told_on_stdout(*, as_json: bool) -> Iterator[Tell]:
    """Return the function that prints a command's findings. With JSON, users' prints go to stderr instead of stdout."""

    def tell_people(_: object, text: str | None) -> None:
        if text is not None:
            with on_stdout() as stream:
                print(fitting(text, stream), file=stream)  # characters that its encoding lacks are escaped

    def tell_programs(line: Mapping[str, Any] | None, _: object) -> None:
        if line is not None:
            with on_stdout():
                _write_rows(file, [line])

    if not as_json:
        yield tell_people
        return
    with _stdout_alone() as file:
        yield tell_programs


def add_json(add: Add, text: str) -> None:
    """Add ``--json``, which prints a command's findings as JSON."""
    add("--json", action="store_true", help=f"print {text}, and nothing else, on stdout")


def job_line(job: Job | RecordedJob, status: str | None = None) -> dict[str, Any]:
    """A job as a line of JSON. Times are in seconds; ``started_at`` and ``finished_at`` count from 1970."""
    line: dict[str, Any] = {"job": job.id, "status": status or str(job.status)}
    line |= {name: getattr(job, name) for name in ("total", "completed", "failed", "retries")}
    times = {name: getattr(job, name) for name in ("started_at", "finished_at", "duration")}
    return line | {name: None if time is None else round(time, 6) for name, time in times.items()}


class StdoutRows:
    """A sink that prints a line per item at once."""

    default = ROW
    #: All columns, used instead of columns that no row has: rows wait until that is known of the first ones.
    or_default = True

    def __init__(self, file: TextIO, columns: Sequence[str] | None, *, in_order: bool, failures: bool) -> None:
        self._file = file
        self.columns = columns
        self.in_order = in_order
        self.failures = failures

    def write(self, rows: Sequence[Row]) -> None:
        """Write a line for each of these rows."""
        with aside() if self._file.isatty() else nullcontext(), standard_streams.pipes_break():
            _write_rows(self._file, rows)

    def close(self) -> None:
        """Do nothing: each row was flushed when it was written."""

    def __repr__(self) -> str:
        return "stdout"


@contextmanager
def open_output(
    path: str,
    columns: Sequence[str] | None = None,
    *,
    in_order: bool = True,
    failures: bool = True,
    raw_csv: bool = False,
    journal: str | None = None,
) -> Iterator[StdoutRows | FileSink]:
    """Return the sink for rows. A file is checked here, so that nothing runs for one that can't be written.

    A file that would replace the ``journal`` is refused.

    If rows go to stdout, that is for rows only: prints of handlers go to stderr. Raises UsageError, and OutputError if
    stdout is closed.
    """
    if path == STDOUT:
        with _stdout_alone() as file:
            yield StdoutRows(file, columns, in_order=in_order, failures=failures)
        return
    with usage_errors("--output: ", (ValueError, ImportError, OSError)):
        sink = sink_for(
            path,
            columns,
            in_order=in_order,
            failures=failures,
            escape_formulas=not raw_csv,
            default=ROW,
            or_default=True,
        )
        sink.check()
        if journal is not None:
            check_apart(sink, os.path.realpath(journal))
    yield sink


def _write_rows(file: TextIO, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a line of JSON for each of these rows, which have the same keys."""
    file.writelines(f"{line}\n" for line in json_lines(as_columns(rows)))
    file.flush()


@contextmanager
def _stdout_alone() -> Iterator[TextIO]:
    """Yield stdout for rows only: in UTF-8, as in files, with any encoding of the terminal."""
    standard_streams.follow_numbers()
    with on_stdout():
        rows = os.dup(1)
    os.dup2(2, 1)
    file = open(rows, "w", encoding="utf-8", newline="\n", closefd=False)  # noqa: SIM115 - closed below
    try:
        with standard_streams.pipes_break():
            yield file
    finally:
        with suppress(OSError):  # each write flushes: the rest could not be written, and its write has raised
            file.close()
        sys.stdout.flush()
        os.dup2(rows, 1)
        os.close(rows)
