"""A queue and its jobs: creating, starting, looking at them; what items are; what workers are like."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mpqueue import (
    ItemError,
    ItemStatus,
    Job,
    JobExistsError,
    JobNotFoundError,
    JobQueue,
    JobStateError,
    JobStatus,
    Rerun,
    RetryPolicy,
    current_item,
)
from mpqueue.backends import LokyBackend
from tests.support import handlers as do
from tests.support.interruptions import send_to_main_thread
from tests.support.results import results_of
from tests.support.systems import not_on_windows
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.usefixtures("forked_workers")

SOON = RetryPolicy(max_retries=1, base_delay=0.01)


# --- the queue ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.holds("seed: JobQueue: concurrency is 3 by default", "seed: JobQueue: max_retries is 3 by default")
def test_queue_has_three_workers_and_three_retries_unless_told_otherwise() -> None:
    queue = JobQueue()
    assert (queue.concurrency, queue.max_retries) == (3, 3)
    assert JobQueue(2, 5).concurrency == 2
    assert JobQueue(2, 5).max_retries == 5
    assert JobQueue(retry=RetryPolicy(max_retries=7)).max_retries == 7


@not_on_windows("no affinity in Python")
def test_concurrency_none_is_one_worker_for_each_cpu_that_the_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    assert 1 <= JobQueue(concurrency=None).concurrency <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert JobQueue(concurrency=None).concurrency == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.holds("seed: start: no more items run at once than the concurrency allows")
def test_as_many_items_run_at_a_time_as_there_are_workers_and_no_more(gate: Gate) -> None:
    with JobQueue(3) as queue:
        queue.create_job("job", range(10), do.block_until_told(gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for_count(3)
        assert sum(item.status is ItemStatus.PROCESSING for item in run.job.items) == 3
        assert len(gate.arrived()) == 3
        gate.open()
        assert run.result().results == list(range(10))


@pytest.mark.holds("seed: JobQueue: a worker that finishes an item takes the next pending one")
def test_worker_that_finishes_an_item_picks_up_the_next_pending_one(gate: Gate) -> None:
    def handle(item: int) -> int:
        if item == 0:
            gate.pass_through(item)
        # Where the first has not begun for a second, on a busy machine, the worker that is free takes that one too.
        gate.wait_for(0)
        return current_item().worker

    with JobQueue(2) as queue:
        queue.create_job("job", range(20), handle)
        run = queue.start("job")
        ended = run.as_completed()
        others = [next(ended).result for _ in range(19)]
        gate.open()
        run.result()
    assert set(others) == {1 - results_of(run.job)[0]}


@pytest.mark.parametrize(("backend", "kind"), [("raw", ValueError), (object(), TypeError), (LokyBackend, TypeError)])
def test_an_engine_that_is_none_is_refused(backend: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="expected 'loky' or a Backend"):
        JobQueue(backend=backend)


# --- creating and starting ------------------------------------------------------------------------------------------


@pytest.mark.holds("seed: create_job: the job is not started")
def test_created_job_is_pending_and_not_started() -> None:
    with JobQueue(1) as queue:
        job = queue.create_job("job", list("abc"), do.succeed)
    assert isinstance(job, Job)
    assert (job.id, job.status, job.total, job.completed, job.failed) == ("job", "pending", 3, 0, 0)
    assert (job.started_at, job.finished_at, job.duration) == (None, None, None)
    assert (job.paused, job.cancelled) == (False, False)
    assert [(item.status, item.attempts) for item in job.items] == [("pending", 0)] * 3


@pytest.mark.holds(
    "seed: start: the result is the finished job",
    "seed: start: the status becomes running",
    "seed: start: all items are waited for",
)
def test_started_job_runs_and_its_run_resolves_to_the_finished_job(gate: Gate) -> None:
    with JobQueue(1) as queue:
        created = queue.create_job("job", list("abc"), do.block_until_told(gate))
        run = queue.start("job")
        assert (created.status, run.job.status) == ("running", "running")
        gate.wait_for("a")
        gate.open()
        job = run.result()
    assert (job.status, created.status, job.completed) == ("completed", "completed", 3)
    assert job.results == ["a", "b", "c"]


@pytest.mark.holds("seed: Job: id, status, total, completed, failed, started_at, finished_at, items, paused, cancelled")
def test_job_tells_when_it_ran_and_how_long() -> None:
    with JobQueue(1) as queue:
        first, second = queue.run(["a"], do.succeed), queue.run(["a"], do.succeed)
    for job in (first, second):
        assert job.started_at is not None
        assert job.finished_at is not None
        assert job.duration is not None
        assert job.started_at + job.duration == pytest.approx(job.finished_at)
        assert job.duration >= 0
    assert first.started_at is not None
    assert second.started_at is not None
    assert first.started_at <= second.started_at


#: What each call expects, and the jobs that it refuses.
EXPECTED = {
    "start": ("a pending job to start", "running paused completed"),
    "pause": ("a running job to pause", "pending completed"),
    "resume": ("a paused job to resume", "pending completed"),
    "clear_job": ("a pending or finished job to clear", "running paused"),
}


@pytest.mark.holds("error: JobStateError")
def test_each_call_refuses_a_job_whose_status_it_is_not_for(gate: Gate) -> None:
    def check(status: str) -> None:
        for call, (expected, refused) in EXPECTED.items():
            if status in refused.split():
                with pytest.raises(JobStateError, match=f"expected {expected}, got one that is {status}"):
                    getattr(queue, call)("job")

    with JobQueue(1) as queue:
        queue.create_job("job", ["a"], do.block_until_told(gate))
        check("pending")
        run = queue.start("job")
        check("running")
        queue.pause("job")
        check("paused")
        queue.resume("job")
        gate.open()
        run.result()
        check("completed")
        assert run.job.results == ["a"]


@pytest.mark.holds(
    "seed: start: a job that is not found is an error",
    "seed: get_job: a job by its id, None for an unknown one",
    "error: JobNotFoundError",
)
def test_unknown_ids_raise_and_get_job_returns_none() -> None:
    unknown: list[Any] = ["nobody", 5, None, b"job"]
    with JobQueue(1) as queue:
        calls: list[Callable[[Any], object]]
        calls = [queue.start, queue.pause, queue.resume, queue.cancel, queue.clear_job, queue.retry_failed]
        for job_id, call in itertools.product(unknown, calls):
            with pytest.raises(JobNotFoundError, match=f"job {job_id!r}") as caught:
                call(job_id)
            assert isinstance(caught.value, KeyError)
            assert not str(caught.value).startswith(("'", '"'))
        assert [queue.get_job(job_id) for job_id in [*unknown, []]] == [None] * 5


@pytest.mark.holds("seed: get_stats: running with paused, pending, completed and total")
def test_stats_count_running_with_paused_and_pending_and_all_that_ended(gate: Gate) -> None:
    with JobQueue(2) as queue:
        assert dataclasses.astuple(queue.get_stats()) == (0, 0, 0, 0)
        for name in ("running", "paused", "pending", "cancelled"):
            queue.create_job(name, [name], do.block_until_told(gate))
        runs = [queue.start("running"), queue.start("paused")]
        gate.wait_for("running", "paused")
        queue.pause("paused")
        queue.cancel("cancelled")
        queue.create_job("failed", ["a"], do.fail, max_retries=0)
        queue.create_job("empty", [], do.fail, max_retries=0)
        empty = queue.start("empty").result()
        assert (empty.status, empty.total, empty.results) == (JobStatus.COMPLETED, 0, [])
        stats = queue.get_stats()
        assert (stats.running, stats.pending, stats.completed, stats.total) == (2, 2, 2, 6)
        queue.resume("paused")
        gate.open()
        for run in (*runs, queue.start("failed")):
            run.result()
        stats = queue.get_stats()
        assert (stats.running, stats.pending, stats.completed, stats.total) == (0, 1, 5, 6)


@pytest.mark.holds("seed: clear_job: the job is removed from the queue")
def test_cleared_job_is_gone_from_the_queue_and_readable_where_it_is_held() -> None:
    with JobQueue(1) as queue:
        job = queue.run(["a", "b"], do.succeed, id="job")
        queue.clear_job("job")
        assert queue.get_job("job") is None
        assert queue.jobs() == []
        assert queue.get_stats().total == 0
        assert job.results == ["a", "b"]
        queue.create_job("job", ["c"], do.succeed)
        queue.clear_job("job")
        assert queue.get_job("job") is None


# --- items ----------------------------------------------------------------------------------------------------------


def test_list_of_items_is_copied_shallowly_and_items_are_pickled_when_dispatched(tmp_path: Path) -> None:
    items = [{"id": 1, "value": "old"}, {"id": 2, "value": "old"}]
    with JobQueue(1) as queue:
        queue.create_job("job", items, lambda item: item["value"])
        items[0]["value"] = "new"
        items.append({"id": 3, "value": "too late"})
        assert queue.start("job").result().results == ["new", "old"]


def test_items_of_a_job_are_a_sequence() -> None:
    with JobQueue(1) as queue:
        job = queue.run(list("abcd"), do.succeed)
    assert len(job.items) == 4
    assert [item.result for item in job.items] == ["a", "b", "c", "d"]
    assert job.items[-1].result == "d"
    assert [item.result for item in job.items[1:3]] == ["b", "c"]
    assert job.items[0] == job.items[-4]
    assert len({job.items[0], job.items[0], job.items[1]}) == 2
    with pytest.raises(IndexError):
        job.items[4]


@pytest.mark.holds("promise: Every item ends once")
def test_many_tiny_items_come_home_in_order() -> None:
    with JobQueue(2) as queue:
        job = queue.run(range(100_000), do.double)
    assert job.results == list(range(0, 200_000, 2))
    assert (job.completed, job.failed) == (100_000, 0)


# --- what an ended job says -----------------------------------------------------------------------------------------


@pytest.mark.holds("seed: JobItem: id, status, attempts, error, result, proposed_alt")
def test_item_says_how_it_went() -> None:
    def handle(item: str) -> dict[str, str]:
        if item == "bad":
            raise ValueError(f"cannot do {item}")
        return {"altText": "a sentence"}

    with JobQueue(1, retry=SOON) as queue:
        job = queue.run(["good", "bad"], handle, id="job")
    good, bad = job.items
    assert (good.id, good.status, good.attempts, good.payload) == (0, "completed", 1, "good")
    assert (good.error, good.exception, good.traceback, good.history) == (None, None, None, [])
    assert (good.result, good.proposed_alt) == ({"altText": "a sentence"}, "a sentence")
    assert good.elapsed >= 0
    assert (bad.status, bad.attempts, bad.error, bad.result) == ("failed", 2, "ValueError: cannot do bad", None)
    assert bad.proposed_alt is None
    assert isinstance(bad.exception, ValueError)
    assert bad.traceback is not None
    assert "in handle" in bad.traceback
    assert bad.traceback in str(bad.exception.__cause__)
    assert [failed.error for failed in bad.history] == ["ValueError: cannot do bad"] * 2
    assert all(failed.duration >= 0 and failed.pid for failed in bad.history)


def test_elapsed_is_the_time_of_the_last_try_in_the_handler() -> None:
    def handle(item: str) -> float:
        begun = time.monotonic()
        threading.Event().wait(0.3 if current_item().attempt == 1 else 0.05)
        if current_item().attempt == 1:
            raise ValueError(time.monotonic() - begun)
        return time.monotonic() - begun

    with JobQueue(1, retry=SOON) as queue:
        job = queue.run(["a"], handle)
    (item,) = job.items
    # What the handler measured is a part of it; float32 keeps seven digits.
    assert item.elapsed >= 0.999 * results_of(job)[0]
    assert item.history[0].duration >= 0.999 * float(item.history[0].message)


@pytest.mark.holds("seed: start: the final status depends on the results", "fault: the function raises")
def test_results_are_in_item_order_and_none_where_an_item_failed() -> None:
    with JobQueue(2, max_retries=0) as queue:
        job = queue.run(list("abc"), do.only("b", do.fail))
    assert job.status is JobStatus.COMPLETED_WITH_ERRORS
    assert (job.completed, job.failed, job.total) == (2, 1, 3)
    assert job.results == ["a", None, "c"]


@pytest.mark.holds("error: ItemError")
def test_failures_are_item_errors_with_the_item_and_the_failure_as_cause() -> None:
    def fail_but_b(item: str) -> str:
        if item != "b":
            raise LookupError(item)
        return item

    with JobQueue(2, max_retries=0) as queue:
        job = queue.run(list("abc"), fail_but_b)
        well = queue.run(list("abc"), do.succeed)
    assert [failure.item.id for failure in job.failures] == [0, 2]
    for failure in job.failures:
        assert type(failure) is ItemError
        assert failure.__cause__ is failure.item.exception
        assert isinstance(failure.__cause__, LookupError)
    with pytest.raises(ExceptionGroup) as caught:
        job.raise_for_failures()
    assert [type(error) for error in caught.value.exceptions] == [ItemError, ItemError]
    assert well.failures == []
    well.raise_for_failures()


@pytest.mark.holds("seed: Job: id, status, total, completed, failed, started_at, finished_at, items, paused, cancelled")
def test_wire_form_of_a_job_has_the_seed_s_keys_and_milliseconds() -> None:
    items = [{"id": 1}, {"id": 2}]

    def handle(item: dict[str, int]) -> dict[str, str]:
        if item["id"] == 2:
            raise ValueError("no picture")
        return {"alt_text": "a couch"}

    with JobQueue(1, max_retries=0) as queue:
        pending = queue.create_job("job", items, handle).to_dict()
        job = queue.start("job").result()
    wire = job.to_dict()
    assert pending == {
        "id": "job",
        "status": "pending",
        "total": 2,
        "completed": 0,
        "failed": 0,
        "items": [{"id": 1, "status": "pending", "attempts": 0}, {"id": 2, "status": "pending", "attempts": 0}],
        "paused": False,
        "cancelled": False,
    }
    assert wire["items"] == [
        {
            "id": 1,
            "status": "completed",
            "attempts": 1,
            "result": {"alt_text": "a couch"},
            "proposedAlt": "a couch",
        },
        {"id": 2, "status": "failed", "attempts": 1, "error": "no picture", "errorType": "ValueError"},
    ]
    assert job.started_at is not None
    assert job.finished_at is not None
    assert (wire["startedAt"], wire["finishedAt"]) == (round(job.started_at * 1000), round(job.finished_at * 1000))
    assert type(wire["startedAt"]) is int
    assert wire["status"] == "completed_with_errors"
    assert json.loads(json.dumps(wire)) == wire


# --- what users write instead ---------------------------------------------------------------------------------------


def test_methods_take_the_job_itself(tmp_path: Path) -> None:
    with JobQueue(1, max_retries=0) as queue, JobQueue(1) as other:
        job = queue.create_job("job", ["a", "b"], do.only("b", do.fail))
        assert queue.start(job).result() is job
        assert queue.retry_failed(job).result() is job
        assert queue.load_job(job) is job
        other.create_job("job", ["a"], do.succeed)
        for method in (other.start, other.pause, other.cancel, other.clear_job, other.retry_failed, other.load_job):
            with pytest.raises(JobNotFoundError, match="expected a job of this queue, got <Job 'job' completed_with"):
                method(job)
        queue.clear_job(job)
        assert queue.jobs() == []


def test_a_job_says_what_to_call_instead_of_what_it_does_not_have() -> None:
    with JobQueue(1) as queue:
        job: Any = queue.create_job("job", ["a"], do.succeed)
        for name, said in (
            ("result", r"queue.start\(job\).result\(\)"),
            ("start", r"queue.start\(job\)"),
            ("errors", "failures"),
        ):
            with pytest.raises(AttributeError, match=f"^'Job' object has no attribute '{name}'; .*{said}"):
                getattr(job, name)
        with pytest.raises(AttributeError, match=r"^'Job' object has no attribute 'colour'$"):
            _ = job.colour


def test_items_are_found_by_id_or_by_what_they_are() -> None:
    with JobQueue(1) as queue:
        by_id = queue.create_job("ids", [{"id": "x"}, {"id": "y"}], do.succeed)
        paths = queue.create_job("paths", [Path("a/b.jpg"), "c.jpg", 3], do.succeed)
        assert by_id.items["y"] == by_id.items[1]
        assert (paths.items["a/b.jpg"], paths.items["c.jpg"]) == tuple(paths.items[:2])
        with pytest.raises(
            KeyError, match="expected the id of an item, an item that is this text or path, or its label, got 'z'"
        ):
            paths.items["z"]


@pytest.mark.holds("error: JobExistsError")
@pytest.mark.parametrize("has_journal", [False, True], ids=["without a journal", "with a journal"])
def test_a_job_that_is_over_is_replaced_where_that_is_said(tmp_path: Path, gate: Gate, has_journal: bool) -> None:
    seen = tmp_path / "seen"

    def note(item: str) -> str:
        with seen.open("a") as file:
            file.write(item)
        return item

    with JobQueue(1, journal=tmp_path / "run.db" if has_journal else None) as queue:
        first = queue.run(["a", "b"], note, id="job")
        with pytest.raises(JobExistsError, match="once that job has ended, replace=True puts") as caught:
            queue.run(["a", "b", "c"], note, id="job")
        assert isinstance(caught.value, ValueError)
        with pytest.raises(ValueError, match="timeout"):
            queue.run(["a"], note, id="job", replace=True, timeout=-1)
        assert queue.get_job("job") is first
        second = queue.run(
            ["a", "b", "c"], note, id="job", replace=True, rerun=Rerun(update=True) if has_journal else None
        )
        assert second is queue.get_job("job") is queue.last_job
        assert (first.results, second.results) == (["a", "b"], ["a", "b", "c"])
        assert seen.read_text() == ("abc" if has_journal else "ababc")
        waiting = queue.create_job("waits", ["a"], do.block_until_told(gate))
        run = queue.start(waiting)
        with pytest.raises(
            JobStateError, match="expected a pending or finished job to replace, got one that is running"
        ):
            queue.create_job("waits", ["a"], note, replace=True)
        gate.open()
        run.result(300)


def test_an_interrupted_run_leaves_its_job_at_hand(gate: Gate) -> None:
    def send() -> None:
        gate.wait_for("b")
        wait_until(lambda: queue.last_job is not None and queue.last_job.completed == 1)
        send_to_main_thread(signal.SIGINT)

    with JobQueue(1) as queue:
        sender = threading.Thread(target=send)
        sender.start()
        with pytest.raises(KeyboardInterrupt) as caught:
            queue.run(["a", "b"], do.only("b", do.announce(gate, do.hang_sleep)), chunksize=1)
        sender.join()
        job = queue.last_job
        assert job is not None
        assert vars(caught.value)["job"] is job
        assert caught.value.__notes__ == [
            "mpqueue: job 'job-1' is cancelled; 1 of its 2 items have completed: see queue.last_job"
        ]
        assert job.results == ["a", None]


# --- retry_failed ---------------------------------------------------------------------------------------------------


def test_retry_failed_runs_the_failed_items_again_and_keeps_their_history(tmp_path: Path) -> None:
    def handle(item: str) -> str:
        if item == "b" and not (tmp_path / "repaired").exists():
            raise ValueError("broken")
        return item + str(current_item().attempt)

    told: list[str] = []
    ended: list[Any] = []
    with JobQueue(1, retry=SOON) as queue:
        queue.on("job:progress", lambda event: ended.append(event.item))
        for name in ("job:started", "job:finished"):
            queue.on(name, lambda event, name=name: told.append(name))
        queue.create_job("job", list("abc"), handle)
        first = queue.start("job")
        job = first.result()
        assert (job.status, job.failed, job.items[1].attempts) == ("completed_with_errors", 1, 2)
        (tmp_path / "repaired").touch()
        second = queue.retry_failed("job")
        assert first.done()
        assert second is not first
        second.result()
        assert queue.retry_failed("job").done(), "nothing failed: resolved at once"
    assert (job.status, job.completed, job.failed) == ("completed", 3, 0)
    assert job.results == ["a1", "b1", "c1"]
    assert job.items[1].attempts == 1
    assert [failed.error for failed in job.items[1].history] == ["ValueError: broken"] * 2
    assert told == ["job:started", "job:finished"] * 2
    (failed,) = (item for item in ended if item.status is ItemStatus.FAILED)
    assert (failed.id, failed.error) == (1, "ValueError: broken"), "as it was when it was told"


# --- the costliest first --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", [float, [3, 1.5, 7, 3], (3.0, 1.5, 7.0, 3.0)])
def test_the_costliest_items_run_first(cost: Any, tmp_path: Path) -> None:
    with JobQueue(1) as queue:
        job = queue.run([3, 1.5, 7, 3], partial(append_to, tmp_path / "order"), cost=cost, chunksize=1)
        assert job.results == [3, 1.5, 7, 3]
    assert (tmp_path / "order").read_text().split() == ["7", "3", "3", "1.5"]


def append_to(path: Path, item: float) -> float:
    with path.open("a") as file:
        file.write(f"{item}\n")
    return item


@pytest.mark.slow
def test_what_items_took_last_time_is_their_cost_where_that_is_said(tmp_path: Path) -> None:
    def handler(item: float) -> float:
        threading.Event().wait(item)
        return append_to(tmp_path / "order", item)

    items = [0.05, 0.2, 0.1, 0.0]
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        took = {item.payload: item.elapsed for item in queue.run(items, handler, id="job", chunksize=1).items}
    (tmp_path / "order").unlink()
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        queue.run([*items, 0.01], handler, id="job", rerun=Rerun(update=True, redo="all"), cost="recorded", chunksize=1)
    order = [float(line) for line in (tmp_path / "order").read_text().split()]
    took[0.01] = sum(took.values()) / 4  # of which nothing is known
    assert order == sorted(took, key=lambda item: -took[item])


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"cost": [1, 2]}, ValueError, "expected a number for each of 3 items, got 2"),
        ({"cost": [1, 2, 3, 4]}, ValueError, "expected a number for each of 3 items, got 4"),
        ({"cost": [1] * 10}, ValueError, "expected a number for each of 3 items, got 10"),
        ({"cost": itertools.count()}, ValueError, r"expected a number for each of 3 items, got more in count\("),
        ({"cost": iter([1, 2])}, ValueError, "expected a number for each of 3 items, got 2"),
        ({"cost": {1: 5, 2: 6, 3: 7}}, TypeError, "or a list of numbers, got .* of type dict"),
        ({"cost": {5, 6, 7}}, TypeError, "or a list of numbers, got .* of type set"),
        ({"cost": len}, TypeError, "object of type 'int' has no len"),
        ({"cost": str}, ValueError, "got inf"),
        ({"cost": lambda item: None}, TypeError, r"cost of item 0 \(1\): expected a number, got None of type NoneType"),
        ({"cost": "size"}, ValueError, "expected a function, a number for each item or 'recorded', got 'size'"),
        ({"cost": "recorded"}, ValueError, "expected a queue with a journal for 'recorded'"),
        ({"cost": 3}, TypeError, "expected a function of an item, or a list of numbers, got 3"),
    ],
)
def test_what_is_no_cost_is_refused(options: Any, error: type[Exception], said: str) -> None:
    items = [1, 2, 3] if options["cost"] is not str else [1, float("inf"), 3]
    with JobQueue(1) as queue:
        with pytest.raises(error, match=said):
            queue.create_job("job", items, do.double, **options)
        assert queue.jobs() == []


def test_a_queue_says_in_one_line_how_its_jobs_stand() -> None:
    with JobQueue(2) as queue:
        queue.create_job("<b>", [1], do.succeed)
        assert repr(queue) == "<JobQueue of 2 workers; jobs: 0 running, 1 pending, 0 completed>"
        assert "&lt;b&gt;" in queue._repr_html_()
    assert repr(queue) == "<JobQueue closed; jobs: 0 running, 1 pending, 0 completed>"
