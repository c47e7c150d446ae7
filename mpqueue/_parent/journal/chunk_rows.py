"""A chunk's row: how some items of a job stand, as one blob, and that blob written into a table again.

Rows are read in the order in which they were written; what a later one says of an item replaces what an earlier one
said, but for the failed tries, which add up. Items are named by their slots. What a newer version adds under a name of
its own, an older one leaves alone.
"""

from __future__ import annotations

import contextlib
import threading
from array import array
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from mpqueue._core.state.item_table import FailedTry, Failure, ItemTable
from mpqueue._parent.journal.kept_values import (
    BIG,
    BigFile,
    Kept,
    KeptError,
    NotKept,
    ReadFile,
    Unreadable,
    keep,
    keep_error,
    named_error,
    restore,
    restore_error,
)
from mpqueue._parent.journal.sealed import Place, Unsealed, prepare, unseal
from mpqueue._parent.transport.harmless import dump_harmless_parts
from mpqueue._parent.transport.kept_errors import text_of
from mpqueue._wire.pickling.main_names import MARK
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, FAILED, PENDING, RETRY

#: The columns of numbers that are kept, by their names in the table.
NUMBERS = ("attempts", "elapsed", "cpu", "peak")


class Row(NamedTuple):
    """A row, to be sealed once its number is known (None: nothing), and its files. ``left_out`` can't be pickled."""

    body: Unsealed | None
    files: tuple[BigFile, ...]
    left_out: tuple[tuple[int, str], ...] = ()


NO_ROW = Row(None, ())


class RowDraft:
    """How some items stand as of when this is made, to be written once their results and errors are pickled.

    That runs the code of users' classes, which may be slow, and may never end: `row` does it, on a thread of the job's
    own, and `cut_short`, on another thread, gives what there is of it by then. `plain_row` is for results of which no
    code runs.

    ``tries_kept`` says how many failed tries of each item earlier rows tell; it is updated here. Of items in
    ``unkept`` that failed, the payloads are written too.
    """

    def __init__(
        self, table: ItemTable, indices: Sequence[int], tries_kept: dict[int, int], unkept: Collection[int] = ()
    ) -> None:
        self._indices = indices
        whole = isinstance(indices, range) and len(indices) > 0
        # A chunk is a stretch of the table: slices cost nothing an item.
        lo, hi = (indices[0], indices[-1] + 1) if whole else (0, 0)
        status = table.status[lo:hi] if whole else bytearray(table.status[index] for index in indices)
        self._status = status = status.replace(bytes((RETRY,)), bytes((PENDING,)))
        if status.count(COMPLETED) == len(status):
            self._done = table.results[lo:hi] if whole else [table.results[index] for index in indices]
        else:
            self._done = [table.results[index] for at, index in enumerate(indices) if status[at] == COMPLETED]
        self._content: dict[str, Any] = {"at": _to_slots(table, indices)}
        for name in NUMBERS:
            column = getattr(table, name)
            part = column[lo:hi] if whole else array(column.format, (column[index] for index in indices))
            data, first = part.tobytes(), part[:1].tobytes()
            self._content[name] = first if data == first * len(part) else data  # very often all are the same
        if table.output:
            output = {at: table.output[index] for at, index in enumerate(indices) if index in table.output}
            self._content["output"] = output
        self._has_failures = bool(table.history or table.failures)
        self._tries: dict[int, list[FailedTry]] = {}
        self._failures: dict[int, Failure] = {}
        self._payloads: dict[int, Any] = {}
        if self._has_failures:
            self._note_failures(table, tries_kept, unkept)
        self._pickled = _Pickled()
        self._over = threading.Lock()  #: taken, for good, by who makes the row

    def _note_failures(self, table: ItemTable, tries_kept: dict[int, int], unkept: Collection[int]) -> None:
        for at, index in enumerate(self._indices):
            tries = table.history.get(index, ())
            new = tries[tries_kept.get(index, 0) :]
            if new:
                self._tries[at] = list(new)
                tries_kept[index] = len(tries)
            failure = table.failures.get(index)
            if failure is not None and table.status[index] != COMPLETED:
                self._failures[at] = failure
            if index in unkept and table.status[index] == FAILED:
                self._payloads[at] = table.payloads[index]

    @property
    def step(self) -> int:
        """Goes up with each object that is pickled."""
        return self._pickled.step

    def plain_row(self) -> Row | None:
        """The row, where nothing failed and the results are small and plain; else None."""
        if self._tries or self._failures or self._payloads:
            return None
        parts = dump_harmless_parts(self._done)
        if parts is None or parts[1] or len(parts[0]) >= BIG or MARK in parts[0]:
            return None
        return self._row(_Pickled(Kept(parts[0])), "")

    def row(self) -> Row | None:
        """The row; None where it was cut short meanwhile. An item whose result can't be pickled is written as not run.

        Costs what pickling the results costs.
        """
        if self._over.locked():
            return None
        pickled = self._pickled
        pickled.keep_results(self._done)
        for failure in self._failures.values():
            pickled.keep_error(failure.error)
        for tries in self._tries.values():
            for tried in tries:
                pickled.keep_error(tried.exception)
        for at, payload in self._payloads.items():
            pickled.keep_payload(at, payload)
        return self._row(pickled, "") if self._over.acquire(blocking=False) else None

    def cut_short(self, why: str) -> Row | None:
        """What is pickled by now; of the rest an item is written as not run. None where `row` has just ended."""
        return self._row(self._pickled.copy(), why) if self._over.acquire(blocking=False) else None

    def _row(self, pickled: _Pickled, why: str) -> Row:
        """``why`` something is not pickled that might have been."""
        status, files, left_out = bytearray(self._status), [*pickled.files], []
        results: Kept | list[Kept] | None = pickled.together
        if results is None:
            results = []
            places = [at for at in range(len(self._indices)) if status[at] == COMPLETED]
            for nth, place in enumerate(places):
                one = pickled.each.get(nth)
                if isinstance(one, Kept):
                    results.append(one)
                else:
                    status[place] = PENDING
                    left_out.append((self._indices[place], why if one is None else one))
        content = self._content | {
            "status": bytes(status),
            "results": tuple(results) if isinstance(results, Kept) else [tuple(kept) for kept in results],
        }
        if self._has_failures:
            content |= self._failed(pickled)
        return Row(prepare(content), tuple(files), tuple(left_out))

    def _failed(self, pickled: _Pickled) -> dict[str, Any]:
        errors: list[KeptError] = []
        numbers: dict[int, int] = {}

        def number_of(error: BaseException, text: str) -> int:
            if id(error) not in numbers:
                numbers[id(error)] = len(errors)
                errors.append(pickled.errors.get(id(error)) or named_error(error, text))
            return numbers[id(error)]

        history = {
            at: [(tried.error, tried.duration, tried.pid, number_of(tried.exception, tried.error)) for tried in tries]
            for at, tries in self._tries.items()
        }
        failures = {
            at: (number_of(each.error, each.text or ""), each.traceback, each.elapsed, each.charged, each.text)
            for at, each in self._failures.items()
        }
        payloads = {at: tuple(kept) for at, kept in pickled.payloads.items()}
        return {"errors": errors, "history": history, "failures": failures, "payloads": payloads}


class _Pickled:
    """What of a draft is pickled by now, on the thread that pickles; what is big of it is in ``files``."""

    def __init__(self, together: Kept | None = None) -> None:
        self.together = together  #: all results in one
        self.each: dict[int, Kept | str] = {}  #: else each result by itself, or why it can't be pickled
        self.errors: dict[int, KeptError] = {}  #: by identity
        self.payloads: dict[int, Kept] = {}
        self.files: tuple[BigFile, ...] = ()
        self.step = 0  #: goes up with each object

    def copy(self) -> _Pickled:
        """As it is now, whatever becomes of it. First what names files, then the files: those may be too many."""
        copy = _Pickled(self.together)
        copy.each, copy.errors, copy.payloads = dict(self.each), dict(self.errors), dict(self.payloads)
        copy.files = self.files
        return copy

    def keep_results(self, results: list[Any]) -> None:
        """All in one, where they are plain and small; else each by itself."""
        own: list[BigFile] = []
        self.step += 1
        try:
            together = keep(results, own)
        except Exception:
            together = None
        if together is not None and not own and together.by_value is None and together.by_reference is not None:
            self.together = together
            return
        for nth, result in enumerate(results):
            try:
                self.each[nth] = self._keep(result)
            except Exception as error:
                self.each[nth] = text_of(error)

    def keep_error(self, error: BaseException) -> None:
        """An error, once."""
        if id(error) not in self.errors:
            self.step += 1
            files: list[BigFile] = []
            kept = keep_error(error, files)
            self.files += tuple(files)
            self.errors[id(error)] = kept

    def keep_payload(self, at: int, payload: Any) -> None:
        """An item."""
        with contextlib.suppress(Exception):  # that it can't be pickled may be why it failed
            self.payloads[at] = self._keep(payload)

    def _keep(self, value: Any) -> Kept:
        self.step += 1
        files: list[BigFile] = []
        kept = keep(value, files)
        self.files += tuple(files)
        return kept


def make_row(table: ItemTable, indices: Sequence[int], tries_kept: dict[int, int], unkept: Collection[int] = ()) -> Row:
    """How these items stand now, see `RowDraft`, on a thread that may run whatever code there is."""
    row = RowDraft(table, indices, tries_kept, unkept).row()
    assert row is not None
    return row


def _to_slots(table: ItemTable, indices: Sequence[int]) -> tuple[int, int] | bytes:
    """The slots of these items: where they follow each other, the first and the one after the last."""
    if table.slots is None:
        if isinstance(indices, range) and indices:
            return indices[0], indices[-1] + 1
        return array("Q", indices).tobytes()
    slots = array("Q", [table.slots[index] for index in indices])
    if slots and slots == array("Q", range(slots[0], slots[0] + len(slots))):
        return slots[0], slots[0] + len(slots)
    return slots.tobytes()


def read_row(body: bytes, place: Place | None, table: ItemTable, read_file: ReadFile, path: str) -> list[int]:
    """Write a row into the table; returns the indices of the items whose results can't be read here.

    For ``place`` see `unseal`. Raises `JournalError` for a row that is damaged, or that speaks of items which the table
    has not.
    """
    content = unseal(body, place, f"{path}: a row of it")
    at = content["at"]
    indices: Sequence[int] = range(*at) if isinstance(at, tuple) else _numbers("Q", at)
    status = content["status"]
    if not indices:
        return []
    if max(indices) >= len(table) or len(status) != len(indices):
        raise JournalError(f"{path}: a row of it: expected items below {len(table)}, got {max(indices)}")
    for name in NUMBERS:
        column, count = getattr(table, name), len(indices)
        if name in content:
            numbers = _numbers(column.format, content[name])
            _put(column, indices, numbers * count if len(numbers) < count else numbers)
    unreadable = _read_results(content, table, indices, read_file)
    if "history" in content:
        _read_failures(content, table, indices, read_file)
    table.output.update({indices[at]: text for at, text in content.get("output", {}).items()})
    _put(table.status, indices, status)
    return unreadable


def _numbers(code: str, data: bytes) -> Any:
    numbers = array(code)
    numbers.frombytes(data)
    return numbers


def _put(column: Any, indices: Sequence[int], values: Any) -> None:
    if isinstance(indices, range):
        column[indices.start : indices.stop] = values
    else:
        for index, value in zip(indices, values, strict=True):
            column[index] = value


def _read_results(content: dict[str, Any], table: ItemTable, indices: Sequence[int], read_file: ReadFile) -> list[int]:
    status, kept = content["status"], content["results"]
    done = [index for index, code in zip(indices, status, strict=True) if code == COMPLETED]
    if isinstance(kept, tuple):
        together = restore(Kept(*kept), read_file)
        results = [together] * len(done) if isinstance(together, Unreadable) else together
    else:
        results = [restore(Kept(*one), read_file) for one in kept]
    for index, result in zip(done, results, strict=True):
        table.results[index] = result
    return [index for index, result in zip(done, results, strict=True) if isinstance(result, Unreadable)]


def _read_failures(content: dict[str, Any], table: ItemTable, indices: Sequence[int], read_file: ReadFile) -> None:
    errors = [restore_error(kept, read_file) for kept in content["errors"]]
    for at, tries in content["history"].items():
        told = table.history.setdefault(indices[at], [])
        told += [FailedTry(error, duration, pid, errors[number]) for error, duration, pid, number in tries]
    for at, (number, trace, elapsed, charged, text) in content["failures"].items():
        table.failures[indices[at]] = Failure(errors[number], trace, elapsed, charged, text)
    for at, kept in content.get("payloads", {}).items():
        if isinstance(table.payloads[indices[at]], NotKept):
            table.payloads[indices[at]] = restore(Kept(*kept), read_file)
    for at, code in enumerate(content["status"]):
        if code == PENDING and at not in content["failures"]:  # failed once, and is to be tried anew
            table.failures.pop(indices[at], None)
        if code == FAILED:
            table.results[indices[at]] = None
