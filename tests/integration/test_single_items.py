"""`cancel_items`, and `retry_failed` of some items: single items of a job, while the others are as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mpqueue import ItemCancelledError, ItemStatus, JobQueue, JobStateError, Rerun, RetryPolicy
from mpqueue.events import ITEM_RETRY
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.usefixtures("forked_workers")


def statuses(job: Any) -> list[str]:
    return [str(item.status) for item in job.items]


@pytest.mark.slow
@pytest.mark.holds("error: ItemCancelledError")
def test_an_item_that_waits_fails_at_once_with_its_event(gate: Gate) -> None:
    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.create_job("job", ["a", "b", "c", "d"], do.only("a", do.block_until_told(gate)), chunksize=1)
        run = queue.start(job)
        gate.wait_for("a")
        queue.cancel_items(job, [job.items[1], 3])
        assert statuses(job) == ["processing", "failed", "pending", "failed"]
        assert isinstance(job.items[1].exception, ItemCancelledError)
        assert job.items[1].error == "ItemCancelledError: item 1 (b) was cancelled"
        gate.open()
        run.result()
        recorder.check(job)
    assert (job.completed, job.failed, [item.attempts for item in job.items]) == (2, 2, [1, 0, 1, 0])


def test_an_item_of_an_event_an_id_and_a_position_name_items() -> None:
    heard: list[Any] = []
    with JobQueue(1, retry=RetryPolicy(base_delay=300)) as queue:
        queue.on(ITEM_RETRY, heard.append)
        items = [{"id": 10 + place, "name": f"{place}.jpg"} for place in range(5)]
        job = queue.create_job("job", items, do.fail, chunksize=1)
        run = queue.start(job)
        wait_until(lambda: len(heard) == 5)
        queue.cancel_items(job, [heard[0].item])  # a copy of the row
        queue.cancel_items(job, [14, "3.jpg"])  # an id, and a label
        assert [item.id for item in job.items if item.status is ItemStatus.FAILED] == [10, 13, 14]
        with pytest.raises(KeyError, match="got 2, which is none"):
            queue.cancel_items(job, [2])  # the ids are numbers: that is no position
        queue.cancel_items(job, job.items)
        run.result()
    assert job.failed == 5


@pytest.mark.slow
def test_what_is_no_item_of_the_job_is_refused_and_nothing_happens(gate: Gate) -> None:
    with JobQueue(1) as queue:
        other = queue.run(["a"], do.succeed, id="other")
        job = queue.create_job("job", ["a", "b"], do.block_until_told(gate))
        run = queue.start(job)
        gate.wait_for("a")
        with pytest.raises(ValueError, match="which is of another one"):
            queue.cancel_items(job, [job.items[1], other.items[0]])
        with pytest.raises(IndexError, match="expected positions below 2, got 2"):
            queue.cancel_items(job, [1, 2])
        with pytest.raises(KeyError, match="'c'"):
            queue.cancel_items(job, ["c"])
        with pytest.raises(TypeError, match="put it in a list"):
            queue.cancel_items(job, "b")
        with pytest.raises(TypeError, match="put it in a list"):
            queue.cancel_items(job, job.items[1])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="kill: expected"):
            queue.cancel_items(job, [1], kill="yes")  # type: ignore[arg-type]
        assert job.failed == 0
        queue.cancel_items(job, [])
        gate.open()
        run.result()
        queue.cancel_items(job, [0, 1], kill=True)  # what has ended stays as it is
    assert (statuses(job), job.failed) == (["completed"] * 2, 0)


@pytest.mark.slow
def test_a_journal_keeps_them_cancelled_and_they_can_be_retried(tmp_path: Path, path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    items = ["a", "b", "c", "d"]
    with JobQueue(1, journal=path, max_retries=0) as queue:
        job = queue.create_job("job", items, do.only("a", do.block_until_told(gate)), chunksize=1)
        run = queue.start(job)
        gate.wait_for("a")
        queue.cancel_items(job, ["b"])
        queue.cancel_items(job, ["a"], kill=True)
        run.result()
        assert statuses(job) == ["failed", "failed", "completed", "completed"]
    gate.open()
    with JobQueue(1, journal=path, max_retries=0) as queue:
        past = queue.load_job("job")
        assert (statuses(past), past.failed) == (["failed", "failed", "completed", "completed"], 2)
        assert isinstance(past.items[1].exception, ItemCancelledError)
        with pytest.raises(JobStateError, match=r"got item 2.*, which is completed"):
            queue.retry_failed("job", items=[past.items[2]])
        job = queue.retry_failed("job", items=[past.items[1]]).result()
        assert (statuses(job), job.failed) == (["failed", "completed", "completed", "completed"], 1)
    with JobQueue(1, journal=path, max_retries=0) as queue:
        assert statuses(queue.load_job("job")) == ["failed", "completed", "completed", "completed"]
        job = queue.create_job("job", items, do.succeed, rerun=Rerun(redo="failed"))
        queue.start(job).result()
        assert (statuses(job), job.failed) == (["completed"] * 4, 0)
