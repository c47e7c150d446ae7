"""A program that ends while it converts a journal of an older version leaves one that opens, and loses nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mpqueue import ItemStatus
from tests.support import journal_0_1, journal_rc1
from tests.support.journals import Line, lines_of, queue_of, recorded, rows_of, unpacked
from tests.support.length import IS_LONG
from tests.support.programs import run_program
from tests.support.systems import not_on_windows

VERSIONS = pytest.mark.parametrize("version", [journal_0_1, journal_rc1])

#: Converts copies of a journal, each in a process that ends at another one of its statements: the first ones, and then
#: each that many further.
PROGRAM = """
import itertools, sys
from pathlib import Path
from mpqueue import JobQueue
from mpqueue.testing import InlinePool
from tests.support.ended_early import end_at_each

first, step = map(int, sys.argv[3:])
places = itertools.count()

def convert(folder):
    JobQueue(1, journal=folder / "run.db", backend=InlinePool()).close()

def counts(sql):
    place = next(places)
    return place < first or place % step == 0

made, folder = map(Path, sys.argv[1:3])
print(end_at_each(made, folder, convert, counts))
"""


@pytest.fixture
def original(version: Any, tmp_path: Path) -> Path:
    """The journal of that version, unpacked."""
    return unpacked(version, tmp_path / "original")


@VERSIONS
def test_a_journal_that_was_converted_says_what_it_said_before_and_so_does_the_copy_that_is_kept(
    original: Path, version: Any, tmp_path: Path
) -> None:
    path = unpacked(version, tmp_path / "converted")
    look(original, path)
    queue_of(path).close()
    with closing(sqlite3.connect(path)) as connection:
        kinds = dict(connection.execute("SELECT id, kind FROM jobs").fetchall())
    assert kinds == {name: name if name in ("open", "stream") else "list" for name in kinds}


@pytest.mark.slow
@not_on_windows("no forks")
@VERSIONS
def test_whenever_the_program_ends_the_journal_opens_and_has_everything(
    original: Path, version: Any, tmp_path: Path
) -> None:
    first, step = (12, 7) if IS_LONG else (4, 29)
    copies = tmp_path / "copies"
    copies.mkdir()
    ends = int(run_program(tmp_path, PROGRAM, original.parent, copies, first, step, timeout=300).stdout)
    assert ends > first + 1
    for end in range(1, ends + 1):
        look(original, copies / str(end) / "run.db")
    if version is journal_rc1:
        values = [journal_rc1.show(item) for item in journal_rc1.VALUES]
        for name in ("values", "open", "stream"):
            assert [row["result"] for row in rows_of(original, name, "result")] == values


def look(original: Path, path: Path) -> None:
    """What is there says what was there before, as it is, converted, and in the copy that is kept of it."""
    before = all_of(original)
    assert all(line.total == len(before[1][name]) > 0 for name, line in before[0].items())
    assert all_of(path) == before, "as a reader sees it"
    queue_of(path).close()
    assert (all_of(path), last_number(path)) == (before, last_number(original)), "once it is converted"
    for name in before[0]:
        with recorded(path, name) as job:
            done = [item for item in job.items if item.status is ItemStatus.COMPLETED][:1]
            assert [item.replay() for item in done] == [item.result for item in done], "with the handler that is in it"
    (copy,) = path.parent.glob("run.db.v?")
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == int(copy.suffix[2:])
    there = {each.name for each in path.parent.iterdir()}
    assert there == {*(each.name for each in original.parent.iterdir()), copy.name}
    copy.replace(path)
    assert all_of(path) == before, "as it was before"


def all_of(path: Path) -> tuple[dict[str, Line], dict[str, list[dict[str, Any]]]]:
    """The jobs and their items."""
    lines = lines_of(path)
    return lines, {name: rows_of(path, name, "id", "status", "result", "error") for name in lines}


def last_number(path: Path) -> list[Any]:
    """That of the newest job."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchall()
