"""The line of a job in a journal: it is sealed by the database, and damage is neither read nor sealed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

import pytest

from mpqueue._parent.journal.schema import (
    APPLICATION,
    BODIES,
    COLUMNS,
    SAID,
    SCHEMA,
    VERSION,
    check_version,
    is_whole,
    seal_lines,
)
from mpqueue.errors import JournalError

LINE = (
    "INSERT INTO jobs (number, id, total, rule, seed, created_at, status, completed, failed, retries) "
    "VALUES (1, 'job', 3, 'position', '0x5', 1.0, 'pending', 0, 0, 0)"
)


@pytest.fixture
def journal() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for statement in SCHEMA:
            connection.execute(statement)
        yield connection


def whole(connection: sqlite3.Connection) -> bool:
    *said, seal = connection.execute(f"SELECT {SAID}, seal FROM jobs WHERE number = 1").fetchone()
    return is_whole(said, seal)


def test_a_line_is_sealed_with_every_change_and_not_whole_after_any_other(journal: sqlite3.Connection) -> None:
    seal_lines(journal)
    journal.execute(LINE)
    assert whole(journal)
    journal.execute("UPDATE jobs SET completed = 3, status = 'completed', places = x'00'")
    assert whole(journal)
    for column in COLUMNS[1:]:
        journal.execute("SAVEPOINT before")
        for trigger in ("check_changed", "seal_changed"):
            journal.execute(f"DROP TRIGGER {trigger}")
        journal.execute(f"UPDATE jobs SET {column} = '7'")
        assert not whole(journal), column
        journal.execute("ROLLBACK TO before")
    assert whole(journal)


def test_the_seal_covers_every_column_and_of_a_body_whether_there_is_one(journal: sqlite3.Connection) -> None:
    columns = {name for _, name, *_ in journal.execute("PRAGMA table_info(jobs)")}
    assert sorted((*COLUMNS, *BODIES)) == sorted(columns - {"seal"})
    seal_lines(journal)
    journal.execute(LINE)
    for trigger in ("check_changed", "seal_changed"):
        journal.execute(f"DROP TRIGGER {trigger}")
    for body in BODIES:
        journal.execute("SAVEPOINT before")
        journal.execute(f"UPDATE jobs SET {body} = x'00'")
        assert not whole(journal), body
        journal.execute("ROLLBACK TO before")
    assert whole(journal)


def test_a_damaged_line_is_not_changed_and_so_never_sealed(journal: sqlite3.Connection) -> None:
    journal.execute(LINE)
    journal.execute("UPDATE jobs SET seal = 5")
    seal_lines(journal)
    with pytest.raises(sqlite3.IntegrityError, match="damaged"):
        journal.execute("UPDATE jobs SET completed = 1")
    assert not whole(journal)


def test_what_no_number_is_seals_nothing() -> None:
    assert not is_whole([], None)
    assert not is_whole([], "0")


@pytest.mark.parametrize("version", [1, 2, VERSION])
def test_released_versions_can_be_read(version: int) -> None:
    check_version("run.db", APPLICATION, version)


@pytest.mark.parametrize(
    ("application", "version", "words"),
    [
        (APPLICATION + 1, VERSION, "another program"),
        (0, 0, "another program"),
        (APPLICATION, VERSION + 1, f"version {VERSION} at most, got version {VERSION + 1}, which a newer mpqueue"),
        (APPLICATION, 0, "which no release of mpqueue wrote"),
        (APPLICATION, 4, "which no release of mpqueue wrote"),
        (APPLICATION, -1, "which no release of mpqueue wrote"),
    ],
)
def test_a_file_of_another_version_or_program_is_named(application: int, version: int, words: str) -> None:
    with pytest.raises(JournalError, match=words):
        check_version("run.db", application, version)
