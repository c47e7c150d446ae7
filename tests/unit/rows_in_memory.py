"""Rows of a journal that are in no file, for `KeptResults` to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mpqueue._parent.journal.chunk_rows import WrittenRow
from mpqueue._parent.journal.kept_values import ReadFile


class RowsInMemory:
    """Rows of one job, which are told apart by their numbers."""

    path = "run.db"

    def __init__(self, rows: Iterable[WrittenRow], read_file: ReadFile) -> None:
        self._rows = rows
        self.read_file = read_file

    def ask(self, question: Callable[[Any], list[Any]]) -> list[Any]:
        """See `Asked`."""
        return question(self)

    def row(self, job: int, number: int) -> WrittenRow | None:
        """See `Rows`."""
        return next((row for row in self._rows if row.number == number), None)

    def rows(self, job: int) -> Iterator[WrittenRow]:
        """See `Rows`."""
        return iter(self._rows)
