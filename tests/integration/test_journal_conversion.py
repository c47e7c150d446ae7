"""A program that ends while it converts a journal of an older version leaves one that opens, and loses nothing."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support import journal_0_1, journal_rc1
from tests.support.journals import rows_of
from tests.support.length import IS_LONG
from tests.support.programs import run_program
from tests.support.systems import not_on_windows

VERSIONS = pytest.mark.parametrize("version", [journal_0_1, journal_rc1])

PROGRAM = """
import os, shutil, sqlite3, sys, traceback
from contextlib import closing
from pathlib import Path

from mpqueue import JobQueue
from mpqueue.testing import InlinePool
from tests.support.disk import watched
from tests.support.journals import lines_of, rows_of

original, folder = Path(sys.argv[1]), Path(sys.argv[2])

def child(call):
    made = os.fork()
    if not made:
        code = 1
        try:
            call()
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(made, 0)[1])

def convert(path, last):
    left = iter(range(last))
    def count(sql, arguments):
        if next(left, None) is None:
            os._exit(9)
    with watched() as disk:
        disk.before = count
        JobQueue(1, journal=path, backend=InlinePool()).close()

def all_of(path):
    lines = lines_of(path)
    return lines, {name: rows_of(path, name, "id", "status", "result", "error") for name in lines}

def last_number(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchall()

def look(path):
    before = all_of(original)
    assert all(line.total == len(before[1][name]) > 0 for name, line in before[0].items())
    assert all_of(path) == before, "as a reader sees it"
    JobQueue(1, journal=path, backend=InlinePool()).close()
    assert (all_of(path), last_number(path)) == (before, last_number(original)), "once it is converted"
    (copy,) = path.parent.glob("run.db.v?")
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == int(copy.suffix[2:])
    there = {each.name for each in path.parent.iterdir()}
    assert there == {*(each.name for each in original.parent.iterdir()), copy.name}
    copy.replace(path)
    assert all_of(path) == before, "as it was before"

steps = 0
while True:
    place = folder / str(steps)
    shutil.copytree(original.parent, place)
    code = child(lambda: convert(place / "run.db", steps))
    assert child(lambda: look(place / "run.db")) == 0, steps
    shutil.rmtree(place)
    if code == 0:
        break
    assert code == 9, code
    steps += 1 if steps < int(sys.argv[3]) else int(sys.argv[4])
print(steps)
"""


@pytest.fixture
def original(version: Any, tmp_path: Path) -> Path:
    """The journal of that version, unpacked."""
    with tarfile.open(Path(version.__file__).with_suffix(".tar.xz")) as archive:
        archive.extractall(tmp_path / "original", filter="data")
    return tmp_path / "original" / "run.db"


@pytest.mark.slow
@not_on_windows("no forks")
@VERSIONS
def test_whenever_the_program_ends_the_journal_opens_and_has_everything(
    original: Path, version: Any, tmp_path: Path
) -> None:
    steps = (12, 7) if IS_LONG else (4, 29)  # so many one by one, then by so many
    done = run_program(tmp_path, PROGRAM, original, tmp_path, *steps, timeout=300)
    assert int(done.stdout) > 30
    if version is journal_rc1:
        values = [journal_rc1.show(item) for item in journal_rc1.VALUES]
        for name in ("values", "open", "stream"):
            assert [row["result"] for row in rows_of(original, name, "result")] == values
