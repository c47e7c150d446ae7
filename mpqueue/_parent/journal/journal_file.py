"""The file: an SQLite database in WAL mode, and a folder beside it for big values.

Each call of `write` is one transaction, on disk when it returns (``synchronous=FULL``). The connection belongs to the
journal's writer; readers open their own, see `mpqueue._parent.journal.journal_reader`.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mpqueue._os.files import NO_LINKS, kind_of, open_file, sync_folder
from mpqueue._parent.journal.checks import HeldFiles, Mark, MovedError, check_stat
from mpqueue._parent.journal.chunk_rows import Row, chunk_statement
from mpqueue._parent.journal.compaction import AUTO_VACUUM, Compacted, end_log, give_back, make_shrinkable, prune
from mpqueue._parent.journal.kept_values import VALUE, BigFile, Place, Statement, Unsealed
from mpqueue._parent.journal.lots import Lot
from mpqueue._parent.journal.schema import (
    APPLICATION,
    COLUMNS,
    OWNED,
    SAID,
    SCHEMA,
    VERSION,
    check_version,
    convert,
    is_whole,
    keep_copy,
    seal_lines,
)
from mpqueue._whole_file import whole_file
from mpqueue.errors import JournalError

log = logging.getLogger("mpqueue")

JOBS = f"SELECT {SAID}, seal FROM jobs NOT INDEXED"  # noqa: S608
WRITTEN_BY = """INSERT INTO written_by (at, mpqueue, python, host, program)
VALUES ((julianday('now') - 2440587.5) * 86400.0, ?, ?, ?, ?)"""
#: The most lines of writers that are kept.
MOST_WRITERS = 1000
FORGET_WRITERS = f"DELETE FROM written_by WHERE number <= (SELECT max(number) FROM written_by) - {MOST_WRITERS}"  # noqa: S608

OPENED = "SELECT number, at FROM written_by WHERE number = last_insert_rowid()"
COMMITTED = "UPDATE written_by SET commits = ? WHERE number = ?"

#: The suffix of a big value's file while no row on disk names it.
PART = ".part"

Connect = Callable[[str], Any]


def connect(path: str) -> sqlite3.Connection:
    """Make a connection that any one thread at a time may use, without transactions of its own."""
    return _connect(path, timeout=10.0)


def _connect(address: str, **how: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = sqlite3.connect(address, isolation_level=None, check_same_thread=False, **how)
    connection.text_factory = _to_text
    return connection


def folder_of(path: str) -> Path:
    """Return the folder with the big values of a journal."""
    return Path(f"{path}.files")


def text_to_column(text: str) -> str | bytes:
    """Return a text in SQLite's form: with a lone surrogate (of a file's name) in it, as bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")
    return text


def column_to_text(column: str | bytes) -> str:
    """Return the text again."""
    return column if isinstance(column, str) else column.decode(errors="surrogatepass")


class Store:
    """The journal's file, opened for writing. Raises `JournalError`, without a change, if it is no journal.

    ``left`` is the least that a process that did not close it had written; ``mark`` gets how much is on disk, after
    each commit.
    """

    def __init__(
        self,
        path: str,
        connect: Connect = connect,
        left: Mark | None = None,
        mark: Callable[[Mark], object] = lambda _: None,
    ) -> None:
        self.path = path
        self._connect = connect
        self._mark = mark
        self._folder_is_safe = False
        self._is_open = True  #: False while a file whose log was removed can't be opened again
        with explained(path):
            version = _check(path, left)
            if version is None:
                _create(path, connect)
                version = VERSION
            self._connection = connect(path)
            try:
                self._prepare(version)
                self._files = HeldFiles(path)
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self, version: int) -> None:
        execute = self._connection.execute
        _set_up(self.path, execute)
        self._opening: Mark | None = None  #: the part written since it was opened
        if version < VERSION:
            with contextlib.closing(open_to_read(self.path, has_log=True)) as whole:
                keep_copy(whole, f"{self.path}.v{version}")
            with self._transaction() as run:
                convert(self._connection)
                run(f"PRAGMA user_version={VERSION}")
        else:
            execute("BEGIN IMMEDIATE")  # a file that can't be written is refused now
            execute("ROLLBACK")
        seal_lines(self._connection)
        last: int = execute("SELECT coalesce(max(number), 0) FROM chunks").fetchone()[0]
        self._chunks = itertools.count(last + 1)
        #: The numbers of the jobs, by their ids in the file; changed by one thread.
        self.numbers: dict[str | bytes, int] = {}
        # From the table itself: its index may be damaged. Numbers of jobs with damaged lines.
        self.damaged: set[int] = set()
        for *said, seal in execute(JOBS).fetchall():
            line = dict(zip(COLUMNS, said, strict=False))
            number = line["number"]
            self.numbers.setdefault(line["id"], number)
            if not is_whole(said, seal):
                self.damaged.add(number)
            elif line["total"] < 0:
                self.remove_job(number)  # its maker ended before it was complete
        self._settle_files()

    def write(self, statements: Iterable[Statement], files: Sequence[tuple[BigFile, int]] = ()) -> None:
        """Write all of this or nothing; it is on disk afterwards. ``files`` come with their jobs' numbers.

        Raises `sqlite3.Error` or OSError, without a change to data that is read.
        """
        if files:
            self._write_files([file for file, _ in files])
        named: list[Statement] = [
            ("INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?)", (file.name, job, file.size, file.digest))
            for file, job in files
        ]
        self._transact([*statements, *named])
        folder = folder_of(self.path)
        for file, _ in files:
            with contextlib.suppress(OSError):
                (folder / f"{file.name}{PART}").replace(folder / file.name)

    def check_in_place(self) -> None:
        """Raise `MovedError` if a file of the journal was moved, removed or exchanged. Takes a few microseconds.

        If only the log was removed, its content is saved, and a new one is made.
        """
        if not self._is_open:
            self._reopen()
        try:
            self._files.check()
        except MovedError:
            if not self._files.only_log_is_gone:
                raise
            self._save_log()
            log.warning("%s: its log was removed while it was open; nothing of it is lost, and it goes on", self.path)

    def _save_log(self) -> None:
        """Move the log's content into the file, while it is open; go on with a new one."""
        busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        if busy:
            raise MovedError(f"expected to save the log {self.path}-wal, which was removed, got readers in the way")
        self._close_files()
        self._is_open = False
        self._reopen()

    def _reopen(self) -> None:
        """Open the file again, with a new log. If that fails, for lack of a descriptor, the next check does it."""
        self._connection = self._connect(self.path)
        try:
            self._check_same()
            _set_up(self.path, self._connection.execute)
            seal_lines(self._connection)
            self._transact([])  # makes the log
            self._files = HeldFiles(self.path)
        except BaseException:
            self._connection.close()
            raise
        self._is_open = True

    def _check_same(self) -> None:
        """Raise `MovedError` if the file was exchanged while it was not held."""
        found = "" if self._opening is None else found_instead(self._opening, self._connection)
        if found:
            raise MovedError(f"expected the {self.path} that was opened, got {found} there; put it back")

    def _close_files(self) -> None:
        self._files.let_go()
        self._connection.close()
        self._files.close()

    def next_chunk(self) -> int:
        """Return the number of the next row of ``chunks``; any thread. A job's rows are read in order of number."""
        return next(self._chunks)

    def _transact(self, statements: Sequence[Statement]) -> None:
        with self._transaction() as run:
            for sql, arguments in statements:
                run(sql, arguments)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Run a transaction: all of the block is done, or nothing."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            yield execute
            opening = self._opening or _begin(execute)
            opening = opening._replace(commits=opening.commits + 1)
            execute(COMMITTED, (opening.commits, opening.number))
            execute("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):  # a full disk has rolled it back already
                execute("ROLLBACK")
            raise
        self._opening = opening
        self._mark(opening)

    def _write_files(self, files: Sequence[BigFile]) -> None:
        folder = folder_of(self.path)
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            self._folder_is_safe = False
        if not self._folder_is_safe:  # even if another program has made it, and ended before this
            sync_folder(folder.parent)
            self._folder_is_safe = True
        for file in files:
            with whole_file(folder / f"{file.name}{PART}", 0o600) as written:
                for each in file.parts:
                    written.write(each)
        sync_folder(folder)

    def put_job(
        self, number: int | None, columns: dict[str, Any], lots: Iterable[Lot] = (), rows: Iterable[Row] = ()
    ) -> int:
        """Add a job (``number`` None) or change one, with its lots and rows, in one transaction; returns its number.

        Its unsealed parts are sealed here.
        """
        columns = {name: text_to_column(one) if isinstance(one, str) else one for name, one in columns.items()}
        with self._transaction() as run:
            is_new = number is None
            if number is None:
                number = _next(run("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'"))
            values = [
                value.seal(Place(f"jobs.{name}", number)) if isinstance(value, Unsealed) else value
                for name, value in columns.items()
            ]
            if is_new:
                names, marks = ", ".join(columns), ", ".join("?" * len(columns))
                run(f"INSERT INTO jobs (number, {names}) VALUES (?, {marks})", (number, *values))  # noqa: S608
            elif columns:
                changes = ", ".join(f"{name} = ?" for name in columns)
                run(f"UPDATE jobs SET {changes} WHERE number = ?", (*values, number))  # noqa: S608
            for lot in lots:
                run(*lot.put(number))
            for row in rows:
                run(*chunk_statement(self.next_chunk(), number, row))
        if is_new:
            self.numbers[columns["id"]] = number
        return number

    def remove_job(self, number: int) -> None:
        """Remove a job with all its data. At most 8 MB of its space are given back to the disk at once."""

        def remove(run: Any) -> Collection[str]:
            names = [row[0] for row in run("SELECT name FROM files WHERE job = ?", (number,))]
            for owned in OWNED:
                run(f"DELETE FROM {owned} = ?", (number,))  # noqa: S608
            return names

        ids = self._connection.execute("SELECT id FROM jobs WHERE number = ?", (number,)).fetchall()
        known = {job_id: number for (job_id,) in ids if self.numbers.get(job_id) == number}
        for job_id in known:  # first: a line that may be gone is not looked for
            del self.numbers[job_id]
        try:
            self._rewrite(remove)
        except BaseException:
            self.numbers |= known
            raise
        with contextlib.suppress(sqlite3.Error):  # it is removed in any case
            give_back(self._connection)

    def compact_job(self, number: int, *, gone: bool) -> Compacted:
        """Merge a job's rows, all or nothing; with ``gone`` without items that are gone.

        Raises `JournalError` for damaged rows, and `sqlite3.Error`.
        """
        found = Compacted()

        def rewrite(run: Any) -> Collection[str]:
            nonlocal found
            query = "SELECT slots, places, kind FROM jobs WHERE number = ?"
            line = run(query, (number,)).fetchone()
            if line is not None:  # otherwise it was removed meanwhile
                found = prune(run, number, line, self.path, gone=gone)
            return found.files

        self._rewrite(rewrite)
        return found

    def _rewrite(self, change: Callable[[Any], Collection[str]]) -> None:
        """Run a change in one transaction; it returns the files that are no longer needed, which are removed."""
        folder = folder_of(self.path)
        with self._transaction() as run:
            names = change(run)
            for name in names:
                run("DELETE FROM files WHERE name = ?", (name,))
                with contextlib.suppress(OSError):  # if the program ends now, the next one knows that it may be removed
                    (folder / name).replace(folder / f"{name}{PART}")
        for name in names:
            with contextlib.suppress(OSError):
                (folder / f"{name}{PART}").unlink()

    def make_shrinkable(self) -> None:
        """Let free pages be given back from now on, see `mpqueue._parent.journal.compaction.make_shrinkable`."""
        make_shrinkable(self._connection, self.path)

    def shrink(self) -> int:
        """Give free pages back to the disk, some at a time; returns how many are left. Raises `sqlite3.Error`."""
        left = give_back(self._connection)
        if not left:
            end_log(self._connection)
        return left

    @property
    def size(self) -> int:
        """The journal's bytes on disk, with its log and the files of big values."""
        folder = folder_of(self.path)
        beside = [*folder.iterdir()] if folder.is_dir() else []
        found = [file.stat() for file in (Path(self.path), Path(f"{self.path}-wal"), *beside) if file.exists()]
        return sum(each.st_size for each in found)

    def _settle_files(self) -> None:
        """Make the files of big values agree with the rows.

        A file that is still a part is removed, unless a row names it: the program ended before it was named, or after
        it no longer was. A file with its own name was in a row. If it is in none, the journal is an older copy: the
        file is kept.
        """
        folder = folder_of(self.path)
        if not folder.is_dir():
            return
        named, unknown = {row[0] for row in self._connection.execute("SELECT name FROM files")}, 0
        for found in folder.iterdir():
            if found.suffix == PART:
                with contextlib.suppress(OSError):
                    if found.stem in named:
                        found.replace(folder / found.stem)
                    else:
                        found.unlink()
            elif found.suffix == VALUE and found.name not in named:
                unknown += 1
        if unknown:
            log.warning("%s: %d files in %s belong to results that it does not have, as if it was an older copy; they "
                        "are kept", self.path, unknown, folder)  # fmt: skip

    def close(self) -> None:
        """Close the file; its log's content goes into it. If it was moved, the log is left beside it."""
        try:
            self.check_in_place()
        except MovedError:
            self._connection.close()  # while the file is held: so SQLite does not remove the one with its name now
            self._files.close()
        else:
            self._close_files()
        with contextlib.suppress(OSError):
            folder_of(self.path).rmdir()  # only if it is empty


@contextlib.contextmanager
def explained(path: str) -> Any:
    """Raise errors of SQLite or the system about this journal, or invalid values in it, as `JournalError`."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, TypeError) as error:  # SQLite's message may be no text
        raise JournalError(f"{path}: {describe(error)}; it is left as it is") from error


def describe(error: BaseException) -> str:
    """Describe the fault of a journal, for people."""
    text = str(error)
    if isinstance(error, MovedError):
        return text
    if "not a database" in text:
        return "expected a journal, got a file of another kind"
    if "malformed" in text or isinstance(error, ValueError | TypeError):
        return f"expected a whole journal, got a damaged one ({text})"
    if "readonly" in text or "read-only" in text or "unable to open" in text:
        return f"expected a journal that can be written, in a folder that can be, got {text!r}"
    if "full" in text or "No space left" in text:
        return f"expected room on the disk to write it, got {text!r}"
    return f"expected a journal that can be read and written, got {text!r}"


def open_to_read(path: str, *, has_log: bool) -> sqlite3.Connection:
    """Make a connection that can't write, and makes no files. Raises `sqlite3.Error`.

    A journal that is being written, or was when its program ended, has its log beside it; otherwise nothing changes it
    now, and SQLite gets a flag for that, since it would make an empty log to read it.
    """
    how = "mode=ro" if has_log else "mode=ro&immutable=1"
    return _connect(address_of(path, how), uri=True, timeout=10.0)


def address_of(path: str, how: str) -> str:
    """Return the URI by which SQLite opens the file in that mode.

    It has the system's form of the path: SQLite can't open the URIs of `Path.as_uri` for Windows shares, or for paths
    that Windows takes literally.
    """
    return f"file:{quote(os.fsencode(Path(path).absolute()), safe='')}?{how}"


def _to_text(content: bytes) -> str:
    """Return a text of SQLite. A body becomes one if a bit of its type was flipped: reading reports the damage."""
    return content.decode(errors="surrogateescape")


def _next(found: Any) -> int:
    """Return the number after the one that was found; 1 if there was none."""
    row = found.fetchone()
    return 1 if row is None or row[0] is None else row[0] + 1


def _begin(execute: Any) -> Mark:
    """Record the writer, with the first write: a journal that is refused, or only viewed, stays unchanged."""
    execute(WRITTEN_BY, _writer())
    number, at = execute(OPENED).fetchone()
    execute(FORGET_WRITERS)
    return Mark(os.getpid(), number, at)


def _writer() -> tuple[str, str, str, str]:
    """Describe the writer, for people."""
    program = sys.argv[0].encode(errors="replace").decode() if sys.argv else ""
    package = sys.modules[__name__.partition(".")[0]]
    return package.__version__, sys.version.split()[0], socket.gethostname(), program


def _check(path: str, left: Mark | None) -> int | None:
    """Return the journal's version; None if there is no journal yet.

    Raises `JournalError` for other files, and for a journal that has lost data.
    """
    if not os.path.exists(path):
        if not os.path.isdir(os.path.dirname(path)):
            raise JournalError(f"{path}: expected a folder that is there, got {os.path.dirname(path)!r}")
        _check_new(path, left, "nothing of that name")
        return None
    if not os.path.isfile(path):
        raise JournalError(f"{path}: expected a file, got {kind_of(os.stat(path))}; it is left as it is")
    if os.path.getsize(path) == 0:  # it must not be opened: SQLite removes the log of an empty file
        _check_new(path, left, "an empty file")
        return None
    with contextlib.closing(open_to_read(path, has_log=os.path.exists(f"{path}-wal"))) as connection:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if (
            application == 0
            and version == 0
            and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        ):
            _check_new(path, left, "an empty database")
            return None
        check_version(path, application, version)
        if left is not None and (found := found_instead(left, connection)):
            raise _lost(path, left, found)
    return int(version)


def _check_new(path: str, left: Mark | None, found: str) -> None:
    """Raise `JournalError` if a file beside the path shows that there was a journal."""
    if left is not None and left.commits:
        raise _lost(path, left, found)
    folder = folder_of(path)
    if os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal"):
        beside = f"{path}-wal"
    elif folder.is_dir() and any(each.suffix == VALUE for each in folder.iterdir()):
        beside = str(folder)
    else:
        return
    raise JournalError(
        f"{path}: expected the journal to which {beside} belongs, got {found}; nothing was changed: put the journal "
        f"back, or, to begin anew, remove {beside}"
    )


def found_instead(left: Mark, connection: sqlite3.Connection) -> str:
    """Describe the journal's content if a part of a process's data is missing, for people; empty if all of it is there.

    For SQLite, a flipped bit in the log ends it there: later commits are lost.
    """
    if not left.commits:
        return ""
    row = None
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'written_by'").fetchone():  # not in version 1
        query = "SELECT commits FROM written_by WHERE number = ? AND at = ?"
        row = connection.execute(query, (left.number, left.at)).fetchone()
    if row is None:
        return "an older state of it"
    return "" if row[0] >= left.commits else f"only {row[0]} of them"


def _lost(path: str, left: Mark, found: str) -> JournalError:
    return JournalError(
        f"{path}: expected all {left.commits} commits of process {left.pid}, which ended without closing it, got "
        f"{found}: the file, or its log {path}-wal, was removed, damaged or replaced; nothing was changed: put them "
        f"back, or, to go on with what is there, remove {path}.lock"
    )


def _set_up(path: str, execute: Callable[..., Any]) -> None:
    mode = execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise JournalError(f"{path}: expected a file system where SQLite can have a write-ahead log, got mode {mode!r}")
    execute("PRAGMA synchronous=FULL")
    execute("PRAGMA fullfsync=ON")


def _create(path: str, connect: Connect) -> None:
    """Make an empty journal, for its user only: SQLite gives the files beside it the same rights.

    It gets its name once it is complete, so that no reader, and no later program, finds a part of one.
    """
    part = f"{path}.new"
    _remove_new(part)  # its maker ended
    os.close(open_file(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINKS, 0o600))
    try:
        with contextlib.closing(connect(part)) as connection:
            connection.execute(AUTO_VACUUM)
            _set_up(path, connection.execute)
            connection.execute("BEGIN IMMEDIATE")
            for statement in (*SCHEMA, f"PRAGMA application_id={APPLICATION}", f"PRAGMA user_version={VERSION}"):
                connection.execute(statement)
            connection.execute("COMMIT")
        if os.path.exists(path):
            check_stat(path, os.lstat(path))  # an empty file of this user
        os.replace(part, path)
    except BaseException:
        _remove_new(part)
        raise
    sync_folder(Path(path).parent)


def _remove_new(part: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            os.unlink(f"{part}{suffix}")
