"""Rows of a journal that are in no file, for `KeptResults` to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from mpqueue._parent.journal.chunk_rows import WrittenRow
from mpqueue._parent.journal.journal_reader import Reader
from mpqueue._parent.journal.kept_results import Outcomes
from mpqueue._parent.journal.kept_values import ReadFile

T = TypeVar("T")


class RowsInMemory(Reader):
    """Rows of one job, by their numbers."""

    def __init__(self, rows: Iterable[WrittenRow], read_file: ReadFile) -> None:
        super().__init__("run.db")
        self._rows = rows
        self._read_file = read_file

    def at_once(self, question: Callable[[], T]) -> T:
        """See `Reader`."""
        return question()

    def row(self, job: int, number: int) -> WrittenRow | None:
        """See `Reader`."""
        return next((row for row in self._rows if row.number == number), None)

    def read_file(self, name: str) -> bytes:
        """See `Reader`."""
        return self._read_file(name)


def read_all(rows: Iterable[WrittenRow], outcomes: Outcomes) -> Outcomes:
    """The outcomes, with these rows read into them."""
    for row in rows:
        outcomes.read(row)
    return outcomes
