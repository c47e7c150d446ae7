"""Compaction of a journal: replaced outcomes and items that are gone are dropped, and free pages are given back.

A row whose data is all replaced goes; one of which a part still counts is written anew under its number, since readers
know results by the numbers of their rows. One row at a time is in memory. Results are moved, not unpickled; but if some
of those that were pickled together are dropped, and all of them are plain data, the others are pickled again. Rows in a
file stay as they are. Numbers of a job's rows are never reused, so the last one always has a row.

Items that are gone are forgotten, and their slots stay empty: one that comes back is new. In a stream, these are items
that have changed since, or had to run again and never came, for example after another ``version=``.

A file made with ``auto_vacuum`` gives its free pages back one by one; a file of an older version is rewritten once.
Both are transactions of SQLite: a kill leaves the file as it was.
"""

from __future__ import annotations

import os
import pickle
import shutil
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from mpqueue._parent.journal.chunk_rows import (
    NUMBERS,
    ResultPart,
    WrittenRow,
    chunk_statement,
    full_column,
    numbers_of,
    parts_of,
    row_of,
    written_numbers,
)
from mpqueue._parent.journal.kept_results import NO_ROW, Outcomes
from mpqueue._parent.journal.kept_values import Kept, Place, no_file, plain_list, unseal
from mpqueue._parent.journal.lots import NOBODY, each_lot, present_slots, slots_in
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, JobKind

# -- compaction --------------------------------------------------------------------------------------------------------

Run = Callable[..., Any]

#: Entries of a row about single items, by their places in it.
_BY_PLACE = ("history", "failures", "payloads", "output")


class Compacted(NamedTuple):
    """The outcome of a compaction: how many forgotten items, and files to be removed."""

    items: int = 0
    files: frozenset[str] = frozenset()


def prune(run: Run, job: int, line: Sequence[Any], path: str, *, gone: bool) -> Compacted:
    """Rewrite the rows of a job, within the caller's transaction; with ``gone``, forget the items that are gone.

    Its ``line`` has slots, places and kind. Raises `JournalError` for a damaged row, and the database's errors. Takes 5
    bytes per slot, for a stream 12.
    """
    count, places, kind = line
    present: bytearray | None = None
    forgotten = 0
    if kind == JobKind.STREAM:
        present, forgotten = _prune_stream(run, job, count, path, gone=gone)
    elif gone and (kind == JobKind.OPEN or places is not None):
        present = _present_slots(run, job, count, places, path)
        if kind != JobKind.OPEN:
            absent = {slot for slot in range(count) if not present[slot]}
            forgotten = _forget(run, job, path, absent.__contains__)
    return Compacted(forgotten, compact(run, job, count, present, path))


def compact(run: Run, job: int, slots: int, present: bytearray | None, path: str) -> frozenset[str]:
    """Rewrite a job's rows; returns the files that are no longer needed. Slots that are not present are not kept."""
    rows = JobRows(run, job, path)
    look = _Spoken(rows, slots, present)
    files, stay = set[str](), set[str]()
    for order, (number, content, spoken) in enumerate(rows.read(), 1):
        files |= files_of(content)
        if "row" not in content and not (look.any_in_file and content.get("fresh")):
            places = look.places(content, spoken, order)
            if len(places) < len(spoken):
                content = _only(content, places)  # noqa: PLW2901 - what is left of it
                rows.replace(number, content, [spoken[at] for at in places])
        stay |= files_of(content)
    return frozenset() if look.any_in_file else frozenset(files - stay)


class JobRows:
    """The rows of one job."""

    def __init__(self, run: Run, job: int, path: str) -> None:
        self._run = run
        self._job = job
        self._path = path
        found = run("SELECT number FROM chunks WHERE job = ? ORDER BY number", (job,)).fetchall()
        self._numbers: list[int] = [row[0] for row in found]

    def __iter__(self) -> Iterator[WrittenRow]:
        for number in self._numbers:
            body, at = self._run("SELECT body, slots FROM chunks WHERE number = ?", (number,)).fetchone()
            yield WrittenRow(self._job, number, body, at)

    def read(self) -> Iterator[tuple[int, dict[str, Any], Sequence[int]]]:
        """Yield each row's number, its content as it is written, and its slots."""
        what = f"{self._path}: a row of it"
        for row in self:
            yield row.number, row.content(what), row.spoken(what)

    def replace(self, number: int, content: dict[str, Any], slots: Sequence[int]) -> None:
        """Replace a row by this one, under the same number; by none if it would be empty and is not the last one."""
        self._run("DELETE FROM chunks WHERE number = ?", (number,))
        if slots or number == self._numbers[-1]:
            self._run(*chunk_statement(number, self._job, row_of(content, slots)))


class _Spoken:
    """A first look at all rows: the last row about each slot, and the row that made it fresh."""

    def __init__(self, rows: JobRows, slots: int, present: bytearray | None) -> None:
        self._present = present
        self._last = array("I", bytes(4 * slots))
        self._fresh: dict[int, int] = {}
        self.any_in_file = False  #: such a row stays whole, and may name files; so what voids it stays, too
        for order, (_, content, spoken) in enumerate(rows.read(), 1):
            self.any_in_file = self.any_in_file or "row" in content
            if isinstance(spoken, range):
                self._last[spoken.start : spoken.stop] = array("I", (order,)) * len(spoken)
            else:
                for slot in spoken:
                    self._last[slot] = order
            if content.get("fresh"):
                self._fresh.update(dict.fromkeys(spoken, order))

    def places(self, content: dict[str, Any], spoken: Sequence[int], order: int) -> list[int]:
        """Return the places in that row that have to be kept: later rows add to these, instead of replacing them."""
        adds = {at for name in _BY_PLACE for at in content.get(name, ())}
        kept = []
        for at, slot in enumerate(spoken):
            if self._present is not None and not self._present[slot]:
                continue
            if order > self._fresh.get(slot, 0) and (self._last[slot] == order or at in adds):
                kept.append(at)
        return kept


def _only(content: dict[str, Any], places: Sequence[int]) -> dict[str, Any]:
    """Return the content of a row with these places only."""
    status, wanted, new = content["status"], set(places), {at: nth for nth, at in enumerate(places)}
    done = [at in wanted for at, code in enumerate(status) if code == COMPLETED]
    parts = _filter([*parts_of(content, len(done))], done)
    only: dict[str, Any] = {"code": content["code"]} if "code" in content else {}
    only |= {"status": bytes(status[at] for at in places), "parts": [tuple(part) for part in parts]}
    for name, code in NUMBERS.items():
        if name in content:
            column = full_column(code, content[name], len(status))
            only[name] = written_numbers(array(code, [column[at] for at in places]))
    for name in _BY_PLACE:
        if name in content:
            only[name] = {new[at]: what for at, what in content[name].items() if at in new}
    if "history" in content:
        _drop_errors(only, content["errors"])
    return only


def _drop_errors(only: dict[str, Any], errors: Sequence[Any]) -> None:
    """Give the content those of the errors that it still names."""
    used: dict[int, int] = {}

    def renumbered(number: int) -> int:
        return used.setdefault(number, len(used))

    only["history"] = {
        at: [(*tried[:3], renumbered(tried[3]), *tried[4:]) for tried in tries] for at, tries in only["history"].items()
    }
    only["failures"] = {at: (renumbered(what[0]), *what[1:]) for at, what in only["failures"].items()}
    only["errors"] = [errors[number] for number in used]


# -- results -----------------------------------------------------------------------------------------------------------


def _filter(parts: Sequence[ResultPart], wanted: Sequence[bool]) -> Iterator[ResultPart]:
    """Return the parts without unwanted results; ``wanted`` has an entry for each that counts, in order."""
    at = 0
    for part in parts:
        places = part.places
        mine, at = wanted[at : at + len(places)], at + len(places)
        if all(mine):
            yield part
        elif any(mine):
            yield _without(part, [place for place, is_wanted in zip(places, mine, strict=True) if is_wanted])


def _without(part: ResultPart, places: Sequence[int]) -> ResultPart:
    """Return the part with the results at these places only: pickled again if they are plain data, else unchanged."""
    data = plain_list(Kept(*part.kept))
    if data is None:
        return part._replace(dropped=tuple(sorted({*part.dropped, *part.places}.difference(places))))
    again = pickle.dumps([data[place] for place in places], pickle.HIGHEST_PROTOCOL)
    return ResultPart(tuple(Kept(again)), len(places))


# -- files -------------------------------------------------------------------------------------------------------------


def files_of(content: dict[str, Any]) -> set[str]:
    """Return the files that a row names."""
    if "row" in content:
        return {content["row"][0]}
    kept = [part.kept for part in parts_of(content, 0)]
    kept += content.get("payloads", {}).values()
    return _named(kept, content.get("errors", ()))


def _named(kept: Sequence[Any], errors: Sequence[Any]) -> set[str]:
    names = {name for each in kept if (name := Kept(*each).file) is not None}
    for error in errors:
        while error is not None:
            itself, _, _, cause = error
            if itself is not None and (name := Kept(*itself).file) is not None:
                names.add(name)
            error = cause  # noqa: PLW2901 - down the chain
    return names


# -- forgotten ---------------------------------------------------------------------------------------------------------


def _present_slots(run: Run, job: int, count: int, places: Any, path: str) -> bytearray:
    """Return, by slot, 1 for those with a current item. ``places`` are those of a list; None: it is an open job."""
    if places is None:
        return present_slots(each_lot(run, job, path, items=False), count)
    order = unseal(places, Place("jobs.places", job), f"{path}: the order of a job's items")
    return slots_in(numbers_of("I", order), count)


def _prune_stream(run: Run, job: int, count: int, path: str, *, gone: bool) -> tuple[bytearray, int]:
    """Return, by slot, 1 for those that count; and how many items were forgotten."""
    now: dict[int, int] = {}
    present = present_slots(each_lot(run, job, path, items=False), count, now)
    if not gone:
        return present, 0
    outcomes = Outcomes(no_file, path, count)
    for row in JobRows(run, job, path):
        outcomes.read(row)
    stay = outcomes.lost  # their row is in a file
    pending = {slot for slot, row in enumerate(outcomes.row) if row == NO_ROW and slot not in stay}
    forgotten = {slot for slot in pending if present[slot]}
    firsts = {first for first, last in now.items() if last in forgotten}  # changed items are known by them
    _forget(run, job, path, (forgotten | firsts).__contains__)
    for slot in pending:
        present[slot] = 0
    return present, len(forgotten)


def _forget(run: Run, job: int, path: str, is_gone: Callable[[int], bool]) -> int:
    """Empty these slots; returns how many were not empty. Raises `JournalError` if other items of a lot are unknown."""
    count = 0
    for lot in each_lot(run, job, path, items=True):
        places = [at for at, slot in enumerate(lot.slots) if is_gone(slot) and at not in lot.gone]
        if places:
            if lot.identities == NOBODY * lot.size and len(places) < lot.size and not lot.gone:
                raise JournalError(f"{path}: expected {lot.size} items of a job as they were written, got something "
                                   "damaged; it is left as it is")  # fmt: skip
            count += len(places)
            run(*lot.without(places).put(job))
    return count


# -- shrinking ---------------------------------------------------------------------------------------------------------

#: Makes a new, empty file one whose pages can be given back.
AUTO_VACUUM = "PRAGMA auto_vacuum=INCREMENTAL"
#: The most pages that are given back in one go: that takes 0.1 s.
AT_ONCE = 2000
#: The multiple of its size that rewriting a file needs: a copy, and the log.
NEEDS = 2


def give_back(connection: Any) -> int:
    """Give free pages back, at most `AT_ONCE`; returns how many are left. Raises `sqlite3.Error`."""
    free = _number(connection, "freelist_count")
    if not free or not _number(connection, "auto_vacuum"):
        return free
    connection.execute("BEGIN IMMEDIATE")
    try:
        for _ in range(min(AT_ONCE, free)):
            connection.execute("PRAGMA incremental_vacuum(1)").fetchall()  # more in one go are not given back
    finally:
        connection.execute("COMMIT")
    return _number(connection, "freelist_count")


def make_shrinkable(connection: Any, path: str) -> None:
    """Let pages be given back one by one from now on, even if the file was made without that.

    Raises `JournalError` if there is no room to rewrite it, and `sqlite3.Error`; then it is unchanged.
    """
    if _number(connection, "auto_vacuum"):
        return
    pages = _number(connection, "page_count") - _number(connection, "freelist_count")
    needed = NEEDS * pages * _number(connection, "page_size")
    free = shutil.disk_usage(os.path.dirname(path)).free
    if free < needed:
        raise JournalError(
            f"{path}: expected {needed >> 20} MB of free disk to write it anew, got {free >> 20} MB; make room, or "
            "leave it as it is"
        )
    connection.execute(AUTO_VACUUM)
    connection.execute("VACUUM")


def end_log(connection: Any) -> None:
    """Move the log's content into the file, so that both are as small as possible; not while others read it."""
    patience = _number(connection, "busy_timeout")
    connection.execute("PRAGMA busy_timeout=0").fetchall()
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout={patience}").fetchall()


def _number(connection: Any, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
