"""Where the rows of a run go: JSON Lines, on stdout or in a file, while it runs; any other format at its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TextIO

from mpqueue._cli.usage import UsageError, say_error
from mpqueue._output.bars import aside
from mpqueue._output.export import COLUMNS, as_json_line, check_format, export, record_of
from mpqueue._queue.job import Job, JobItem
from mpqueue._whole_file import check_not_planted, open_to_write

#: Beside what an export has, a row tells the input.
ROW = (COLUMNS[0], "payload", *COLUMNS[1:])
STDOUT = "-"


class Output(Protocol):
    """Takes items as they come."""

    def put(self, items: Sequence[JobItem]) -> None:
        """These are the next ones."""


class JsonLines:
    """A line for each item, at once."""

    def __init__(self, file: TextIO, columns: Sequence[str]) -> None:
        self._file = file
        self._columns = columns

    def put(self, items: Sequence[JobItem]) -> None:
        """These are the next ones."""
        with aside() if self._file.isatty() else nullcontext():
            self._file.writelines(as_json_line(record_of(item, self._columns)) for item in items)
            self._file.flush()


class AtTheEnd:
    """Keeps the items until all are there."""

    def __init__(self) -> None:
        self.items: list[JobItem] = []

    def put(self, items: Sequence[JobItem]) -> None:
        """These are the next ones."""
        self.items += items


@contextmanager
def open_output(
    path: str | None, columns: Sequence[str] | None, *, captured: bool, raw_csv: bool = False
) -> Iterator[Output]:
    """The output; what is to be written at its end is written when the block is left, interrupted or not.

    Where rows go to stdout, that is theirs alone meanwhile: what handlers print goes to stderr.
    """
    chosen = list(columns) if columns else [*ROW, *(("stdout", "stderr") if captured else ())]
    if path is None or path == STDOUT:
        with _stdout_alone() as file:
            yield JsonLines(file, chosen)
    elif path.endswith((".jsonl", ".ndjson")):
        with open(open_to_write(path), "w", encoding="utf-8") as file:
            yield JsonLines(file, chosen)
    else:
        kept = AtTheEnd()
        try:
            yield kept
        except BaseException:
            if kept.items:
                _write(kept.items, path, columns, raw_csv=raw_csv)
            raise
        _write(kept.items, path, columns, raw_csv=raw_csv)


def _write(items: Sequence[JobItem], path: str, columns: Sequence[str] | None, *, raw_csv: bool) -> None:
    """Write what the work has come to. A column that is not there shall not cost the others."""
    try:
        export(items, path, columns, default=ROW, escape_formulas=not raw_csv)
    except ValueError as error:
        say_error(f"--{error}; {path} has all columns instead")
        export(items, path, default=ROW, escape_formulas=not raw_csv)


def check_output(path: str | None) -> None:
    """Raise UsageError where `open_output` would fail after the work."""
    if path is None or path == STDOUT:
        return
    try:
        check_format(path)
    except (ValueError, ImportError) as error:
        raise UsageError(f"--output: {error}") from None
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise UsageError(f"--output: expected a file in a folder that is there, got {path!r}")
    try:
        check_not_planted(path)
    except OSError as error:
        raise UsageError(f"--output: {error}") from None


def open_rows(descriptor: int = 1) -> TextIO:
    """Rows on a descriptor: UTF-8, as in files, whatever the encoding of the terminal is."""
    return open(descriptor, "w", encoding="utf-8", closefd=False)


@contextmanager
def _stdout_alone() -> Iterator[TextIO]:
    sys.stdout.flush()
    rows = os.dup(1)
    os.dup2(2, 1)
    try:
        with open_rows(rows) as file:
            yield file
    finally:
        sys.stdout.flush()
        os.dup2(rows, 1)
        os.close(rows)


class InOrder:
    """Hands items on in the order of the input, each as soon as all before it have ended."""

    def __init__(self, job: Job, output: Output) -> None:
        self._job = job
        self._output = output
        self._waiting: set[Any] = set()
        self._next = 0

    def put(self, items: Sequence[JobItem]) -> None:
        """These ended."""
        self._waiting.update(item.id for item in items)
        all_items, ready = self._job.items, []
        while self._next < len(all_items) and all_items[self._next].id in self._waiting:
            ready.append(all_items[self._next])
            self._waiting.discard(all_items[self._next].id)
            self._next += 1
        if ready:
            self._output.put(ready)

    def end(self) -> None:
        """Nothing more will end: what waits for others goes on."""
        rest = [item for item in self._job.items[self._next :] if item.id in self._waiting]
        if rest:
            self._output.put(rest)
