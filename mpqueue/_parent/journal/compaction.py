"""Compaction of a journal: rows are written anew, what is gone is forgotten, and free pages go back to the disk.

A job's rows become few instead of many, without what later ones have replaced, and what is gone. One row at a time is
in memory. Results are moved, not unpickled; but where some of those that were pickled together are dropped, and all of
them are plain data, the others are pickled again. Rows that are not understood stay as they are.

A row that is made of several has the number of the last of them, and says in which row each of its places was first
(``origins``). With the number of a row that a slot was in, its reader can tell that entry from later ones, whose origin
has a higher number. Numbers are never given twice to rows of a job, so its last one always has a row.

Of items that are gone nothing is known any more, and their slots stay empty: one that comes back is a new one. Of a
stream, those go that have changed since, or are to run again and never came, for example after another ``version=``.

A file that was made with ``auto_vacuum`` has its free pages given back one by one; one of an older version is written
anew once. Both are transactions of SQLite's own: a kill leaves the file as it was.
"""

from __future__ import annotations

import os
import pickle
import shutil
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mpqueue._parent.journal.chunk_rows import (
    NUMBERS,
    ResultPart,
    WrittenRow,
    chunk_statement,
    full_column,
    numbers_of,
    origins_of,
    parts_of,
    row_of,
    written_numbers,
)
from mpqueue._parent.journal.kept_results import Outcomes
from mpqueue._parent.journal.kept_values import Kept, Place, no_file, plain_list, unseal
from mpqueue._parent.journal.lots import NOBODY, each_lot
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, PENDING

# -- compaction --------------------------------------------------------------------------------------------------------

Run = Callable[..., Any]

#: Bytes of a row up to which it is put together with others; and bytes and items of a row that is made of several.
SMALL, MOST_BYTES, MOST_ITEMS = 64 << 10, 1 << 20, 4096

#: What a row may have that can be put together with others. ``fresh``: what earlier rows say of its items is void.
_KEYS = {"status", "results", "parts", "errors", "history", "failures", "payloads", "output", "fresh", "origins"}
#: Columns of numbers. Older rows have no ``code``.
_COLUMNS = {**NUMBERS, "code": "I"}
_KEYS |= _COLUMNS.keys()

#: What a row says of single items, by their places in it.
_BY_PLACE = ("history", "failures", "payloads", "output")


class Compacted(NamedTuple):
    """The outcome of a compaction: how many rows fewer, gone items that were forgotten, files that may go."""

    rows: int = 0
    items: int = 0
    files: frozenset[str] = frozenset()


def prune(run: Run, job: int, line: Sequence[Any], path: str, *, gone: bool) -> Compacted:
    """Write the rows of a job anew, within the caller's transaction; where ``gone``, forget the items that are gone.

    Its ``line`` says slots, places, generation and whether it is open. Raises `JournalError` for a row that is damaged,
    and what the database raises. Takes 5 bytes a slot, of a stream 12.
    """
    count, places, generation, is_open = line
    present: bytearray | None = None
    forgotten = 0
    if generation is not None:
        present, forgotten = _prune_stream(run, job, count, path, gone=gone)
    elif gone and (is_open or places is not None):
        present = _present_slots(run, job, count, places, path)
        if not is_open:
            absent = {slot for slot in range(count) if not present[slot]}
            forgotten = _forget(run, job, path, absent.__contains__)
    return compact(run, job, count, present, path)._replace(items=forgotten)


def compact(run: Run, job: int, slots: int, present: bytearray | None, path: str) -> Compacted:
    """Write a job's rows anew. Nothing is kept of slots that are not present."""
    rows = JobRows(run, job, path)
    look = _Spoken(rows, slots, present)
    files: set[str] = set()
    batch = _Batch()
    written = 0
    stay: set[str] = set()
    for order, number in enumerate(rows.numbers, 1):
        row = rows.read(number)
        files.update(files_of(row.content))
        draft = _draft(row, number)
        if draft is None:
            written += batch.write(rows) + 1
            batch = _Batch()
            stay |= files_of(row.content)
            continue
        whole = draft.filter(look.places(draft, order))
        if not batch.takes(draft, row.size):
            written += batch.write(rows)
            batch = _Batch()
        batch.add(draft, number, row.size, whole=whole)
        stay |= draft.files()
    written += batch.write(rows)
    may_go = frozenset() if look.has_more_files else frozenset(files - stay)
    return Compacted(len(rows.numbers) - written, 0, may_go)


class TakenRow(NamedTuple):
    """A row as it is written, of which slots it speaks, and how many bytes it has."""

    content: dict[str, Any]
    slots: Sequence[int]
    size: int


class JobRows:
    """The rows of one job."""

    def __init__(self, run: Run, job: int, path: str) -> None:
        self._run = run
        self._job = job
        self._path = path
        found = run("SELECT number FROM chunks WHERE job = ? ORDER BY number", (job,)).fetchall()
        self.numbers: list[int] = [row[0] for row in found]

    def __iter__(self) -> Iterator[WrittenRow]:
        return map(self._written, self.numbers)

    def _written(self, number: int) -> WrittenRow:
        body, at = self._run("SELECT body, slots FROM chunks WHERE number = ?", (number,)).fetchone()
        return WrittenRow(self._job, number, body, at)

    def read(self, number: int) -> TakenRow:
        """A row, as it is written."""
        row, what = self._written(number), f"{self._path}: a row of it"
        return TakenRow(row.content(what), row.spoken(what), len(row.body))

    def write(self, numbers: Sequence[int], draft: _Draft) -> bool:
        """Have one row instead of these; where nothing would be in it, and it is not the last one, none: then False."""
        for number in numbers:
            self._run("DELETE FROM chunks WHERE number = ?", (number,))
        number = numbers[-1]
        is_needed = bool(draft.slots) or number == self.numbers[-1]
        if is_needed:
            self._run(*chunk_statement(number, self._job, row_of(draft.content(), draft.slots)))
        return is_needed


class _Spoken:
    """A first look at all rows: which of them is the last to speak of each slot, and which made it fresh."""

    def __init__(self, rows: JobRows, slots: int, present: bytearray | None) -> None:
        self._present = present
        self._last = array("I", bytes(4 * slots))
        self._fresh: dict[int, int] = {}
        self.has_more_files = False  #: some row is in a file itself, and may name others there
        for order, number in enumerate(rows.numbers, 1):
            content, spoken, _ = rows.read(number)
            self.has_more_files = self.has_more_files or "row" in content
            if isinstance(spoken, range):
                self._last[spoken.start : spoken.stop] = array("I", (order,)) * len(spoken)
            else:
                for slot in spoken:
                    self._last[slot] = order
            if content.get("fresh"):
                self._fresh.update(dict.fromkeys(spoken, order))

    def places(self, draft: _Draft, order: int) -> list[int]:
        """The places in that row that are to be kept."""
        kept = []
        for at, slot in enumerate(draft.slots):
            if self._present is not None and not self._present[slot]:
                continue
            if order > self._fresh.get(slot, 0) and (self._last[slot] == order or draft.tells_more(at)):
                kept.append(at)
        return kept


@dataclass
class _Draft:
    """A row, taken apart, or several in one. ``parts`` are the results of the places that are completed, in order."""

    slots: list[int] = field(default_factory=list)
    status: bytearray = field(default_factory=bytearray)
    numbers: dict[str, Any] = field(default_factory=lambda: {name: array(_COLUMNS[name]) for name in _COLUMNS})
    parts: list[ResultPart] = field(default_factory=list)
    errors: list[Any] = field(default_factory=list)
    told: dict[str, dict[int, Any]] = field(default_factory=lambda: {name: {} for name in _BY_PLACE})
    origins: array[int] = field(default_factory=lambda: array("Q"))  #: the numbers of the rows that had them first
    has_failures: bool = False  #: the row tells of failures, or that there are none any more

    def tells_more(self, at: int) -> bool:
        """True where the row tells something of a place that later rows add to, instead of replacing it."""
        return any(at in told for told in self.told.values())

    def filter(self, places: Sequence[int]) -> bool:
        """Keep these places only; True where that is all of them."""
        if len(places) == len(self.slots):
            return True
        wanted, new = set(places), {at: nth for nth, at in enumerate(places)}
        done = [at for at, code in enumerate(self.status) if code == COMPLETED]
        self.parts = [*_filter(self.parts, [at in wanted for at in done])]
        self.slots = [self.slots[at] for at in places]
        self.status = bytearray(self.status[at] for at in places)
        self.origins = array("Q", [self.origins[at] for at in places])
        for name, column in self.numbers.items():
            self.numbers[name] = array(_COLUMNS[name], [column[at] for at in places])
        self.told = {
            name: {new[at]: what for at, what in told.items() if at in new} for name, told in self.told.items()
        }
        self._drop_errors()
        return False

    def _drop_errors(self) -> None:
        used: dict[int, int] = {}

        def renumbered(number: int) -> int:
            return used.setdefault(number, len(used))

        self._renumber(renumbered)
        self.errors = [self.errors[number] for number in used]

    def _renumber(self, number_of: Callable[[int], int]) -> None:
        told = self.told
        told["history"] = {
            at: [(*tried[:3], number_of(tried[3]), *tried[4:]) for tried in tries]
            for at, tries in told["history"].items()
        }
        told["failures"] = {at: (number_of(what[0]), *what[1:]) for at, what in told["failures"].items()}

    def add(self, other: _Draft) -> None:
        """Add the places of another row, which speaks of other slots."""
        base, errors = len(self.slots), len(self.errors)
        other._renumber(lambda number: number + errors)
        self.slots += other.slots
        self.status += other.status
        self.origins += other.origins
        for name, column in other.numbers.items():
            self.numbers[name] += column
        self.parts += other.parts
        self.errors += other.errors
        for name, told in other.told.items():
            self.told[name].update({base + at: what for at, what in told.items()})
        self.has_failures = self.has_failures or other.has_failures

    def content(self) -> dict[str, Any]:
        """Return the row's content as it is written."""
        content: dict[str, Any] = {
            "status": bytes(self.status),
            "results": (),
            "parts": [tuple(part) for part in self.parts],
            "origins": written_numbers(self.origins),
        }
        for name, column in self.numbers.items():
            content[name] = written_numbers(column)
        if self.told["output"]:
            content["output"] = self.told["output"]
        if self.has_failures:
            content |= {name: self.told[name] for name in ("history", "failures", "payloads")}
            content["errors"] = self.errors
        return content

    def files(self) -> set[str]:
        """The files that it names."""
        kept = [part.kept for part in self.parts] + list(self.told["payloads"].values())
        return _named(kept, self.errors)


class _Batch:
    """Rows that become one."""

    def __init__(self) -> None:
        self._draft = _Draft()
        self._slots: set[int] = set()
        self._numbers: list[int] = []
        self._size = 0
        self._is_whole = True

    def takes(self, draft: _Draft, size: int) -> bool:
        """True where a row of that size may go with those that are there. No slot is twice in one row."""
        if not self._numbers:
            return True
        small = size <= SMALL and self._size + size <= MOST_BYTES
        fits = len(self._slots) + len(draft.slots) <= MOST_ITEMS
        return small and fits and self._slots.isdisjoint(draft.slots)

    def add(self, draft: _Draft, number: int, size: int, *, whole: bool) -> None:
        """Add a row to the batch; ``whole``: as it was."""
        self._numbers.append(number)
        self._size += size
        self._is_whole = self._is_whole and whole
        self._slots.update(draft.slots)
        self._draft.add(draft)

    def write(self, rows: JobRows) -> int:
        """Write the rows; returns how many that makes. One row that is as it was stays."""
        if len(self._numbers) == 1 and self._is_whole:
            return 1
        return int(rows.write(self._numbers, self._draft)) if self._numbers else 0


def _draft(row: TakenRow, number: int) -> _Draft | None:
    """The row of that number taken apart; None for one that is in a file, or has what this version does not know."""
    content = row.content
    if not content.keys() <= _KEYS or any(name not in content for name in NUMBERS):
        return None
    status = bytearray(content["status"])
    draft = _Draft([*row.slots], status, parts=[*parts_of(content, status.count(COMPLETED))])
    for name, code in _COLUMNS.items():
        draft.numbers[name] = full_column(code, content.get(name, bytes(4)), len(status))
    draft.origins = origins_of(content, number)
    draft.has_failures = "history" in content
    draft.errors = list(content.get("errors", ()))
    draft.told = {name: dict(content.get(name, {})) for name in _BY_PLACE}
    return draft


# -- results -----------------------------------------------------------------------------------------------------------


def _filter(parts: Sequence[ResultPart], wanted: Sequence[bool]) -> Iterator[ResultPart]:
    """The parts without the results that are not wanted; ``wanted`` has an entry for each that counts, in order."""
    at = 0
    for part in parts:
        places = part.places
        mine, at = wanted[at : at + len(places)], at + len(places)
        if all(mine):
            yield part
        elif any(mine):
            yield _without(part, [place for place, is_wanted in zip(places, mine, strict=True) if is_wanted])


def _without(part: ResultPart, places: Sequence[int]) -> ResultPart:
    """The part with the results at these places only: pickled again where they are plain data, else as it was."""
    data = plain_list(Kept(*part.kept))
    if data is None:
        return part._replace(dropped=tuple(sorted({*part.dropped, *part.places}.difference(places))))
    again = pickle.dumps([data[place] for place in places], pickle.HIGHEST_PROTOCOL)
    return ResultPart(tuple(Kept(again)), len(places))


# -- files -------------------------------------------------------------------------------------------------------------


def files_of(content: dict[str, Any]) -> set[str]:
    """The files that a row names."""
    if "row" in content:
        return {content["row"][0]}
    results = content["results"]
    kept = [results] if isinstance(results, tuple) and results else list(results)
    kept += [part[0] for part in content.get("parts", ())]
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
    """Return, by slot, 1 for those that have an item today. ``places`` are those of a list; None: it is an open job."""
    present = bytearray(count)
    if places is not None:
        for slot in numbers_of("I", unseal(places, Place("jobs.places", job), f"{path}: the order of a job's items")):
            present[slot] = 1
        return present
    for lot in each_lot(run, job, path, items=False):
        for at, slot in enumerate(lot.slots):
            present[slot] = at not in lot.gone
    return present


def _prune_stream(run: Run, job: int, count: int, path: str, *, gone: bool) -> tuple[bytearray, int]:
    """Return, by slot, 1 for those that count; and how many items were forgotten."""
    present, counted, now = bytearray(b"\1") * count, bytearray(count), dict[int, int]()
    for lot in each_lot(run, job, path, items=False):
        for slot in lot.supersedes(now):
            present[slot] = 0
        for at, slot in enumerate(lot.slots):
            counted[slot] = at not in lot.gone
    if not gone:
        return present, 0
    outcomes = Outcomes(JobRows(run, job, path), no_file, path, count)
    for slot in outcomes.lost:  # whose row is in a file
        outcomes.status[slot] = COMPLETED
    pending = {slot for slot, status in enumerate(outcomes.status) if status == PENDING}
    forgotten = {slot for slot in pending if present[slot] and counted[slot]}
    firsts = {first for first, last in now.items() if last in forgotten}  # what has changed is known by them
    _forget(run, job, path, (forgotten | firsts).__contains__)
    for slot in pending:
        present[slot] = 0
    return present, len(forgotten)


def _forget(run: Run, job: int, path: str, is_gone: Callable[[int], bool]) -> int:
    """Empty these slots; returns how many were not empty. Raises `JournalError` for a lot whose others are unknown."""
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

#: Makes a file, before anything is in it, one whose pages can be given back.
AUTO_VACUUM = "PRAGMA auto_vacuum=INCREMENTAL"
#: Pages that are given back to the disk in one go, at most: that takes 0.1 s.
AT_ONCE = 2000
#: Times its size that a file needs to be written anew: a copy, and the log that brings it home.
NEEDS = 2


def give_back(connection: Any) -> int:
    """Give free pages back, at most `AT_ONCE`; returns how many are left. Raises `sqlite3.Error`."""
    free = _number(connection, "freelist_count")
    if not free or not _number(connection, "auto_vacuum"):
        return free
    connection.execute("BEGIN IMMEDIATE")
    try:
        for _ in range(min(AT_ONCE, free)):
            connection.execute("PRAGMA incremental_vacuum(1)").fetchall()  # more in one go are not more
    finally:
        connection.execute("COMMIT")
    return _number(connection, "freelist_count")


def make_shrinkable(connection: Any, path: str) -> None:
    """Have pages given back one by one from now on, also those of a file that was not made so.

    Raises `JournalError` where there is no room to write that anew, and `sqlite3.Error`; then it is as it was.
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
    """Move what is in the log into the file, so that both are as small as they can be; not while others read it."""
    patience = _number(connection, "busy_timeout")
    connection.execute("PRAGMA busy_timeout=0").fetchall()
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout={patience}").fetchall()


def _number(connection: Any, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
