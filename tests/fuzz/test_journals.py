"""Journals that are none, or were: opened, or refused and left as they are."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqueue import JobQueue, JournalError
from tests.fuzz.judge import PATIENCE, Refused, ask, fuzzed
from tests.fuzz.odd import Odd, values
from tests.support import handlers as do

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

ITEMS = [1, "two", 3.0]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A journal that holds a finished job."""
    path = tmp_path / "whole.db"
    with JobQueue(1, max_retries=0, journal=path) as queue:
        queue.run(ITEMS, do.succeed, id="job")
    return path


def look_into(path: Path) -> object:
    """Open the journal and read all that it has."""
    with JobQueue(1, journal=path) as queue:
        loaded = [queue.load_job(job.id) for job in queue.jobs()]
        return [(job.status, job.results, [item.error for item in job.items], job.failures) for job in loaded]


def go_on(path: Path) -> object:
    """Run what is missing of the job."""
    with JobQueue(1, max_retries=0, journal=path) as queue:
        queue.create_job("job", ITEMS, do.succeed)
        return queue.start("job").result(PATIENCE).results


def check(path: Path) -> None:
    """It opens, or is refused by a `JournalError` that names it, as it was; the job goes on, or is refused so."""
    before = path.read_bytes()
    found = ask(lambda: look_into(path))
    if isinstance(found, Refused):
        assert path.read_bytes() == before
    else:
        found = ask(lambda: go_on(path))
    if isinstance(found, Refused):
        assert isinstance(found.error, JournalError), repr(found.error)
        assert path.name in str(found.error)


@fuzzed(40)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda tail: b"SQLite format 3\0" + tail)))
def test_random_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("journal") / "run.db"
    path.write_bytes(content)
    check(path)


@fuzzed(60)
@given(st.integers(0, 2**32), st.integers(1, 40), st.one_of(st.none(), st.integers(0, 100)))
def test_damaged_journal(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, changes: int, percent: int | None
) -> None:
    damaged, rng = bytearray(whole.read_bytes()), random.Random(seed)
    for _ in range(changes):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    path = tmp_path_factory.mktemp("journal") / "run.db"
    path.write_bytes(damaged if percent is None else damaged[: len(damaged) * percent // 100])
    check(path)


@fuzzed(60)
@given(values)
def test_odd_path(tmp_path_factory: pytest.TempPathFactory, odd: Odd) -> None:
    journal = odd.make()
    if isinstance(journal, str) and journal:
        journal = f"{tmp_path_factory.mktemp('journal')}/{journal.replace('/', '-')}"
    queue = ask(lambda: JobQueue(1, journal=journal))
    if not isinstance(queue, Refused):
        queue.close()


@pytest.mark.long
@pytest.mark.parametrize("change", [1, 0x80])
def test_each_byte_of_a_jobs_line_may_be_damaged(whole: Path, tmp_path: Path, change: int) -> None:
    """What is in its columns has no checksum."""
    content = whole.read_bytes()
    line = content.index(b"position")
    for at in range(line - 24, line + 90):
        path = tmp_path / f"{at}.db"
        path.write_bytes(content[:at] + bytes([content[at] ^ change]) + content[at + 1 :])
        check(path)
