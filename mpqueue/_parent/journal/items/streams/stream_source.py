"""The results of a recorded stream, read one by one from the rows when one is accessed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from mpqueue._core.state.item_table import Elsewhere
from mpqueue._parent.journal.items.streams.told import Named, read_result, read_row
from mpqueue._parent.journal.kept_values import ReadFile
from mpqueue.errors import JournalError

ROW = "SELECT identity, nth, body FROM stream_items WHERE number = ? AND job = ?"

T = TypeVar("T")


class Executes(Protocol):
    """One look at the tables."""

    execute: Callable[..., Any]


class StreamSource:
    """The results of one stream, see `ResultSource`. Any thread.

    Raises `JournalError` for one that is not there any more, since its item has run again, and for one that is damaged.
    """

    def __init__(
        self, path: str, ask: Callable[[Callable[[Executes], Any]], Any], read_file: ReadFile, job: int
    ) -> None:
        self._path = path
        self._ask = ask
        self._read_file = read_file
        self._job = job

    def read(self, row: int, slot: int) -> Any:  # noqa: ARG002 - each item has a row of its own
        """The result in that row."""
        return self._ask(lambda look: self._read(look, row))

    def fill(self, results: list[Any], slots: Sequence[int] | None) -> None:  # noqa: ARG002 - see above
        """Replace what stands for results by these."""

        def read_all(look: Executes) -> None:
            for index, result in enumerate(results):
                if type(result) is Elsewhere:
                    results[index] = self._read(look, result.row)

        self._ask(read_all)

    def each(
        self,
        results: Sequence[Any],
        slots: Sequence[int],  # noqa: ARG002 - see above
        make: Callable[[int, Any], T],
        leave_out: Callable[[int, Exception], T],  # noqa: ARG002 - none runs here
    ) -> list[T]:
        """See `ResultSource`."""

        def make_one(look: Executes, place: int) -> T:
            result = results[place]
            return make(place, self._read(look, result.row) if type(result) is Elsewhere else result)

        made: list[T] = self._ask(lambda look: [make_one(look, place) for place in range(len(results))])
        return made

    def _read(self, look: Executes, row: int) -> Any:
        found = look.execute(ROW, (row, self._job)).fetchone()
        if found is None:
            raise JournalError(f"{self._path}: expected the result of an item of a stream, got none: it has run again")
        identity, nth, body = found
        return read_result(read_row(body, Named(identity, nth), self._job, self._path), self._read_file, self._path)
