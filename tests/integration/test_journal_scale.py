"""What a large journal costs: many jobs, many items, large results."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue
from tests.support import handlers as do

pytestmark = pytest.mark.slow

#: Instructions of SQLite's machine between two calls of a progress handler.
STEP = 10
COPY_LINES = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
INSERT INTO jobs (id, total, rule, seed, created_at, status, slots)
SELECT 'copy ' || i, total, rule, seed, created_at, status, slots FROM jobs, n"""


@pytest.fixture
def count_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], int]:
    """A function that says about how many instructions SQLite runs in a call."""
    steps, connect = [0], sqlite3.connect

    def step() -> None:
        steps[0] += STEP

    def counting(*arguments: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **named)
        connection.set_progress_handler(step, STEP)
        return connection

    def count(call: Callable[[], Any]) -> int:
        before = steps[0]
        call()
        return steps[0] - before

    monkeypatch.setattr(sqlite3, "connect", counting)
    return count


def test_a_job_is_created_and_found_as_fast_among_many(
    tmp_path: Path, count_steps: Callable[[Callable[[], Any]], int]
) -> None:
    path = tmp_path / "run.db"

    def use(job_id: str) -> list[int]:
        with JobQueue(1, journal=path) as queue:
            return [
                count_steps(lambda: queue.create_job(job_id, [1, 2], do.succeed)),
                count_steps(lambda: queue.plan_job(job_id, [1, 2], do.succeed)),
                count_steps(lambda: queue.get_job("other")),
                count_steps(lambda: queue.clear_job(job_id)),
            ]

    few = use("one")
    with JobQueue(1, journal=path) as queue:
        queue.create_job("other", [1, 2], do.succeed)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(COPY_LINES)
    many = use("two")
    assert all(after < 2 * before + 1000 for before, after in zip(few, many, strict=True)), (few, many)


def test_a_job_is_found_where_the_index_of_ids_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with JobQueue(1, journal=path) as queue:
        queue.run([1, 2, 3], do.succeed, id="the job of the night")
    content = path.read_bytes()
    name = b"the job of the night"
    places = [at for at in range(len(content)) if content.startswith(name, at)]
    page = next(at for at in places if content[at - at % 4096] == 0x0A)  # a leaf of an index
    path.write_bytes(content[:page] + name.replace(b"night", b"might") + content[page + len(name) :])
    with JobQueue(1, journal=path) as queue:
        assert queue.get_job(name.decode()) is not None
        job = queue.create_job(name.decode(), [1, 2, 3], do.succeed)
        assert job.completed == 3
        assert [each.id for each in queue.jobs()] == [job.id]
