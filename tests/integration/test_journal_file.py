"""The journal's file and its writer: what it refuses, what is on disk when, and what a full disk does to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue._core.state.item_table import make_table
from mpqueue._parent.journal.chunk_rows import make_row
from mpqueue._parent.journal.guards.journal_lock import is_held
from mpqueue._parent.journal.items.inventory import Inventory
from mpqueue._parent.journal.journal_file import address_of, chunk_statement, connect, folder_of
from mpqueue._parent.journal.journal_reader import Reader
from mpqueue._parent.journal.journal_writer import Entry, Journal
from mpqueue._parent.journal.kept_values import BigFile
from mpqueue._parent.journal.schema import APPLICATION, VERSION
from mpqueue.errors import JournalError, QueueClosedError
from tests.support.programs import start_program
from tests.support.systems import IS_WINDOWS, not_on_windows
from tests.support.waiting import wait_until

ADD = "INSERT INTO chunks (job, body) VALUES (1, ?)"


class Now:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@contextlib.contextmanager
def opened(path: Path, now: Callable[[], float] | None = None) -> Iterator[Journal]:
    journal = Journal(str(path), now or Now())
    try:
        yield journal
    finally:
        journal.close()


def bodies(path: Path) -> list[bytes]:
    """What readers see."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return [row[0] for row in connection.execute("SELECT body FROM chunks ORDER BY number")]


# -- the file ----------------------------------------------------------------------------------------------------------


@not_on_windows("no modes of files")
def test_a_journal_is_for_its_user_alone_and_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    old = os.umask(0)
    try:
        with opened(path) as journal:
            journal.post(Entry([(ADD, (b"a",))], [(BigFile("x.value", (b"big",), b""), 1)]))
            journal.flush()
            folder = folder_of(str(path))
            rights = {
                found.name: stat.S_IMODE(found.stat().st_mode) for found in [*tmp_path.iterdir(), *folder.iterdir()]
            }
    finally:
        os.umask(old)
    assert rights.pop("run.db.files") == 0o700
    assert rights.keys() == {"run.db", "run.db-wal", "run.db-shm", "run.db.lock", "x.value"}
    assert set(rights.values()) == {0o600}
    assert sorted(found.name for found in tmp_path.iterdir()) == ["run.db", "run.db.files"]


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    for text in (b"a", b"b"):
        with opened(path) as journal:
            journal.post(Entry([(ADD, (text,))]))
    assert bodies(path) == [b"a", b"b"]


def other_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (a)")
        connection.commit()


def newer_version(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id={APPLICATION}")
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
        connection.execute("CREATE TABLE jobs (a)")
        connection.commit()


def impossible_version(path: Path) -> None:
    with opened(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=-7")


def no_version(path: Path) -> None:
    with opened(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=0")


def truncated(path: Path) -> None:
    with opened(path) as journal:
        journal.post(Entry([(ADD, (os.urandom(100_000),))]))
    os.truncate(path, 50_000)


def half_a_header(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\1" * 30)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(os.urandom(5000)), "another kind"),
        (lambda path: path.write_text("a,b\n1,2\n"), "another kind"),
        (half_a_header, "expected a"),
        (other_database, "of another program"),
        (newer_version, "a newer mpqueue"),
        (impossible_version, "version -7, which no mpqueue wrote"),
        (no_version, "version 0, which no mpqueue wrote"),
        (truncated, "damaged"),
        (Path.mkdir, "expected a file, got a folder"),
    ],
    ids=["random", "text", "header", "other", "newer", "negative", "zero", "truncated", "folder"],
)
def test_what_is_no_journal_is_refused_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "run.db"
    make(path)
    before = None if path.is_dir() else path.read_bytes()
    for attempt in (lambda: Journal(str(path), Now()), Reader(str(path)).jobs):
        with pytest.raises(JournalError, match=message) as caught:
            attempt()
        assert str(path) in str(caught.value)
    assert before is None or path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["run.db"]


def test_the_file_says_who_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    for number in range(3):
        with opened(path) as journal:
            if number != 1:  # one that only looks leaves nothing
                journal.ask(lambda store: store.write([]))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        lines = connection.execute("SELECT mpqueue, python, host, program FROM written_by").fetchall()
    assert lines == [(mpqueue.__version__, sys.version.split()[0], socket.gethostname(), sys.argv[0])] * 2


@pytest.mark.parametrize("name", ["a b%41#c;d", "\xe4", *(() if IS_WINDOWS else ("a?b=c&d", "\udcff", "a\\b"))])
def test_sqlite_finds_a_file_of_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    for given in (str(path), rf"\\?\{path}" if IS_WINDOWS else f"/{path}"):
        with contextlib.closing(sqlite3.connect(address_of(given, "mode=rw"), uri=True)) as database:
            database.execute("CREATE TABLE IF NOT EXISTS found (id)")
    assert os.listdir(tmp_path) == [name]
    assert path.stat().st_size > 0


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="folder"):
        Journal(str(tmp_path / "no" / "run.db"), Now())
    with pytest.raises(JournalError, match="not there"):
        Reader(str(tmp_path / "run.db")).jobs()


READ_ONLY = """
import os, sys
from pathlib import Path
from mpqueue.errors import JournalError
from mpqueue._parent.journal.journal_writer import Journal
os.chmod({path!r}, 0o400 if {file_only} else 0o444)
os.chmod({folder!r}, 0o777 if {file_only} else 0o555)
if os.getuid() == 0:
    os.chown({path!r}, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
try:
    Journal({path!r}, lambda: 0.0)
except JournalError as error:
    print(error)
"""


@not_on_windows("no modes of files")
@pytest.mark.slow
@pytest.mark.parametrize("file_only", [True, False])
def test_a_journal_that_may_not_be_written_is_refused(tmp_path: Path, file_only: bool) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    path = folder / "run.db"
    with opened(path) as journal:
        journal.post(Entry([(ADD, (b"a",))]))
    for each in (tmp_path, *itertools.islice(tmp_path.parents, 3)):
        if each != Path("/tmp"):
            each.chmod(each.stat().st_mode | 0o005)
    before = path.read_bytes()
    code = READ_ONLY.format(path=str(path), folder=str(folder), file_only=file_only)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    folder.chmod(0o777)
    assert "expected a" in done.stdout
    assert path.read_bytes() == before
    assert [found.name for found in folder.iterdir()] == ["run.db"]


def damaged(good: bytes, rng: random.Random) -> bytes:
    data = bytearray(good)
    for _ in range(rng.choice((1, 5, 50))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.2:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


@pytest.mark.slow
def test_whatever_bytes_are_in_a_journal_it_is_read_or_refused(tmp_path: Path) -> None:
    path, table, rng = tmp_path / "run.db", make_table(range(40)), random.Random(11)
    columns = {"id": "job", "rule": "position", "seed": "7", "created_at": 0.0, "status": "running"}
    with opened(path) as journal:
        number = Inventory(table).add(journal, columns)
        for lo in range(0, 40, 10):
            table.complete(range(lo, lo + 10), ["result"] * 10)
            row = make_row(table, range(lo, lo + 10), {})
            journal.post(Entry([chunk_statement(journal.next_chunk(), number, row)]))
        assert number == 1
    good, told = path.read_bytes(), list[str]()
    for nth in range(150):
        bad = tmp_path / f"{nth}.db"
        bad.write_bytes(damaged(good, rng))
        try:
            with opened(bad) as journal:
                for job in journal.reader.jobs():
                    if len(journal.reader.table(job)) != job.total:
                        raise AssertionError(job)
        except JournalError as error:
            told.append(str(error))
        for found in tmp_path.glob(f"{nth}.db*"):
            found.unlink()
    assert 10 < len(told) < 140
    assert all(str(tmp_path) in text for text in told)


# -- one writer --------------------------------------------------------------------------------------------------------


def test_a_second_queue_of_the_same_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with opened(path):
        assert is_held(str(path))
        with pytest.raises(JournalError, match="another queue of this process"):
            Journal(str(path), Now())
        assert is_held(str(path))
    assert not is_held(str(path))
    with opened(path):
        pass


HOLDER = """
import sys, threading
from mpqueue._parent.journal.journal_writer import Journal
journal = Journal(sys.argv[1], lambda: 0.0)
print("open", flush=True)
threading.Event().wait()
"""


@not_on_windows("cp and mv")
@pytest.mark.slow
def test_a_journal_with_a_second_name_is_refused_until_it_is_a_file_of_its_own(tmp_path: Path) -> None:
    path, other = tmp_path / "a run.db", tmp_path / "b run.db"
    with start_program(tmp_path, HOLDER, path) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "open\n"
        for suffix in ("", "-wal", ".lock"):
            os.link(f"{path}{suffix}", f"{other}{suffix}")
        refuse_second_name(other)
        assert is_held(str(path))
        program.kill()
        program.wait()
    refuse_second_name(path)
    command = refuse_second_name(other)
    subprocess.run(command, shell=True, check=True)  # as a user does who reads it
    with opened(path), opened(other):
        assert is_held(str(path))
    assert sorted(file.name for file in tmp_path.glob("*run.db*")) == ["a run.db", "b run.db"]


def refuse_second_name(path: Path) -> str:
    """Returns the command that the error names."""
    with pytest.raises(JournalError, match="expected a file with one name, got one with 2") as error:
        Journal(str(path), Now())
    told = re.search("`(cp -p .*)`", str(error.value))
    assert told is not None
    return told[1]


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_is_gone_however_it_went(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with start_program(tmp_path, HOLDER, path) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "open\n"
        assert is_held(str(path))
        with pytest.raises(JournalError, match=f"process {program.pid}"):
            Journal(str(path), Now())
        assert Reader(str(path)).jobs() == []  # reading is allowed
        program.kill()
        program.communicate()
    with opened(path):
        pass


# -- group commits -----------------------------------------------------------------------------------------------------


def test_what_is_not_urgent_waits_for_the_group_and_what_is_urgent_takes_it_along(tmp_path: Path) -> None:
    path, on_disk = tmp_path / "run.db", threading.Event()
    with opened(path) as journal:
        journal.post(Entry([(ADD, (b"lazy",))]))
        assert bodies(path) == []  # the clock stands still
        journal.post(Entry([(ADD, (b"urgent",))], done=on_disk.set, urgent=True))
        assert on_disk.wait(30)
        assert bodies(path) == [b"lazy", b"urgent"]


@pytest.mark.slow
def test_the_group_is_written_when_its_time_has_come(tmp_path: Path) -> None:
    path, now = tmp_path / "run.db", Now()
    with opened(path, now) as journal:
        journal.post(Entry([(ADD, (b"lazy",))]))

        def later() -> bool:
            now.time += 0.1
            return bodies(path) == [b"lazy"]

        wait_until(later, what="the group commit")


def test_a_question_comes_after_all_that_was_posted(tmp_path: Path) -> None:
    with opened(tmp_path / "run.db") as journal:
        journal.post(Entry([(ADD, (b"lazy",))]))
        found = journal.ask(lambda store: store._connection.execute("SELECT count(*) FROM chunks").fetchone()[0])
        assert found == 1
        with pytest.raises(AttributeError):
            journal.ask(lambda store: store.nothing)  # type: ignore[attr-defined]
    with pytest.raises(QueueClosedError, match="one that was closed"):
        journal.flush()


def test_parts_of_files_are_removed_by_the_next_writer_and_files_of_a_removed_job_with_it(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    folder = folder_of(str(path))
    with opened(path) as journal:
        journal.post(
            Entry([], [(BigFile("kept.value", (b"a", memoryview(b"b")), b""), 1), (BigFile("other.value", (), b""), 2)])
        )
    (folder / "half.value.part").touch()
    (folder / "other.value").rename(folder / "other.value.part")  # the program ended before it got its name
    (folder / "mine.txt").touch()
    with opened(path) as journal:
        journal.flush()
        assert sorted(os.listdir(folder)) == ["kept.value", "mine.txt", "other.value"]
        assert journal.reader.read_file("kept.value") == b"ab"
        journal.ask(lambda store: store.remove_job(1))
    assert sorted(os.listdir(folder)) == ["mine.txt", "other.value"]


# -- a full disk -------------------------------------------------------------------------------------------------------


def limit(pages: int) -> Callable[[Any], object]:
    """Leave the file room for so many more pages."""
    return lambda store: store._connection.execute(
        f"PRAGMA max_page_count={store._connection.execute('PRAGMA page_count').fetchone()[0] + pages}"
    )


def test_what_can_not_be_written_is_kept_and_written_once_there_is_room(tmp_path: Path) -> None:
    path, now, heard = tmp_path / "run.db", Now(), list[JournalError | None]()
    with opened(path, now) as journal:
        journal.on_trouble = heard.append
        journal.ask(limit(0))
        done = threading.Event()
        journal.post(Entry([(ADD, (os.urandom(100_000),))], done=done.set))
        with pytest.raises(JournalError, match="room"):
            journal.flush()
        assert not heard  # it may be over in a moment
        now.time = 1.0
        with pytest.raises(JournalError, match="room"):
            journal.flush()
        assert isinstance(heard[0], JournalError)
        assert "room" in str(heard[0])
        journal.post(Entry([(ADD, (b"later",))]))
        with pytest.raises(JournalError, match="room"):
            journal.flush()
        with pytest.raises(JournalError, match="room"):
            journal.ask(limit(1000))
        assert bodies(path) == []
        assert not done.is_set()
        journal._store._connection.execute("PRAGMA max_page_count=10000")  # its thread only waits
        now.time = 3.0
        journal.post(Entry([(ADD, (b"last",))]))
        assert done.wait(30)
        wait_until(lambda: heard[1:] == [None], what="the end of the trouble")
        journal.flush()
        assert [len(body) for body in bodies(path)] == [100_000, 5, 4]


def test_what_can_not_be_written_for_a_moment_is_written_then_and_nobody_hears_of_it(tmp_path: Path) -> None:
    path, now, heard = tmp_path / "run.db", Now(), list[JournalError | None]()
    with opened(path, now) as journal:
        journal.on_trouble = heard.append
        for at in (0.0, 10.0):  # a new moment: that there was one before does not count
            now.time = at
            journal.ask(limit(0))
            journal.post(Entry([(ADD, (os.urandom(100_000),))]))
            with pytest.raises(JournalError, match="room"):
                journal.flush()
            journal._store._connection.execute("PRAGMA max_page_count=10000")  # its thread only waits
            journal.flush()
        assert not heard
        assert [len(body) for body in bodies(path)] == [100_000, 100_000]


def test_what_can_not_be_written_at_the_end_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run.db"
    with opened(path) as journal:
        journal.post(Entry([(ADD, (b"a",))]))
        journal.ask(limit(0))
        journal.post(Entry([(ADD, (os.urandom(100_000),))]))
    assert "will run again" in caplog.text
    assert bodies(path) == [b"a"]


@pytest.mark.parametrize("bad", [("too big", b"x" * 20_000), ("no value", object())], ids=lambda bad: bad[0])
def test_a_row_that_can_never_be_written_stops_no_other(
    tmp_path: Path, bad: tuple[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def limited(path: str) -> sqlite3.Connection:
        connection = connect(path)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
        return connection

    path, told = tmp_path / "run.db", list[int]()
    journal = Journal(str(path), Now(), limited)
    for at, body in enumerate([b"a", b"b", bad[1], b"c"]):
        journal.post(Entry([(ADD, (body,))], done=partial(told.append, at)))
    journal.flush()
    assert bodies(path) == [b"a", b"b", b"c"]
    assert told == [0, 1, 2, 3]  # or those who wait for it would wait for ever
    assert caplog.text.count("can't be written") == 1
    journal.close()
    assert journal.lost is None
