"""How a journal gets smaller: rows are written anew, what is gone is forgotten, and free pages go back to the disk.

A job's rows become few instead of many, without what later ones have replaced, and what is gone. One row at a time is
in memory. Results are moved, not unpickled; but where some of those that were pickled together are dropped, and all of
them are plain data, the others are pickled again. Rows that are not understood stay as they are.

A row that is made of several has the number of the last of them, and says in which row each of its places was first
(``origins``). So who knows what a slot had in a row of some number can tell that from what came later: that has an
origin of a higher number. Numbers are never given twice to rows of a job, so its last one always has a row.

Of items that are gone nothing is known any more, and their slots stay empty: one that comes back is a new one. Of a
stream, those go that have changed since, or are to run again and never came, after another ``version=`` say.

A file has its free pages given back one by one where it was made so (``auto_vacuum``); one of an older version is
written anew once. Both are transactions of SQLite's own: a kill leaves the file as it was.
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
    slots_at,
    written_numbers,
)
from mpqueue._parent.journal.identity import SIZE
from mpqueue._parent.journal.kept_results import Outcomes
from mpqueue._parent.journal.kept_values import Kept, Place, no_file, plain_list, prepare, unseal
from mpqueue._parent.journal.lots import lots_of, named_slots
from mpqueue._parent.journal.matching import BLOCK, NOBODY, Block
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, PENDING

# -- compaction --------------------------------------------------------------------------------------------------------

Run = Callable[..., Any]

#: Bytes of a row up to which it is put together with others; and bytes and items of a row that is made of several.
SMALL, MOST_BYTES, MOST_ITEMS = 64 << 10, 1 << 20, 4096

#: What a row may have that can be put together with others. ``fresh``: what earlier rows say of its items is void.
_KEYS = {"at", "status", "results", "parts", "errors", "history", "failures", "payloads", "output", "fresh", "origins"}
#: Columns of numbers. Rows of journals of version 2 have no ``code``.
_COLUMNS = {**NUMBERS, "code": "I"}
_KEYS |= _COLUMNS.keys()

#: What a row says of single items, by their places in it.
_BY_PLACE = ("history", "failures", "payloads", "output")


class Compacted(NamedTuple):
    """The outcome: how many rows fewer, gone items that were forgotten, files that may go."""

    rows: int = 0
    items: int = 0
    files: frozenset[str] = frozenset()


def present_slots(places: Any, place: Place, count: int, path: str) -> bytearray:
    """By slot, 1 for those that have an item today. Raises `JournalError` where that can't be read."""
    present = bytearray(count)
    for slot in numbers_of("I", unseal(places, place, f"{path}: the order of a job's items")):
        present[slot] = 1
    return present


def compact(run: Run, job: int, slots: int, present: bytearray | None, path: str) -> Compacted:
    """Write the rows of a job anew, within the caller's transaction. Nothing is kept of slots that are not present.

    Raises `JournalError` for a row that is damaged, and what the database raises. Takes 4 bytes a slot.
    """
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
    items = 0 if present is None else forget(run, job, present, path)
    may_go = frozenset() if look.has_more_files else frozenset(files - stay)
    return Compacted(len(rows.numbers) - written, items, may_go)


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
        content, spoken = row.content(what), row.spoken(what)
        return TakenRow(content, slots_at(content["at"]) if spoken is None else spoken, len(row.body))

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
        """As it is written."""
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
        """The row goes with the others; ``whole``: as it was."""
        self._numbers.append(number)
        self._size += size
        self._is_whole = self._is_whole and whole
        self._slots.update(draft.slots)
        self._draft.add(draft)

    def write(self, rows: JobRows) -> int:
        """Write them; returns how many rows that makes. One row that is as it was stays."""
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
        return part._replace(dropped=tuple(sorted(set(range(part.size or 1)).difference(places))))
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


# -- stream pruning ----------------------------------------------------------------------------------------------------


def prune_stream(run: Run, job: int, slots: int, path: str, *, gone: bool) -> Compacted:
    """`compact` a stream's rows, within the caller's transaction; where ``gone``, forget the items that count no more.

    Raises `JournalError` for a row that is damaged. Takes a byte a slot more than `compact`.
    """
    present, now = bytearray(b"\1") * slots, dict[int, int]()
    lots = lots_of(run, job, path)
    for lot in lots:
        for slot in lot.supersedes(now):
            present[slot] = 0
    forgotten: set[int] = set()
    if gone:
        outcomes = Outcomes(JobRows(run, job, path), no_file, path, slots)
        for slot in outcomes.lost:  # whose row is in a file
            outcomes.status[slot] = COMPLETED
        status = outcomes.status
        counted = [slot for lot in lots for at, slot in enumerate(lot.slots) if at not in lot.gone and present[slot]]
        forgotten.update(slot for slot in counted if status[slot] == PENDING)
        firsts = {first for first, last in now.items() if last in forgotten}  # what has changed is known by them
        for lot in lots:
            places = [at for at, slot in enumerate(lot.slots) if slot in forgotten or slot in firsts]
            if places:
                run(*lot.without(places).change(job))
        for slot in range(slots):
            present[slot] &= status[slot] != PENDING
    return compact(run, job, slots, present, path)._replace(items=len(forgotten))


# -- forgotten ---------------------------------------------------------------------------------------------------------

#: What stands for the identity of an item in a damaged row; it is no item's either.
_DAMAGED = b"\1" * SIZE


def forget(run: Run, job: int, present: bytearray, path: str) -> int:
    """Empty the slots that are not ``present``, within the caller's transaction; returns how many were not empty.

    Raises `JournalError` for what is damaged, and what the database raises.
    """
    count = sum(
        _forget_identities(run, job, first, present, path)
        for (first,) in run("SELECT first FROM slots WHERE job = ? ORDER BY first", (job,)).fetchall()
    )
    if count:
        for (number,) in run("SELECT number FROM payloads WHERE job = ?", (job,)).fetchall():
            _forget_payloads(run, job, number, present, path)
    return count


def _forget_identities(run: Run, job: int, first: int, present: bytearray, path: str) -> int:
    """Those of one block of slots."""
    place, place_of_ids = Place("slots", job, first), Place("slots.ids", job, first)
    body, ids = run("SELECT body, ids FROM slots WHERE job = ? AND first = ?", (job, first)).fetchone()
    try:
        block = Block(*unseal(body, place, f"{path}: what the items of a job are"))
    except JournalError:
        slots = present[first : first + BLOCK]
        if any(slots):
            raise
        block, ids = Block(_DAMAGED * len(slots), None), None  # of the items, which are all gone
    gone = [
        at
        for at in range(block.size)
        if not _is_present(present, first + at) and block.identities[at * SIZE : (at + 1) * SIZE] != NOBODY
    ]
    if not gone:
        return 0
    columns = [bytearray(block.identities), None if block.keys is None else bytearray(block.keys)]
    named = None if ids is None else list(unseal(ids, place_of_ids, f"{path}: the ids of a job"))
    for at in gone:
        for column in columns:
            if column is not None:
                column[at * SIZE : (at + 1) * SIZE] = NOBODY
        if named is not None:
            named[at] = None
    identities, keys = (None if column is None else bytes(column) for column in columns)
    left_out = tuple(at for at in block.left_out if at not in gone)
    body = prepare(tuple(block._replace(identities=identities or b"", keys=keys, left_out=left_out))).seal(place)
    ids = None if named is None else prepare(named).seal(place_of_ids)
    run("UPDATE slots SET body = ?, ids = ? WHERE job = ? AND first = ?", (body, ids, job, first))
    return len(gone)


def _forget_payloads(run: Run, job: int, number: int, present: bytearray, path: str) -> None:
    """Those of one row. What was pickled together, and is not plain data, stays until all of it is gone."""
    place = Place("payloads", job, number)
    (body,) = run("SELECT body FROM payloads WHERE number = ?", (number,)).fetchone()
    try:
        named, kept = unseal(body, place, f"{path}: the items of a job")
    except JournalError:
        return  # it says nothing
    slots = named_slots(named, len(present))
    gone = [at for at, slot in enumerate(slots) if not _is_present(present, slot)]
    if not gone:
        return
    if len(gone) == len(slots):
        kept = [None] * len(slots)
    elif isinstance(kept, tuple):
        kept = _plain_without(Kept(*kept), gone)
    else:
        kept = [None if at in gone else one for at, one in enumerate(kept)]
    if kept is not None:
        run("UPDATE payloads SET body = ? WHERE number = ?", (prepare((named, kept)).seal(place), number))


def _plain_without(kept: Kept, gone: Sequence[int]) -> tuple[Any, ...] | None:
    values = plain_list(kept)
    if values is None:
        return None
    for at in gone:
        values[at] = None
    return tuple(Kept(pickle.dumps(values, pickle.HIGHEST_PROTOCOL)))


def _is_present(present: bytearray, slot: int) -> bool:
    """True too for a slot that does not count (yet)."""
    return slot >= len(present) or bool(present[slot])


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
