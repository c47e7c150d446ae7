"""`JobQueue.resize`: more workers at once, fewer as they end what they run, and nothing lost or charged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue, QueueClosedError, current_item
from tests.support import handlers as do
from tests.support.programs import is_running
from tests.support.recorder import Recorder
from tests.support.strength import workers_of
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


def workers(folder: Path) -> set[int]:
    """The process ids of those that are there, of a queue with ``initializer=partial(tell, folder)``."""
    return {pid for path in folder.glob("worker *") if is_running(pid := int(path.name.split()[1]))}


def tell(folder: Path) -> None:
    (folder / f"worker {os.getpid()}").touch()


def test_more_workers_come_at_once_and_fewer_stay_when_they_have_ended_their_items(tmp_path: Path) -> None:
    first, rest = Gate(tmp_path / "first"), Gate(tmp_path / "rest")
    with JobQueue(1, initializer=partial(tell, tmp_path)) as queue:
        recorder = Recorder(queue)
        job = queue.create_job("job", range(40), do.only(0, do.block_until_told(first), do.block_until_told(rest)),
                               chunksize=1)  # fmt: skip
        run = queue.start("job")
        first.wait_for(0)
        queue.resize(3)
        assert queue.concurrency == 3
        rest.wait_for_count(2)
        before = workers(tmp_path)
        assert len(before) == 3
        queue.concurrency = 1
        assert workers(tmp_path) == before, "each ends what it runs"
        rest.open()
        wait_until(lambda: len(workers(tmp_path)) == 1)
        first.open()
        assert run.result().results == [*range(40)]
        recorder.check(job)
        assert {item.attempts for item in job.items} == {1}
        queue.resize(2)
        assert queue.run(range(50), do.double).completed == 50
        assert len(workers_of(queue)) == len(workers(tmp_path)) == 2


@pytest.mark.parametrize("count", [1, 3])
def test_before_the_first_job_it_says_how_many_start(count: int, tmp_path: Path) -> None:
    with JobQueue(2, initializer=partial(tell, tmp_path)) as queue:
        queue.resize(count)
        assert queue.run(range(20), do.double).completed == 20
        assert len(workers_of(queue)) == len(workers(tmp_path)) == count


def test_setups_of_workers_that_go_are_finished(tmp_path: Path, gate: Gate) -> None:
    last = Gate(tmp_path / "last")

    def setup() -> Iterator[int]:
        number = current_item().worker
        yield number
        (tmp_path / f"finished {number}").touch()

    def handler(item: int, _: int) -> None:
        (last if item == 0 else gate).pass_through(item)

    with JobQueue(2, initializer=partial(tell, tmp_path)) as queue:
        queue.create_job("job", range(2), handler, setup=setup, chunksize=1)
        run = queue.start("job")
        last.wait_for(0)
        gate.wait_for(1)
        queue.resize(1)
        gate.open()
        last.open()
        run.result()
        wait_until(lambda: len(workers(tmp_path)) == 1)
        wait_until((tmp_path / "finished 1").exists)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", None, True, 10**9])
def test_what_is_no_number_of_workers_is_refused(wrong: Any) -> None:
    with JobQueue(1) as queue:
        with pytest.raises((TypeError, ValueError), match="concurrency: expected"):
            queue.resize(wrong)
        assert queue.concurrency == 1
    with pytest.raises(QueueClosedError):
        queue.resize(2)
