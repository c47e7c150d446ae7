"""Reading a journal, even while a program writes it: each look uses its own read-only connection.

All data of one look are of one moment: it is one transaction of SQLite. Data that belongs together, such as a job's
line, the order of its items and their outcomes, is read in one look, see `Reader.at_once`. The files of big values are
outside of that: if a look names one that was removed since it began, the look is repeated.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import sqlite3
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from mpqueue._core.state.item_table import DISCARD, ItemTable
from mpqueue._core.state.timings import PastRun
from mpqueue._os.files import NO_LINKS, kind_of, open_file
from mpqueue._parent.journal.checks import Mark, check_own, check_stat, is_held, marked
from mpqueue._parent.journal.chunk_rows import TableFiller, WrittenRow, numbers_of
from mpqueue._parent.journal.journal_file import (
    PART,
    column_to_text,
    explained,
    folder_of,
    found_instead,
    open_to_read,
    text_to_column,
)
from mpqueue._parent.journal.kept_results import NO_ROW, KeptResults, Outcomes
from mpqueue._parent.journal.kept_values import CHECK, ChangedError, Place, unseal
from mpqueue._parent.journal.lots import Damaged, Lot, present_slots, read_lot, unknown_lot
from mpqueue._parent.journal.matching import KnownStream
from mpqueue._parent.journal.schema import (
    COLUMNS,
    GROWING,
    SAID,
    VERSION,
    ConvertedCopy,
    check_version,
    damaged_line,
    is_whole,
)
from mpqueue._parent.journal.suspects import read_marks, suspect_of
from mpqueue._wire.item_names import IdRule
from mpqueue.errors import JournalError
from mpqueue.status import OVER, JobKind, JobStatus

log = logging.getLogger("mpqueue")


@dataclass(frozen=True, slots=True)
class RecordedJob:
    """A job's line: all but its items."""

    number: int
    id: str
    total: int
    rule: str
    seed: int
    created_at: float
    status: JobStatus
    started_at: float | None
    finished_at: float | None
    duration: float | None
    completed: int
    failed: int
    retries: int
    version: str | None  #: of its handler, set by the user
    python: str | None
    count: int  #: how many slots it has
    handler_name: str | None
    kind: JobKind = JobKind.LIST
    cpu: float | None = None  #: CPU seconds of the workers in its last run
    ran: int | None = None  #: items that ran in it
    uses: str | None = None  #: its items' needs, as JSON; null if functions give them
    label: str | None = None  #: the key or attribute that names its items
    order: object = None  #: changes when its items have come in another order
    code: object = None  #: changes when its handler has come with other code

    @property
    def past(self) -> PastRun | None:
        """Its last run."""
        if self.started_at is None:
            return None
        return PastRun(self.started_at, self.duration, self.cpu, self.ran)


class _Look(NamedTuple):
    """One look at the tables, in the form of the newest version."""

    execute: Callable[..., sqlite3.Cursor]
    check: Callable[[], None]  #: raises `ChangedError` if the look is not consistent any more

    def names(self, file: str) -> bool:
        """True if a file of a big value belongs to a job."""
        return self.execute("SELECT 1 FROM files WHERE name = ?", (file,)).fetchone() is not None


_LINES = f"SELECT {SAID}, seal, substr(places, 1, {CHECK}), substr(codes, 1, {CHECK}) FROM jobs"  # noqa: S608

#: The file's number, its size and the time of its last change.
FileState = tuple[int, int, int]
#: The most tries to look at a file that changes meanwhile.
TRIES = 5

P = ParamSpec("P")
T = TypeVar("T")


def _in_one_look(question: Callable[Concatenate[Reader, P], T]) -> Callable[Concatenate[Reader, P], T]:
    """Run a method by `Reader.at_once`."""

    @functools.wraps(question)
    def ask(reader: Reader, /, *arguments: P.args, **named: P.kwargs) -> T:
        return reader.at_once(lambda: question(reader, *arguments, **named))

    return ask


class _Current(threading.local):
    """The current look of this thread; for an older journal, its copy, and the state of the file that it is of."""

    look: _Look | None = None
    converted: tuple[object, ConvertedCopy] | None = None


class Reader:
    """Any thread, any process. Every method raises `JournalError` for unreadable data, and changes nothing."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._complained: set[tuple[str, str]] = set()
        self._has_looked = False  #: whether all written data was found
        self._current = _Current()

    @property
    def in_use(self) -> bool:
        """True while a queue, of any process, writes it."""
        return is_held(self.path)

    def at_once(self, question: Callable[[], T]) -> T:
        """Run a function in one look: all that it reads through this reader, on this thread, is of one moment.

        It runs again if the journal has changed such that the look is inconsistent: so it must change only what it
        makes itself. Writers do not wait for it; their log grows meanwhile.
        """
        if self._current.look is not None:
            return question()
        for left in reversed(range(TRIES)):
            try:
                with self._open() as look:
                    self._current.look = look
                    try:
                        return question()
                    finally:
                        self._current.look = None
            except ChangedError as error:
                if not left:
                    raise JournalError(str(error)) from None
        raise AssertionError

    def _each(self, query: str, *arguments: Any) -> Iterator[tuple[Any, ...]]:
        """Yield what a query finds in the current look of this thread. Call it within `at_once`."""
        look = self._current.look
        assert look is not None
        with explained(self.path):
            yield from look.execute(query, arguments)

    def _lines(self, which: str, *arguments: Any) -> list[RecordedJob]:
        """Return these lines of jobs. Raises `JournalError` for one that is damaged."""
        found = []
        with explained(self.path):
            for *said, seal, order, code in self._each(f"{_LINES} {which}", *arguments):
                if not is_whole(said, seal):
                    raise damaged_line(self.path, said[0])
                found.append(_job([*said[: len(COLUMNS)], order, code]))
        return found

    @contextlib.contextmanager
    def _open(self) -> Iterator[_Look]:
        """Open a new look. Raises `ChangedError` at its end, or before, if it was inconsistent."""
        with contextlib.ExitStack() as opened:
            with explained(self.path):
                look = self._begin(opened)
            yield look

    def _begin(self, opened: contextlib.ExitStack) -> _Look:
        check_own(self.path)
        if not os.path.exists(self.path):
            raise JournalError(f"{self.path}: expected a journal, got a name that is not there")
        if not os.path.isfile(self.path):
            raise JournalError(f"{self.path}: expected a file, got {kind_of(os.stat(self.path))}; it is left as it is")
        if not os.path.getsize(self.path):
            raise JournalError(f"{self.path}: expected a journal, got an empty file; it is left as it is")
        mark = None if self._has_looked else marked(self.path)  # first: it may be written meanwhile
        has_log = os.path.exists(f"{self.path}-wal")
        check = opened.enter_context(self._unchanged(has_log=has_log))
        connection = opened.enter_context(contextlib.closing(open_to_read(self.path, has_log=has_log)))
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("BEGIN")
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        check_version(self.path, application, version)
        if not self._has_looked:
            self._look_for_loss(mark, connection, check)
        if version < VERSION:
            state, current = self.state(), self._current
            if current.converted is None or current.converted[0] != state:
                current.converted = state, ConvertedCopy(connection)
            connection = current.converted[1].connection
        return _Look(connection.execute, check)

    @contextlib.contextmanager
    def _unchanged(self, *, has_log: bool) -> Iterator[Callable[[], None]]:
        """Raise `ChangedError` if the file had no log, so that SQLite does not look for changes, and changed.

        It does so too if the file could not be read since its log is gone. Yields a function that checks earlier.
        """
        before = None if has_log else self.state()

        def check() -> None:
            if before is not None and (before[1] is not None or self.state() != before):
                raise self._changed()

        try:
            yield check
        except Exception:
            if has_log and self.state()[1] is None:
                raise self._changed() from None
            raise
        finally:
            check()

    def _changed(self) -> ChangedError:
        return ChangedError(f"{self.path}: it was written while it was read, several times; read it again")

    def state(self) -> tuple[FileState | None, FileState | None]:
        """Return facts that change with the file, and with its log; None for one that is not there."""
        return _state_of(self.path), _state_of(f"{self.path}-wal")

    def _warn(self, text: str, *arguments: object) -> None:
        """Log a warning, unless it comes from the file's being written: then the look has to be repeated."""
        if self._current.look is not None:
            self._current.look.check()
        log.warning(text, *arguments)

    def _look_for_loss(self, mark: Mark | None, connection: sqlite3.Connection, check: Callable[[], None]) -> None:
        """Log once which data is missing: a queue would refuse the journal."""
        found = "" if mark is None else found_instead(mark, connection)
        check()
        self._has_looked = True
        if found and mark is not None:
            log.warning("%s: expected all %d commits of process %d, got %s: the file, or its log %s-wal, was damaged "
                        "or replaced; what is shown is what is left",
                        self.path, mark.commits, mark.pid, found, self.path)  # fmt: skip

    @_in_one_look
    def jobs(self) -> list[RecordedJob]:
        """All jobs, in the order in which they were created."""
        return [line for line in self._lines("ORDER BY number") if line.total >= 0]

    @_in_one_look
    def find(self, job_id: str) -> RecordedJob | None:
        """The job of that id. Goes through all jobs; a writer has `Journal.find`."""
        # Without the index, which may be damaged: jobs that `jobs` lists are found here, or reported as damaged.
        found = self._lines("NOT INDEXED WHERE id = ?", text_to_column(job_id)) or self.jobs()
        return next((line for line in found if line.id == job_id and line.total >= 0), None)

    @_in_one_look
    def line(self, number: int) -> RecordedJob | None:
        """Return the job of that number, even if it does not count yet: its ``total`` is negative then."""
        return next(iter(self._lines("WHERE number = ?", number)), None)

    @_in_one_look
    def places(self, job: RecordedJob) -> array[int] | None:
        """Return the slots of its items, in their order; None if they are all slots."""
        data = self._value("places", job)
        if data is None:
            return None
        places: array[int] = numbers_of("I", data)
        return places

    def lots(self, job: RecordedJob, *, items: bool) -> Iterator[Lot]:
        """Yield a job's lots, and (``items``) the items themselves with their ids. Call it within `at_once`.

        A damaged lot is unknown: its items are new, and its slots those of items that are gone. But an open job, whose
        items may never come again, must have all its items. Raises `JournalError`.
        """
        end, has_holes = 0, job.kind is JobKind.STREAM  # of lots that could not be written
        what = "first, count, body, items" if items else "first, count, body, NULL"
        query = f"SELECT {what} FROM lots WHERE job = ? AND first < ? ORDER BY first"  # noqa: S608
        for first, size, *bodies in self._each(query, job.number, job.count):
            if first > end and not has_holes:
                yield self._unknown(job, end, first - end)
            try:
                lot = read_lot((first, size, *bodies), job.number, self.path)
            except JournalError:
                lot = self._unknown(job, first, size)
            if job.kind is JobKind.OPEN and items and not lot.parts:
                lot = self._unknown(job, first, size)
            yield lot
            end = first + size
        if end < job.count and not has_holes:
            yield self._unknown(job, end, job.count - end)

    def _unknown(self, job: RecordedJob, first: int, size: int) -> Lot:
        if job.kind is JobKind.OPEN:
            raise JournalError(
                f"{self.path}: expected the items of {job.count} slots of job {job.id!r}, got damaged ones from slot "
                f"{first} on; it is left as it is"
            )
        what = f"what {size} items are is damaged: they count as gone, and as new if they come; prune() ends this"
        self._complain(job, what)
        return unknown_lot(first, size)

    @_in_one_look
    def lot_with(self, job: RecordedJob, slot: int) -> Lot:
        """Return the items' lot that has this slot. Raises `JournalError`."""
        query = "SELECT first, count, body, items FROM lots WHERE job = ? AND first <= ? ORDER BY first DESC LIMIT 1"
        return read_lot(next(self._each(query, job.number, slot)), job.number, self.path)

    def _complain(self, job: RecordedJob, what: str) -> None:
        """Log once for each job that a part of it is damaged."""
        if (job.id, what) not in self._complained:
            self._warn("job %r in %s: %s", job.id, self.path, what)
            self._complained.add((job.id, what))

    def items(self, job: RecordedJob, lots: Iterable[Lot]) -> tuple[list[Any], list[Any]]:
        """Return the items of its lots and their ids, by slots. Stand-ins represent damaged items."""
        items: list[Any] = []
        ids: list[Any] = []
        for lot in lots:
            missing = [None] * (lot.first - len(items))
            items += [*missing, *lot.items(self.read_file)]
            ids += [*missing, *(lot.all_ids() or [None] * lot.size)]
        lost = sum(type(item) is Damaged for item in items)
        if lost:
            self._complain(job, f"{lost} items are damaged; they can't be shown, or run again without their program")
        return items, ids

    def handler(self, job: RecordedJob) -> Any:
        """Return its recorded handler, None if it was not kept."""
        return self._value("handler", job)

    @_in_one_look
    def suspects(self, number: int) -> dict[int, int]:
        """Return how far items of a job are suspected of ending their program, by slots; empty for an ended job.

        If that is damaged, counting starts again. It also counts the end of the last program, once.
        """
        row = next(self._each("SELECT status, suspects FROM jobs WHERE number = ?", number), None)
        if row is None or row[0] in OVER:
            return {}
        counts: dict[int, int] = {}
        if row[1] is not None:
            try:
                counts = dict(unseal(row[1], Place("jobs.suspects", number), self.path))
            except JournalError:
                self._warn("%s: which items may have ended programs is damaged; that is counted anew", self.path)
        return counts if self.in_use else suspect_of(counts, number, read_marks(self.path))

    def codes(self, job: RecordedJob) -> list[tuple[Any, ...]]:
        """Return the codes that made its results, each as the arguments of a `Code`; the handler's is the last."""
        try:
            return list(self._value("codes", job) or ())
        except JournalError as error:
            self._complain(job, f"with which code its results were made is damaged: {error}")
            return [("damaged", {}, {})]

    @_in_one_look
    def _value(self, column: str, job: RecordedJob) -> Any:
        row = next(self._each(f"SELECT {column} FROM jobs WHERE number = ?", job.number), None)  # noqa: S608
        if row is None:
            raise self._removed(job)
        place = Place(f"jobs.{column}", job.number)
        return None if row[0] is None else unseal(row[0], place, f"{self.path}: the {column} of job {job.id!r}")

    @_in_one_look
    def now(self, job: RecordedJob) -> RecordedJob:
        """Return the job's line in this look. Raises `JournalError` if the job has been removed."""
        line = self.line(job.number)
        if line is None:
            raise self._removed(job)
        return line

    def _removed(self, job: RecordedJob) -> JournalError:
        return JournalError(f"{self.path}: expected job {job.id!r}, which has been removed from it")

    @_in_one_look
    def table(self, job: RecordedJob) -> ItemTable:
        """Return the job's items in their states, with the kept payloads; those of a stream in the order of their ends.

        All of it is of this look, even if the job's line was read earlier.
        """
        job = self.now(job)
        items, ids = self.items(job, self.lots(job, items=True))
        slots = self.places(job)
        if job.kind in GROWING:
            present = present_slots(self.lots(job, items=False), job.count)
            if job.kind is JobKind.STREAM:
                outcomes = self.outcomes(job)
                for slot, row in enumerate(outcomes.row):
                    present[slot] &= row != NO_ROW or slot in outcomes.lost  # shown as if it had not run
            if not all(present):
                slots = array("I", compress(range(job.count), present))
        if slots is not None:
            items, ids = [items[slot] for slot in slots], [ids[slot] for slot in slots]
        rule = IdRule(job.rule)
        if job.kind is JobKind.STREAM and ids and None not in ids:
            rule = IdRule.KEY
        table = ItemTable(items, None if rule is IdRule.POSITION else ids, rule)
        table.slots = slots
        _, lost = self.fill(table, job, checked=False)
        if lost:
            self._warn("job %r: the outcomes of %d items are damaged in %s; they are shown as if they had not run",
                       job.id, len(lost), self.path)  # fmt: skip
        return table

    @_in_one_look
    def passed(self, job: int) -> list[tuple[Any, ...]]:
        """Return the rows of values on their way between the stages of the job of that number, with their numbers."""
        return [*self._each("SELECT row, body FROM passed WHERE job = ? ORDER BY row", job)]

    @_in_one_look
    def known_items(self, job: RecordedJob) -> tuple[KnownStream, Outcomes]:
        """Return a stream's known items and their outcomes. Takes 21 bytes per item."""
        outcomes = self.outcomes(job)
        if outcomes.damaged:
            self._complain(job, f"how some of its items ended is damaged, so these run again: {outcomes.damaged}")
        return KnownStream(self.lots(job, items=False), outcomes), outcomes

    @_in_one_look
    def outcomes(self, job: RecordedJob, into: TableFiller | None = None) -> Outcomes:
        """Return how its items have ended, by slots. Takes 4 bytes per slot."""
        outcomes = Outcomes(self.read_file, self.path, job.count, into)
        for row in self.rows(job.number):
            outcomes.read(row)
        return outcomes

    def fill(self, table: ItemTable, job: RecordedJob, *, checked: bool) -> tuple[Outcomes, list[int]]:
        """Write its items' outcomes into the table; returns them, and the indices of items without a readable one.

        If they are ``checked``, each result is read once, and kept only if the table has a sink; one that can't be read
        later is an error. Call it within `at_once`, with a table that has no outcomes.
        """
        table.source = source = KeptResults(self, job.number, job.id, strict=checked)
        keep = None if table.sink is None or table.sink is DISCARD else source.keep
        filler = TableFiller(table, job.count, self.read_file, checked=checked, keep=keep)
        outcomes = self.outcomes(job, filler)
        return outcomes, sorted(filler.unreadable.union(filler.present(outcomes.lost)))

    def rows(self, job: int) -> Iterator[WrittenRow]:
        """Yield a job's rows, in the order in which they were written. Call it within `at_once`."""
        for row in self._each("SELECT number, body, slots FROM chunks WHERE job = ? ORDER BY number", job):
            yield WrittenRow(job, *row)

    @_in_one_look
    def row(self, job: int, number: int) -> WrittenRow | None:
        """Return a job's row of that number; None if it is not there."""
        found = self._each("SELECT number, body, slots FROM chunks WHERE number = ? AND job = ?", number, job)
        return next((WrittenRow(job, *row) for row in found), None)

    @_in_one_look
    def size_of(self, number: int) -> int:
        """Return the bytes of the outcomes of a job's items, with their files; 0 if there is no such job."""
        rows = "SELECT coalesce(sum(length(body)), 0) FROM chunks WHERE job = ?"
        files = "SELECT coalesce(sum(size), 0) FROM files WHERE job = ?"
        return sum(int(next(self._each(query, number))[0]) for query in (rows, files))

    @_in_one_look
    def names(self, job: RecordedJob) -> list[Any]:
        """Return by slots, also for items that are gone: ids, or, if these are positions, the items."""
        items, ids = self.items(job, self.lots(job, items=True))
        return items if job.rule == IdRule.POSITION else ids

    def read_file(self, name: str) -> bytes:
        """Read a big value's file. Raises OSError, and `JournalError` for a file that another user has put there."""
        path = folder_of(self.path) / os.path.basename(name)
        for each in (path, Path(f"{path}{PART}"), path):  # it may be getting its name just now
            with contextlib.suppress(FileNotFoundError):
                return _read(each)
        look = self._current.look
        if look is not None and look.names(name) and not self._names_now(name):
            raise self._changed()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    def _names_now(self, file: str) -> bool:
        with self._open() as look:
            return look.names(file)


def _state_of(file: str) -> FileState | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> bytes:
    with open(open_file(path, os.O_RDONLY | NO_LINKS), "rb") as file:
        check_stat(str(path), os.fstat(file.fileno()))
        return file.read()


def _job(fields: list[Any]) -> RecordedJob:
    """Return the job of a line, which is as it was written."""
    fields[17] = JobKind(fields[17])
    for at in (1, 13, 16, 21):  # names that users have given
        fields[at] = None if fields[at] is None else column_to_text(fields[at])
    fields[4], fields[6] = int(fields[4], 16 if fields[4].startswith("0x") else 10), JobStatus(fields[6])
    return RecordedJob(*fields)
