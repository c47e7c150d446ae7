"""A chunk's row: the states of some items of a job as one blob, and reading that blob into a table.

Rows are read in the order in which they were written; a later row's data about an item replace an earlier one's, except
for the failed tries, which add up. Items are named by their slots.
"""

from __future__ import annotations

import pickle
import sys
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._core.state.item_table import DISCARD, DISCARDED, Elsewhere, FailedTry, Failure, ItemTable
from mpqueue._parent.inbox import text_of
from mpqueue._parent.journal.kept_values import (
    BIG,
    NO_RESULT,
    BigFile,
    Kept,
    KeptError,
    NotKept,
    Place,
    ReadFile,
    Statement,
    Unreadable,
    Unsealed,
    big_file,
    digest_of,
    keep,
    keep_error,
    named_error,
    prepare,
    restore,
    restore_error,
    unseal,
)
from mpqueue._parent.packing import dump_parts_without_user_code
from mpqueue._wire.pickling.main_names import MARK
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, FAILED, PENDING, RETRY

if TYPE_CHECKING:
    from mpqueue._parent.journal.lots import NewItems

#: The columns of numbers that are kept, by their names in the table, with the types of their numbers.
NUMBERS = {"attempts": "I", "elapsed": "f", "cpu": "f", "peak": "I"}
#: Bytes from which on a row is a file: SQLite has no rows of a gigabyte.
MOST_ROW = 64 << 20
#: The least results in one pickle, if those of a row are too big for one.
LEAST_TOGETHER = 64

ADD_CHUNK = "INSERT INTO chunks (number, job, body, slots) VALUES (?, ?, ?, ?)"

#: Stands for the index of an item that is not in the table.
GONE = -1


class Row(NamedTuple):
    """A row, to be sealed once its number is known (None: no row), and its files. ``left_out`` can't be pickled.

    ``done`` are the indices of the items whose results it has. Its list of slots has its own checksum: so a damaged row
    affects its items only.
    """

    body: Unsealed | None
    files: tuple[BigFile, ...]
    left_out: tuple[tuple[int, str], ...] = ()
    slots: Unsealed | None = None
    done: Sequence[int] = ()
    items: NewItems | None = None  #: items that are written with it, in the same transaction


class WrittenRow(NamedTuple):
    """A row of a job in the file: its content, and its slots."""

    job: int
    number: int
    body: Any
    slots: Any

    def content(self, path: str) -> dict[str, Any]:
        """Return the content of the row itself. Raises `JournalError` if it is damaged."""
        content: dict[str, Any] = unseal(self.body, Place("chunks", self.job, self.number), path)
        return content

    def spoken(self, path: str) -> Sequence[int]:
        """Return the row's slots, in its order. Raises `JournalError` if they are damaged."""
        at = unseal(self.slots, Place("chunks.slots", self.job, self.number), path)
        return range(*at) if isinstance(at, tuple) else numbers_of("Q", at)


NO_ROW = Row(None, ())


class Pickling:
    """Values that are pickled: in as few pickles as possible if that runs no users' code, else each by itself.

    Another thread may look meanwhile: ``each`` has a value, or why it can't be pickled, once its ``files`` are noted.
    """

    def __init__(self, values: list[Any]) -> None:
        self.together: list[ResultPart] | None = None  #: all of them
        self.each: list[Kept | str] = []
        self.files: tuple[BigFile, ...] = ()
        self._values = values

    def keep_plain(self) -> bool:
        """Pickle all of them if that runs no users' code; False if it does, or they are too big for a few pickles."""
        self.together = self.together or _together(self._values)
        return self.together is not None

    def keep(self) -> None:
        """Pickle all that can be, even if that runs users' code."""
        for value in () if self.keep_plain() else self._values:
            files: list[BigFile] = []
            try:
                kept: Kept | str = keep(value, files)
                self.files += tuple(files)
            except Exception as error:
                kept = text_of(error)
            self.each.append(kept)


class RowDraft:
    """The state of some items when this is made, to be written once their results and errors are pickled.

    With it, the items that are ``coming`` to the job are written; those among them that were added are pickled first.

    Pickling runs the code of users' classes, which may be slow, and may never end: `row` does it, on the job's own
    thread, and `cut_short`, on another thread, returns the part pickled by then. `plain_row` is for results that run no
    code.

    ``tries_kept`` has how many failed tries of each item earlier rows have; it is updated here.
    """

    def __init__(
        self,
        table: ItemTable,
        indices: Sequence[int] = (),
        tries_kept: dict[int, int] | None = None,
        coming: NewItems | None = None,
    ) -> None:
        self._indices = indices
        self._coming = coming
        whole = isinstance(indices, range) and len(indices) > 0
        # A chunk is a stretch of the table: slices cost nothing per item.
        lo, hi = (indices[0], indices[-1] + 1) if whole else (0, 0)
        status = table.status[lo:hi] if whole else bytearray(table.status[index] for index in indices)
        self._status = status = status.replace(bytes((RETRY,)), bytes((PENDING,)))
        if status.count(COMPLETED) == len(status):
            done = table.results[lo:hi] if whole else [table.results[index] for index in indices]
        else:
            done = [table.results[index] for at, index in enumerate(indices) if status[at] == COMPLETED]
        self._slots = written_slots(table.slots_of(indices) or indices)
        self._content: dict[str, Any] = {"code": written_numbers(array("I", (table.code,)))}
        for name, code in NUMBERS.items():
            column = getattr(table, name)
            part = column[lo:hi] if whole else array(code, (column[index] for index in indices))
            self._content[name] = written_numbers(part)
        if table.output:
            output = {at: table.output[index] for at, index in enumerate(indices) if index in table.output}
            self._content["output"] = output
        self._has_failures = bool(table.history or table.failures)
        self._tries: dict[int, list[FailedTry]] = {}
        self._failures: dict[int, Failure] = {}
        if self._has_failures:
            self._note_failures(table, {} if tries_kept is None else tries_kept)
        self._results = Pickling(done)
        if table.sink is DISCARD:
            self._results.together = [ResultPart(tuple(Kept(NO_RESULT)), len(done))]
        self._picklings = [*(() if coming is None else (lot.pickling for lot in coming.added)), self._results]
        self._errors: dict[int, KeptError] = {}  #: by identity: those pickled by now
        self._files: tuple[BigFile, ...] = ()  #: of these; each is noted before it is named
        self._over = threading.Lock()  #: taken, for good, by the thread that makes the row

    def _note_failures(self, table: ItemTable, tries_kept: dict[int, int]) -> None:
        for at, index in enumerate(self._indices):
            tries = table.history.get(index, ())
            new = tries[tries_kept.get(index, 0) :]
            if new:
                self._tries[at] = list(new)
                tries_kept[index] = len(tries)
            failure = table.failures.get(index)
            if failure is not None and table.status[index] != COMPLETED:
                self._failures[at] = failure

    @property
    def step(self) -> int:
        """A number that grows with each object that is pickled."""
        return len(self._errors) + sum([len(pickling.each) for pickling in self._picklings])

    def plain_row(self) -> Row | None:
        """The row, if nothing failed and the results and new items are small and plain; else None."""
        if self._tries or self._failures or not all(pickling.keep_plain() for pickling in self._picklings):
            return None
        return self._row("")

    def row(self) -> Row | None:
        """Return the row; None if it was cut short meanwhile. An item with an unpicklable result is written as not run.

        The cost is the pickling of the results and the new items.
        """
        if self._over.locked():
            return None
        for pickling in self._picklings:
            pickling.keep()
        for failure in self._failures.values():
            self._keep_error(failure.error)
        for tries in self._tries.values():
            for tried in tries:
                self._keep_error(tried.exception)
        return self._row("") if self._over.acquire(blocking=False) else None

    def cut_short(self, why: str) -> Row | None:
        """Return a row of the part pickled by now, the other items as not run. None if `row` has just ended."""
        return self._row(why) if self._over.acquire(blocking=False) else None

    def _keep_error(self, error: BaseException) -> None:
        if id(error) not in self._errors:
            files: list[BigFile] = []
            kept = keep_error(error, files)
            self._files += tuple(files)
            self._errors[id(error)] = kept

    def _row(self, why: str) -> Row:
        """Return the row of what is pickled by now; ``why``: the reason for which some results are missing."""
        together, each = self._results.together, [*self._results.each]  # pickling may go on meanwhile
        missing: dict[int, str] = {}
        if together is None:
            places = [at for at, code in enumerate(self._status) if code == COMPLETED]
            missing = {at: one or why for at, one in zip_longest(places, each) if not isinstance(one, Kept)}
        status, done = bytearray(self._status), self._indices
        for place in missing:
            status[place] = PENDING
        if status.count(COMPLETED) < len(status):
            done = [index for index, code in zip(self._indices, status, strict=True) if code == COMPLETED]
        items = None if self._coming is None else self._coming.pickled(len(done))
        if not self._indices:
            return NO_ROW._replace(items=items)
        if together is None:
            together = [ResultPart(tuple(one)) for one in each if isinstance(one, Kept)]
        content = self._content | {"status": bytes(status), "parts": [tuple(part) for part in together]}
        if self._has_failures:
            content |= self._failed()
        body, files = prepare(content), self._results.files + self._files
        if len(body.data) >= MOST_ROW:
            file = big_file((body.data,))
            body, files = prepare({"row": (file.name, file.digest)}), (*files, file)
        left_out = tuple((self._indices[place], reason) for place, reason in missing.items())
        return Row(body, files, left_out, prepare(self._slots), done, items)

    def _failed(self) -> dict[str, Any]:
        errors: list[KeptError] = []
        numbers: dict[int, int] = {}

        def number_of(error: BaseException, text: str) -> int:
            if id(error) not in numbers:
                numbers[id(error)] = len(errors)
                errors.append(self._errors.get(id(error)) or named_error(error, text))
            return numbers[id(error)]

        history = {
            at: [(each.message, each.duration, each.pid, number_of(each.exception, each.message)) for each in tries]
            for at, tries in self._tries.items()
        }
        failures = {
            at: (number_of(each.error, each.text or ""), each.traceback, each.elapsed, each.charged, each.text)
            for at, each in self._failures.items()
        }
        return {"errors": errors, "history": history, "failures": failures}


def _together(results: list[Any]) -> list[ResultPart] | None:
    """Return the results in as few pickles as possible; None if each needs a pickle of its own.

    So a class that can't be imported affects no others.
    """
    whole = _part(results)
    if whole is None or len(whole.kept[0]) < BIG:
        return None if whole is None else [whole]
    size = len(results) * (BIG // 2) // len(whole.kept[0])  # half of the allowed bytes each
    if size < LEAST_TOGETHER:
        return None
    parts = [_part(results[lo : lo + size]) for lo in range(0, len(results), size)]
    small = [part for part in parts if part is not None and len(part.kept[0]) < BIG]
    return small if len(small) == len(parts) else None


def _part(results: list[Any]) -> ResultPart | None:
    parts = dump_parts_without_user_code(results)
    if parts is None or parts[1] or MARK in parts[0]:
        return None
    return ResultPart(tuple(Kept(parts[0])), len(results))


def make_row(table: ItemTable, indices: Sequence[int], tries_kept: dict[int, int]) -> Row:
    """Return the row of these items in their current state, see `RowDraft`, on a thread that may run any code."""
    row = RowDraft(table, indices, tries_kept).row()
    assert row is not None
    return row


def written_slots(slots: Sequence[int]) -> tuple[int, int] | bytes:
    """Return slots in their written form: if they follow each other, the first and the one after the last."""
    if isinstance(slots, range) and slots:
        return slots[0], slots[-1] + 1
    numbers = array("Q", slots)
    if numbers and numbers == array("Q", range(numbers[0], numbers[0] + len(numbers))):
        return numbers[0], numbers[0] + len(numbers)
    return numbers.tobytes()


def written_numbers(column: array[Any] | memoryview) -> bytes:
    """Return a column of numbers in its written form: one number if all are the same, as is common."""
    data, first = column.tobytes(), column[:1].tobytes()
    return first if data == first * len(column) else data


def fresh_row(slots: Sequence[int]) -> Row:
    """Return a row after which these items run as if for the first time: earlier rows about them do not count."""
    zeros = {name: bytes(4) for name in NUMBERS}
    return row_of({"fresh": True, "status": bytes((PENDING,)) * len(slots), "parts": [], **zeros}, slots)


def row_of(content: dict[str, Any], slots: Sequence[int]) -> Row:
    """Return a row with this content for these slots."""
    return Row(prepare(content), (), (), prepare(written_slots(slots)))


def chunk_statement(number: int, job: int, row: Row) -> Statement:
    """Return the statement that writes a row under that number."""
    assert row.body is not None
    assert row.slots is not None
    body, slots = row.body.seal(Place("chunks", job, number)), row.slots.seal(Place("chunks.slots", job, number))
    return ADD_CHUNK, (number, job, body, slots)


#: Gets results that were checked: the number of their row, their slots, the results, and their bytes.
KeepChecked = Callable[[int, Sequence[int], Sequence[Any], int], object]


class TableFiller:
    """Writes what the rows of a job say into its table, one row after the other.

    Items that are gone from the table are left out. If results are ``checked``, each is read, to find those that can't
    be: ``unreadable`` are the indices of their items. ``keep`` gets the others; None: they are dropped. ``count`` is
    the number of the job's slots.
    """

    def __init__(
        self, table: ItemTable, count: int, read_file: ReadFile, *, checked: bool, keep: KeepChecked | None = None
    ) -> None:
        self.unreadable: set[int] = set()
        self._table = table
        self._read_file = read_file
        self._checked = checked
        self._brought: set[int] = set()  #: items whose payload came with a row, as earlier versions wrote it
        self._keep = keep
        slots = range(len(table)) if table.slots is None else table.slots
        self._where: Sequence[int] = slots  #: the indices of items, by slots; a range: they are the slots
        if table.slots is not None or len(table) < count:
            self._where = where = array("i", (GONE,)) * max(count, max(slots, default=-1) + 1)
            for index, slot in enumerate(slots):
                where[slot] = index

    def lose(self, slots: Iterable[int]) -> None:
        """Forget the items in these slots, except for data in later rows: a row about them is damaged."""
        self._forget(self.present(slots))

    def present(self, slots: Iterable[int]) -> list[int]:
        """Return the indices of the items in these slots that are in the table."""
        return [index for slot in slots if (index := self._where[slot]) != GONE]

    def write(self, number: int, content: dict[str, Any], slots: Sequence[int]) -> None:
        """Write the data of the row of that number about these slots into the table."""
        indices, table = self._indices(slots), self._table
        if content.get("fresh"):
            self._forget(index for index in indices if index != GONE)
        self._note_results(number, content, indices)
        for name, code in NUMBERS.items():
            if name in content:
                _put(getattr(table, name), indices, full_column(code, content[name], len(indices)))
        if "history" in content:
            self._read_failures(content, indices)
        table.note_output(indices, dict(_present(content.get("output", {}), indices)))
        _put(table.status, indices, content["status"])

    def _note_results(self, number: int, content: dict[str, Any], indices: Sequence[int]) -> None:
        """Write stand-ins for the results of completed items; find out, if they are checked, which can't be read."""
        done, mark, marks = indices, Elsewhere(number), list[Elsewhere]()
        if content["status"].count(COMPLETED) < len(indices):
            done = [index for index, code in zip(indices, content["status"], strict=True) if code == COMPLETED]
        for part in parts_of(content, len(done)):
            mine = done[len(marks) : len(marks) + len(part.places)]
            marks += [DISCARDED if part.is_discarded else mark] * len(mine)
            if self._checked:
                present = mine if isinstance(mine, range) else [index for index in mine if index != GONE]
                self._check_results(number, part, present)
        _put(self._table.results, done, marks)

    def _check_results(self, number: int, part: ResultPart, indices: Sequence[int]) -> None:
        kept, is_read = Kept(*part.kept), bool(indices) and not part.is_discarded
        found: Any = restore(kept, self._read_file) if is_read else None
        if isinstance(found, Unreadable):
            self.unreadable.update(indices)
            return
        if self.unreadable:
            self.unreadable.difference_update(indices)  # they may have been made anew
        if self._keep is not None and is_read and kept.file is None and len(indices) == len(part.places):
            results = [found] if part.size is None else [found[place] for place in part.places]
            self._keep(number, self._table.slots_of(indices) or indices, results, part.size_in_row)

    def _indices(self, slots: Sequence[int]) -> Sequence[int]:
        """Return the indices in the table of the items in these slots; `GONE` for those that are not in it."""
        last = slots[-1] if isinstance(slots, range) else max(slots)
        if last >= len(self._where):  # its lot could not be written
            self._where = array("i", (*self._where, *[GONE] * (last + 1 - len(self._where))))
        where = self._where
        if isinstance(where, range):
            return slots
        indices = where[slots.start : slots.stop] if isinstance(slots, range) else [where[slot] for slot in slots]
        first = indices[0]
        if first != GONE and all(index == first + at for at, index in enumerate(indices)):
            return range(first, first + len(indices))
        return indices

    def _forget(self, indices: Iterable[int]) -> None:
        indices = list(indices)
        self._table.start_afresh(indices)
        self.unreadable.difference_update(indices)
        for index in self._brought.intersection(indices):  # it belonged to the former item
            self._table.payloads[index] = NotKept()

    def _read_failures(self, content: dict[str, Any], indices: Sequence[int]) -> None:
        table, read_file = self._table, self._read_file
        errors = [restore_error(kept, read_file) for kept in content["errors"]]
        for index, tries in _present(content["history"], indices):
            told = table.history.setdefault(index, [])
            told += [FailedTry(error, duration, pid, errors[number]) for error, duration, pid, number in tries]
        for index, (number, trace, elapsed, charged, text) in _present(content["failures"], indices):
            table.failures[index] = Failure(errors[number], trace, elapsed, charged, text)
        for index, kept in _present(content.get("payloads", {}), indices):
            if isinstance(table.payloads[index], NotKept):
                table.payloads[index] = restore(Kept(*kept), read_file)
                self._brought.add(index)
        for index, code in _present(dict(enumerate(content["status"])), indices):
            if code == FAILED:
                table.results[index] = None
        for at, code in enumerate(content["status"]):
            if code == PENDING and at not in content["failures"]:  # it failed once, and is tried again
                table.failures.pop(indices[at], None)


def _present(told: dict[int, Any], indices: Sequence[int]) -> list[tuple[int, Any]]:
    """Return a row's data by the items' indices instead of their places in it; without items that are gone."""
    return [(indices[at], what) for at, what in told.items() if indices[at] != GONE]


class ResultPart(NamedTuple):
    """Kept results of a row: of ``size`` places, pickled together, or (None) of one.

    ``dropped`` places of the former do not count.
    """

    kept: tuple[Any, ...]
    size: int | None = None
    dropped: tuple[int, ...] = ()

    @property
    def size_in_row(self) -> int:
        """The bytes that it takes in its row."""
        return sum(len(body) for body in self.kept[:2] if body is not None)

    @property
    def is_discarded(self) -> bool:
        """True if there are none: they were discarded."""
        return bool(self.kept[0] == NO_RESULT)

    @property
    def places(self) -> Sequence[int]:
        """The places in it that count."""
        if self.size is None or not self.dropped:
            return range(1 if self.size is None else self.size)
        return [at for at in range(self.size) if at not in self.dropped]


def content_of(row: WrittenRow, read_file: ReadFile, path: str) -> dict[str, Any]:
    """Return a row's content, from itself or from its file. Raises `JournalError` if that is missing or damaged."""
    content = row.content(path)
    if "row" not in content:
        return content
    name, digest = content["row"]
    try:
        data = read_file(name)
    except OSError as error:
        raise JournalError(f"{path}: {error}") from error
    if digest_of(data) != digest:
        raise JournalError(f"{path}: {name} is damaged")
    found: dict[str, Any] = pickle.loads(data)
    return found


def parts_of(content: dict[str, Any], done: int) -> Iterator[ResultPart]:
    """Yield the results of a row with that many completed places, in parts.

    Earlier versions wrote them without parts if all are in one pickle (a tuple), or each is by itself.
    """
    if "parts" in content:
        yield from (ResultPart(*part) for part in content["parts"])
    elif isinstance(content["results"], tuple):
        yield ResultPart(content["results"], done)
    else:
        yield from (ResultPart(one) for one in content["results"])


def code_in(content: dict[str, Any]) -> int:
    """Return the number of the code that made the outcomes of a row; 0 if it is not recorded."""
    return int.from_bytes(content.get("code", b""), sys.byteorder)


def numbers_of(code: str, data: bytes) -> Any:
    """Return the column of numbers whose written form is ``data``."""
    numbers = array(code)
    numbers.frombytes(data)
    return numbers


def full_column(code: str, data: bytes, count: int) -> Any:
    """Return a column of numbers with a number for each of ``count`` places."""
    numbers = numbers_of(code, data)
    return numbers * count if len(numbers) < count else numbers


def _put(column: Any, indices: Sequence[int], values: Any) -> None:
    if isinstance(indices, range):
        column[indices.start : indices.stop] = values
    else:
        for index, value in zip(indices, values, strict=True):
            if index != GONE:
                column[index] = value
