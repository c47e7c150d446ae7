"""Compaction of a journal: it rewrites rows, forgets items that are gone, and gives free pages back to the disk.

A job's rows are merged, without replaced data and items that are gone. One row at a time is in memory. Results are
moved, not unpickled; but if some of those that were pickled together are dropped, and all of them are plain data, the
others are pickled again. Unknown rows stay as they are.

A merged row has the number of the last of its rows, and the first row of each of its places (``origins``). With the
number of a slot's row, a reader can tell that entry from later ones, whose origin has a higher number. Numbers of a
job's rows are never reused, so the last one always has a row.

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
from mpqueue._parent.journal.lots import NOBODY, each_lot, present_slots
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, PENDING

# -- compaction --------------------------------------------------------------------------------------------------------

Run = Callable[..., Any]

#: The bytes up to which a row is merged with others; and the most bytes and items of a merged row.
SMALL, MOST_BYTES, MOST_ITEMS = 64 << 10, 1 << 20, 4096

#: The keys of rows that can be merged. ``fresh``: earlier rows about its items are void.
_KEYS = {"status", "results", "parts", "errors", "history", "failures", "payloads", "output", "fresh", "origins"}
#: Columns of numbers. Older rows have no ``code``.
_COLUMNS = {**NUMBERS, "code": "I"}
_KEYS |= _COLUMNS.keys()

#: Entries of a row about single items, by their places in it.
_BY_PLACE = ("history", "failures", "payloads", "output")


class Compacted(NamedTuple):
    """The outcome of a compaction: how many fewer rows, forgotten items, and files to be removed."""

    rows: int = 0
    items: int = 0
    files: frozenset[str] = frozenset()


def prune(run: Run, job: int, line: Sequence[Any], path: str, *, gone: bool) -> Compacted:
    """Rewrite the rows of a job, within the caller's transaction; with ``gone``, forget the items that are gone.

    Its ``line`` has slots, places, generation and whether it is open. Raises `JournalError` for a damaged row, and the
    database's errors. Takes 5 bytes per slot, for a stream 12.
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
    """Rewrite a job's rows. Slots that are not present are not kept."""
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
    """A row as it is written, its slots, and its bytes."""

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
        """Replace these rows by one; by none if it would be empty and is not the last one: then False."""
        for number in numbers:
            self._run("DELETE FROM chunks WHERE number = ?", (number,))
        number = numbers[-1]
        is_needed = bool(draft.slots) or number == self.numbers[-1]
        if is_needed:
            self._run(*chunk_statement(number, self._job, row_of(draft.content(), draft.slots)))
        return is_needed


class _Spoken:
    """A first look at all rows: the last row about each slot, and the row that made it fresh."""

    def __init__(self, rows: JobRows, slots: int, present: bytearray | None) -> None:
        self._present = present
        self._last = array("I", bytes(4 * slots))
        self._fresh: dict[int, int] = {}
        self.has_more_files = False  #: some row is itself in a file, and may name others there
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
        """Return the places in that row that have to be kept."""
        kept = []
        for at, slot in enumerate(draft.slots):
            if self._present is not None and not self._present[slot]:
                continue
            if order > self._fresh.get(slot, 0) and (self._last[slot] == order or draft.tells_more(at)):
                kept.append(at)
        return kept


@dataclass
class _Draft:
    """One row or several, taken apart. ``parts`` are the results of the completed places, in order."""

    slots: list[int] = field(default_factory=list)
    status: bytearray = field(default_factory=bytearray)
    numbers: dict[str, Any] = field(default_factory=lambda: {name: array(_COLUMNS[name]) for name in _COLUMNS})
    parts: list[ResultPart] = field(default_factory=list)
    errors: list[Any] = field(default_factory=list)
    told: dict[str, dict[int, Any]] = field(default_factory=lambda: {name: {} for name in _BY_PLACE})
    origins: array[int] = field(default_factory=lambda: array("Q"))  #: the numbers of the rows that first had them
    has_failures: bool = False  #: the row has failures, or resets them

    def tells_more(self, at: int) -> bool:
        """True if the row has data about a place that later rows add to, instead of replacing it."""
        return any(at in told for told in self.told.values())

    def filter(self, places: Sequence[int]) -> bool:
        """Keep these places only; True if that is all of them."""
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
        """Add the places of another row, which has other slots."""
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
        """Return the row's content in its written form."""
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
        """Return the files that it names."""
        kept = [part.kept for part in self.parts] + list(self.told["payloads"].values())
        return _named(kept, self.errors)


class _Batch:
    """Rows that are merged into one."""

    def __init__(self) -> None:
        self._draft = _Draft()
        self._slots: set[int] = set()
        self._numbers: list[int] = []
        self._size = 0
        self._is_whole = True

    def takes(self, draft: _Draft, size: int) -> bool:
        """True if a row of that size may be merged with the ones so far. No slot occurs twice in a row."""
        if not self._numbers:
            return True
        small = size <= SMALL and self._size + size <= MOST_BYTES
        fits = len(self._slots) + len(draft.slots) <= MOST_ITEMS
        return small and fits and self._slots.isdisjoint(draft.slots)

    def add(self, draft: _Draft, number: int, size: int, *, whole: bool) -> None:
        """Add a row to the batch; ``whole``: unchanged."""
        self._numbers.append(number)
        self._size += size
        self._is_whole = self._is_whole and whole
        self._slots.update(draft.slots)
        self._draft.add(draft)

    def write(self, rows: JobRows) -> int:
        """Write the rows; returns their number. A single unchanged row stays."""
        if len(self._numbers) == 1 and self._is_whole:
            return 1
        return int(rows.write(self._numbers, self._draft)) if self._numbers else 0


def _draft(row: TakenRow, number: int) -> _Draft | None:
    """Return the row of that number taken apart; None if it is in a file, or has data unknown to this version."""
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
    """Return, by slot, 1 for those with a current item. ``places`` are those of a list; None: it is an open job."""
    if places is None:
        return present_slots(each_lot(run, job, path, items=False), count)
    present = bytearray(count)
    for slot in numbers_of("I", unseal(places, Place("jobs.places", job), f"{path}: the order of a job's items")):
        present[slot] = 1
    return present


def _prune_stream(run: Run, job: int, count: int, path: str, *, gone: bool) -> tuple[bytearray, int]:
    """Return, by slot, 1 for those that count; and how many items were forgotten."""
    now: dict[int, int] = {}
    present = present_slots(each_lot(run, job, path, items=False), count, now)
    if not gone:
        return present, 0
    outcomes = Outcomes(JobRows(run, job, path), no_file, path, count)
    for slot in outcomes.lost:  # its row is in a file
        outcomes.status[slot] = COMPLETED
    pending = {slot for slot, status in enumerate(outcomes.status) if status == PENDING}
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
