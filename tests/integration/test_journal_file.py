"""The journal's file: what is taken for one, who may have it open, and what is beside it."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpqueue.errors import JournalError
from tests.support import handlers as do
from tests.support.command_line import main
from tests.support.journals import is_free, lines_of, queue_of, values_of, wait_until_free
from tests.support.kinds import EACH_KIND, JOB, Kind
from tests.support.programs import PATIENCE, run_program, start_program
from tests.support.systems import not_on_windows
from tests.support.this_system import IS_WINDOWS

BIG = "big" * 100_000


def make(path: Path, items: Any = ("a", "b")) -> None:
    """A journal with a job that has ended."""
    with queue_of(path) as queue:
        queue.run(items, do.succeed, id="job")


# -- the file ----------------------------------------------------------------------------------------------------------


@not_on_windows("no modes of files")
def test_a_journal_is_for_its_user_alone_and_leaves_one_file(tmp_path: Path, path: Path) -> None:
    old = os.umask(0)
    try:
        with queue_of(path) as queue:
            queue.run([BIG], do.succeed)
            (value,) = values_of(path)
            rights = {found.name: stat.S_IMODE(found.stat().st_mode) for found in [*tmp_path.iterdir(), value]}
    finally:
        os.umask(old)
    assert rights.pop("run.db.files") == 0o700
    assert rights.keys() == {"run.db", "run.db-wal", "run.db-shm", "run.db.lock", "run.db.running", value.name}
    assert set(rights.values()) == {0o600}
    assert sorted(found.name for found in tmp_path.iterdir()) == ["run.db", "run.db.files"]


def other_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (a)")
        connection.commit()


def of_version(number: int, *, more: bool = False) -> Callable[[Path], None]:
    """A journal that says that it is of that version, or of so many more."""

    def make_it(path: Path) -> None:
        make(path)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            now = connection.execute("PRAGMA user_version").fetchone()[0] if more else 0
            connection.execute(f"PRAGMA user_version={now + number}")

    return make_it


def truncated(path: Path) -> None:
    make(path, range(20_000))
    os.truncate(path, 50_000)


def half_a_header(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\1" * 30)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(os.urandom(5000)), "another kind"),
        (lambda path: path.write_text("a,b\n1,2\n"), "another kind"),
        (half_a_header, "expected a"),
        (other_database, "of another program"),
        (of_version(1, more=True), "a newer mpqueue"),
        (of_version(-7), "version -7, which no release of mpqueue wrote"),
        (of_version(0), "version 0, which no release of mpqueue wrote"),
        (truncated, "damaged"),
        (Path.mkdir, "expected a file, got a folder"),
    ],
    ids=["random", "text", "header", "other", "newer", "negative", "zero", "truncated", "folder"],
)
def test_what_is_no_journal_is_refused_and_left_as_it_is(
    tmp_path: Path, path: Path, spoil: Callable[[Path], object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(path)
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(JournalError, match=message) as caught:
        queue_of(path)
    assert str(path) in str(caught.value)
    assert main(["status", str(path)]) > 0
    assert re.search(message, capsys.readouterr().err)
    assert before is None or path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["run.db"]


@pytest.mark.parametrize(
    "name", ["a b%41#c;d", "\xe4", *(() if IS_WINDOWS else ("a?b=c&d", "\udcff", "a\\b", "C:a", "~"))]
)
def test_a_journal_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for given in (str(path), rf"\\?\{path}" if IS_WINDOWS else f"/{path}"):
        with queue_of(given) as queue:
            assert queue.create_job("job", ["a", "b"], do.succeed).completed == (0 if given == str(path) else 2)
            queue.start("job").result(300)
    assert os.listdir(tmp_path) == [name]
    assert lines_of(path)["job"] == ("completed", 2, 0, 2)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(JournalError, match="folder"):
        queue_of(tmp_path / "no" / "run.db")
    assert main(["status", str(tmp_path / "run.db")]) == 2
    assert "not there" in capsys.readouterr().err


READ_ONLY = """
import os, sys
from mpqueue import JobQueue
from mpqueue.errors import JournalError

path, folder, file_only = sys.argv[1], os.path.dirname(sys.argv[1]), sys.argv[2] == "True"
JobQueue(1, journal="other.db").close()  # all is imported, which that user may not read
os.chmod(path, 0o400 if file_only else 0o444)
os.chmod(folder, 0o777 if file_only else 0o555)
if os.getuid() == 0:
    os.chown(path, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
try:
    JobQueue(1, journal=path)
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
    make(path)
    for each in (tmp_path, *itertools.islice(tmp_path.parents, 3)):
        if each != Path("/tmp"):
            each.chmod(each.stat().st_mode | 0o005)
    before = path.read_bytes()
    done = run_program(tmp_path, READ_ONLY, path, file_only)
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
@EACH_KIND
def test_whatever_bytes_are_in_a_journal_it_is_read_or_refused(tmp_path: Path, path: Path, kind: Kind) -> None:
    rng = random.Random(11)
    kind.run(do.succeed, range(40), path)
    good, refused = path.read_bytes(), list[str]()
    for nth in range(60):
        bad = tmp_path / f"{nth}.db"
        bad.write_bytes(damaged(good, rng))
        try:
            with queue_of(bad) as queue:
                for job in queue.jobs():
                    for item in job.items:
                        assert job.id != JOB or item.status != "completed" or item.result in range(40)
        except JournalError as error:
            refused.append(str(error))
        for found in tmp_path.glob(f"{nth}.db*"):
            found.unlink()
    assert 2 < len(refused) < 58
    assert all(str(tmp_path) in text for text in refused)


# -- one writer --------------------------------------------------------------------------------------------------------

HOLDER = """
import sys, threading
from mpqueue import JobQueue
queue = JobQueue(1, journal=sys.argv[1])
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
        assert not is_free_now(path)
        program.kill()
        program.wait()
    refuse_second_name(path)
    command = refuse_second_name(other)
    subprocess.run(command, shell=True, check=True)  # as a user does who reads it
    with queue_of(path), queue_of(other):
        assert not is_free(path)
    assert sorted(file.name for file in tmp_path.glob("*run.db*")) == ["a run.db", "b run.db"]


def is_free_now(path: Path) -> bool:
    """Whether what holds it has let go of it, although it has a second name."""
    with pytest.raises(JournalError) as error:
        queue_of(path)
    return "has open" not in str(error.value) and "with 2" not in str(error.value)


def refuse_second_name(path: Path) -> str:
    """Returns the command that the error names."""
    with pytest.raises(JournalError, match="expected a file with one name, got one with 2") as error:
        queue_of(path)
    told = re.search("`(cp -p .*)`", str(error.value))
    assert told is not None
    return told[1]


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_is_gone_however_it_went(tmp_path: Path, path: Path) -> None:
    make(path)
    with start_program(tmp_path, HOLDER, path) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "open\n"
        with pytest.raises(JournalError, match=f"process {program.pid}"):
            queue_of(path)
        assert lines_of(path)["job"] == ("completed", 2, 0, 2)  # reading is allowed
        program.kill()
        program.communicate(timeout=PATIENCE)
    wait_until_free(path)


# -- files of big values -----------------------------------------------------------------------------------------------


def test_parts_of_files_go_with_the_next_writer_and_files_of_a_job_with_it(path: Path) -> None:
    make(path, [BIG])
    (value,) = values_of(path)
    (value.parent / "half.value.part").touch()
    (value.parent / "mine.txt").touch()
    value.rename(f"{value}.part")  # the program ended before it got its name
    with queue_of(path) as queue:
        assert values_of(path) == sorted([value, value.parent / "mine.txt"])
        assert queue.load_job("job").results == [BIG]
        queue.clear_job("job")
    assert os.listdir(value.parent) == ["mine.txt"]
