"""A chunk's row: how some items of a job stand, as one blob, and that blob written into a table again.

Rows are read in the order in which they were written; what a later one says of an item replaces what an earlier one
said, but for the failed tries, which add up. A blob begins with its checksum, so that damage is noticed. What a newer
version adds under a name of its own, an older one leaves alone.
"""

from __future__ import annotations

import contextlib
import pickle
import zlib
from array import array
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from mpqueue._core.state.item_table import FailedTry, Failure, ItemTable
from mpqueue._parent.journal.kept_values import (
    BigFile,
    Kept,
    KeptError,
    NotKept,
    ReadFile,
    Unreadable,
    keep,
    keep_error,
    restore,
    restore_error,
)
from mpqueue._parent.transport.kept_errors import text_of
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, FAILED, PENDING, RETRY

#: The columns of numbers that are kept, by their names in the table.
NUMBERS = ("attempts", "elapsed", "cpu", "peak")
#: Bytes of the checksum.
CHECK = 4


class Row(NamedTuple):
    """A row, ready to be written, and the files that belong to it. ``left_out`` can't be pickled."""

    body: bytes
    files: tuple[BigFile, ...]
    left_out: tuple[tuple[int, str], ...] = ()


def seal(content: Any) -> bytes:
    """Anything plain, with a checksum."""
    data = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    return zlib.crc32(data).to_bytes(CHECK, "little") + data


def unseal(body: Any, what: str) -> Any:
    """What was sealed. Raises `JournalError` where it is damaged."""
    data = body[CHECK:] if isinstance(body, bytes) else b""
    if not data or zlib.crc32(data).to_bytes(CHECK, "little") != body[:CHECK]:
        raise JournalError(f"{what}: expected it as it was written, got something damaged; it is left as it is")
    return pickle.loads(data)


def make_row(table: ItemTable, indices: Sequence[int], tries_kept: dict[int, int], unkept: Collection[int] = ()) -> Row:
    """How these items stand now. ``tries_kept``: how many failed tries of each item earlier rows tell; updated here.

    Of items in ``unkept`` that failed, the payloads are written too.

    Costs what pickling the results costs. An item whose result can't be pickled is written as not run.
    """
    files: list[BigFile] = []
    whole = isinstance(indices, range) and len(indices) > 0
    # A chunk is a stretch of the table: slices cost nothing an item.
    lo, hi = (indices[0], indices[-1] + 1) if whole else (0, 0)
    status = table.status[lo:hi] if whole else bytearray(table.status[index] for index in indices)
    status = status.replace(bytes((RETRY,)), bytes((PENDING,)))
    all_done = status.count(COMPLETED) == len(status)
    if all_done:
        done = table.results[lo:hi] if whole else [table.results[index] for index in indices]
    else:
        done = [table.results[index] for at, index in enumerate(indices) if status[at] == COMPLETED]
    results, broken = _keep_results(done, files)
    left_out = []
    if broken:
        places = [at for at in range(len(indices)) if status[at] == COMPLETED]
        for nth, reason in broken:
            status[places[nth]] = PENDING
            left_out.append((indices[places[nth]], reason))
    content: dict[str, Any] = {
        "at": (lo, hi) if whole else array("Q", indices).tobytes(),
        "status": bytes(status),
        "results": tuple(results) if isinstance(results, Kept) else [tuple(kept) for kept in results],
    }
    for name in NUMBERS:
        column = getattr(table, name)
        part = column[lo:hi] if whole else array(column.format, (column[index] for index in indices))
        data, first = part.tobytes(), part[:1].tobytes()
        content[name] = first if data == first * len(part) else data  # very often all are the same
    if table.history or table.failures:
        _keep_failures(content, table, indices, tries_kept, files)
        content["payloads"] = _keep_payloads(table, indices, unkept, files)
    if table.output:
        content["output"] = {at: table.output[index] for at, index in enumerate(indices) if index in table.output}
    return Row(seal(content), tuple(files), tuple(left_out))


def _keep_results(results: list[Any], files: list[BigFile]) -> tuple[Kept | list[Kept], list[tuple[int, str]]]:
    """All in one, where they are plain and small; else each by itself."""
    own: list[BigFile] = []
    try:
        together = keep(results, own)
    except Exception:
        together = None
    if together is not None and not own and together.by_value is None and together.by_reference is not None:
        return together, []
    each: list[Kept] = []
    broken = []
    for nth, result in enumerate(results):
        try:
            each.append(keep(result, files))
        except Exception as error:
            broken.append((nth, text_of(error)))
    return each, broken


def _keep_failures(
    content: dict[str, Any], table: ItemTable, indices: Sequence[int], tries_kept: dict[int, int], files: list[BigFile]
) -> None:
    errors: list[KeptError] = []
    numbers: dict[int, int] = {}

    def number_of(error: BaseException) -> int:
        if id(error) not in numbers:
            numbers[id(error)] = len(errors)
            errors.append(keep_error(error, files))
        return numbers[id(error)]

    history, failures = {}, {}
    for at, index in enumerate(indices):
        tries = table.history.get(index, ())
        new = tries[tries_kept.get(index, 0) :]
        if new:
            history[at] = [(each.error, each.duration, each.pid, number_of(each.exception)) for each in new]
            tries_kept[index] = len(tries)
        failure = table.failures.get(index)
        if failure is not None and table.status[index] != COMPLETED:
            failures[at] = (number_of(failure.error), failure.traceback, failure.elapsed, failure.charged, failure.text)
    content |= {"errors": errors, "history": history, "failures": failures}


def _keep_payloads(
    table: ItemTable, indices: Sequence[int], unkept: Collection[int], files: list[BigFile]
) -> dict[int, Any]:
    kept = {}
    for at, index in enumerate(indices):
        if index in unkept and table.status[index] == FAILED:
            with contextlib.suppress(Exception):  # that it can't be pickled may be why it failed
                kept[at] = tuple(keep(table.payloads[index], files))
    return kept


def read_row(body: bytes, table: ItemTable, read_file: ReadFile, path: str) -> list[int]:
    """Write a row into the table; returns the indices of the items whose results can't be read here.

    Raises `JournalError` for a row that is damaged, or that speaks of items which the table has not.
    """
    content = unseal(body, f"{path}: a row of it")
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
