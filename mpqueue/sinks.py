"""Sinks: files into which the results of a job go while it runs, instead of being kept in memory.

    queue.run(items, handler, results=mpqueue.sinks.jsonl("rows.jsonl"))

Rows are those of `Job.export`. While the job runs they are in a file of the same name and ``.part``; it gets its own
name once the job has ended and all rows are in it. Each sink is for one job.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mpqueue._output.export import as_json_line
from mpqueue._output.part_file import PartFile
from mpqueue._output.row_outlet import Row, Sink
from mpqueue.errors import JobStateError, shown

__all__ = ["FileSink", "Sink", "jsonl"]


class FileSink:
    """A file that gets rows. ``path`` is where they are in the end, ``rows`` how many there are."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: Sequence[str] | None,
        *,
        in_order: bool,
        failures: bool,
        at_once: bool = False,
    ) -> None:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"path: expected the path of a file, got {shown(path)} of type {type(path).__name__}")
        self.path = Path(path)
        self.columns = columns
        self.in_order = in_order
        self.failures = failures
        self.rows = 0
        self._part = PartFile(self.path, at_once=at_once)
        self._was_opened = False

    def check(self) -> None:
        """Raise what `open` would raise. Makes nothing."""
        if self._was_opened:
            raise JobStateError(f"results: expected a sink of the job's own, got {self!r}, which another job has had")
        self._part.check()

    def open(self) -> None:
        """Make the file. Raises OSError."""
        self.check()
        self._part.open()
        self._was_opened = True

    def write(self, rows: Sequence[Row]) -> None:
        """Write these; where that fails, none of them is in the file."""
        raise NotImplementedError

    def close(self) -> None:
        """The file is whole."""
        self._part.finish()

    def leave(self) -> Path | None:
        """The file stays a part; returns where that is."""
        return self._part.leave()

    def __repr__(self) -> str:
        return f"<{self.path}: {'1 row' if self.rows == 1 else f'{self.rows} rows'}>"


class JsonLinesSink(FileSink):
    """See `jsonl`."""

    def write(self, rows: Sequence[Row]) -> None:
        """See `FileSink`."""
        self._part.append("".join(map(as_json_line, rows)).encode())
        self.rows += len(rows)


def jsonl(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    in_order: bool = False,
    failures: bool = True,
) -> FileSink:
    """A JSON value a line, one for each item as it ends.

    ``columns`` are as in `Job.export`: id, status, attempts, elapsed, error and result where none are named. With
    ``in_order`` rows are in the order of the items; without ``failures`` failed items have none. Costs 10 us a row.
    """
    return JsonLinesSink(path, columns, in_order=in_order, failures=failures, at_once=True)
