"""A queue with a journal: what ended once is never run again, whatever ended the program, and nothing else changes."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import ItemStatus, JobQueue, JobStatus, RetryPolicy, current_item
from mpqueue.errors import (
    JobExistsError,
    JobNotFoundError,
    JobStateError,
    JournalError,
    JournalMismatchError,
    QueueClosedError,
)
from mpqueue.events import JOB_FINISHED, JOB_PAUSED, JOB_PROGRESS, JOB_RESUMED, JOB_STARTED
from tests.support import handlers as do
from tests.support.disk import Disk
from tests.support.journals import lines_of, rows_of, told, values_of, wait_until_free
from tests.support.programs import run_program, run_until_not_killed
from tests.support.recorder import Recorder
from tests.support.results import warned
from tests.support.this_system import IS_WINDOWS
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.usefixtures("forked_workers")

QUICK = RetryPolicy(max_retries=2, base_delay=0.02)


# -- going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_job_that_was_over_is_so_at_once_and_nothing_runs(path: Path, tmp_path: Path) -> None:
    items = [{"id": name} for name in "abc"]
    with JobQueue(1, journal=path, retry=QUICK) as queue:
        first = queue.run(items, do.only({"id": "b"}, do.fail), id="job")
    again = Gate(tmp_path / "again")
    with JobQueue(1, journal=path, retry=QUICK) as queue:
        recorder = Recorder(queue)
        job = queue.create_job("job", items, do.announce(again))
        assert job.status is JobStatus.COMPLETED_WITH_ERRORS
        run = queue.start("job")
        assert run.result(300) == run.job
        with pytest.raises(JobStateError):
            queue.start("job")
        assert recorder.names("job") == [JOB_STARTED, JOB_FINISHED]
    assert again.arrived() == set()
    assert told(job) == told(first)
    assert job.to_dict() == first.to_dict()
    assert (job.duration, job.retries, job.seed) == (first.duration, first.retries, first.seed)


def test_tries_that_failed_before_the_end_count_after_it(path: Path) -> None:
    patient = RetryPolicy(max_retries=3, base_delay=3600.0)
    with JobQueue(1, journal=path, retry=patient) as queue:
        recorder = Recorder(queue)
        job = queue.create_job("job", ["a", "b"], do.only("b", do.fail))
        queue.start("job")
        recorder.wait_for("item:retry")
        recorder.wait_for(JOB_PROGRESS)
        queue.close(kill=True)
    assert job.items[1].attempts == 1
    with JobQueue(1, journal=path, retry=QUICK) as queue:
        recorder = Recorder(queue)
        job = queue.create_job("job", ["a", "b"], do.only("b", do.fail))
        assert (job.items[1].status, job.items[1].attempts) == (ItemStatus.PENDING, 1)
        queue.start("job").result()
    assert job.items[1].attempts == 3
    assert len(job.items[1].history) == 3
    assert recorder.retries("job") == [(1, 2)]


@pytest.mark.parametrize("how", ["as_completed", "async for"])
def test_an_item_is_told_once_and_only_when_it_is_on_disk_whenever_somebody_begins_to_look(
    path: Path, tmp_path: Path, disk: Disk, how: str
) -> None:
    items, waiting, told = [0, 1, 2, 3], Gate(tmp_path / "waiting"), list[int]()

    async def look_async(run: Any) -> None:
        async for item in run:
            told.append(item.id)

    def look(run: Any) -> None:
        if how == "as_completed":
            told.extend(item.id for item in run.as_completed())
        else:
            asyncio.run(look_async(run))

    with JobQueue(1, journal=path, max_retries=0) as queue:
        job = queue.create_job("job", items, do.only(3, do.block_until_told(waiting), do.only(1, do.fail)), chunksize=1)
        disk.hold()
        run = queue.start("job")
        wait_until(lambda: job.completed + job.failed == 3 and disk.reached.is_set(), what="ended, but not on disk")
        threads = [threading.Thread(target=look, args=(run,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert told == []
        waiting.open()
        wait_until(lambda: job.status.final, what="the end, which is not on disk either")
        assert (told, run.done()) == ([], False)
        late = threading.Thread(target=look, args=(run,))
        late.start()
        disk.release()
        for thread in (*threads, late):
            thread.join(300)
        assert run.result(300).completed == 3
    assert sorted(told) == sorted(items * 3)


KILLER = """
import os, sys, threading
import mpqueue
from tests.support.this_system import KILL

def work(item):
    with open(sys.argv[2], "a") as calls:
        calls.write(f"{item} ")
    if item == 13:
        os.kill(int(os.environ["PROGRAM"]), KILL)
        threading.Event().wait()
    return item

if __name__ == "__main__":
    os.environ["PROGRAM"] = str(os.getpid())
    if sys.argv[3] == "stream":
        call = mpqueue.imap(work, range(40), journal=sys.argv[1], concurrency=2, max_retries=1, on_error="collect")
        results = [*call]
        print(39, [(at, f"{type(one).__name__}: {one}") for at, one in enumerate(results) if one != at])
        sys.exit()
    with mpqueue.JobQueue(2, journal=sys.argv[1], max_retries=1) as queue:
        plan = queue.plan_job("job", range(40), work)
        job = queue.create_job("job", range(40), work)
        failed = tuple(failure.item.id for failure in job.failures)
        assert (plan.to_run, plan.failed) == (40 - job.completed - job.failed, failed), plan
        queue.start("job").result()
        print(job.completed, [(failure.item.id, failure.item.error) for failure in job.failures])
"""


@pytest.mark.slow
@pytest.mark.holds("fault: kill -9 of your program")
@pytest.mark.parametrize("kind", ["list", "stream"])
def test_an_item_that_kills_its_program_fails_in_the_end(path: Path, tmp_path: Path, kind: str) -> None:
    calls = tmp_path / "calls"
    ends, done = run_until_not_killed(lambda: run_program(tmp_path, KILLER, path, calls, kind, check=False))
    assert 3 <= ends <= 5  # at most twice beside others, and three times alone
    assert done.stdout.startswith("39 [(13, 'WorkerCrashedError: the program ended 3 times while this item ran alone")
    assert calls.read_text().split().count("13") == ends
    assert not Path(f"{path}.running").exists()


# -- refusals and hints ------------------------------------------------------------------------------------------------


def with_ids(*ids: Any) -> list[Any]:
    return [{"id": each} for each in ids]


@pytest.mark.slow
@pytest.mark.holds("error: JournalMismatchError")
@pytest.mark.parametrize(
    ("items", "message"),
    [
        (with_ids("a"), "others: 1 gone; Rerun"),
        (with_ids("b", "c", "a"), "others: 1 new;"),
        (["x", "y"], "others: 2 new, 2 gone;"),
        ([{"id": "b"}, {"id": "a", "n": 1}], "others: 1 changed;"),
    ],
)
def test_a_job_with_other_items_is_refused_and_the_recorded_one_stays(
    path: Path, items: list[Any], message: str
) -> None:
    with JobQueue(1, journal=path) as queue:
        queue.run(with_ids("a", "b"), do.succeed, id="job")
    before = rows_of(path, "job")
    with JobQueue(1, journal=path) as queue:
        with pytest.raises(JournalMismatchError, match=message) as caught:
            queue.create_job("job", items, do.succeed)
        assert isinstance(caught.value, JournalError | JobExistsError)
        assert (len(before), rows_of(path, "job")) == (2, before)
        assert queue.create_job("job", with_ids("a", "b"), do.succeed).completed == 2
        assert queue.run(items, do.succeed, id="another").completed == len(items)


SQUARE = "the handler (now `tests.support.handlers.square`) has changed since 1 of these results was made"


@pytest.mark.parametrize(
    ("handler", "options", "what"),
    [
        (do.square, {}, f"{SQUARE}; "),
        (do.succeed, {"seed": 8}, "its seed has changed since it was recorded; "),
        (do.square, {"seed": 8}, f"{SQUARE}; its seed has changed since it was recorded; "),
    ],
)
def test_other_code_is_a_warning_and_an_error_where_that_is_asked_for(
    path: Path, handler: Any, options: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    items = [{"id": "a", "n": 1}]
    with JobQueue(1, journal=path) as queue:
        queue.run(items, do.succeed, id="job", seed=7)
    with JobQueue(1, journal=path) as queue:
        with pytest.raises(JournalMismatchError, match=re.escape(what)):
            queue.create_job("job", items, handler, rerun=mpqueue.Rerun(strict=True), **options)
        assert not warned(caplog)
        queue.create_job("job", items, handler, **options)
        (warning,) = warned(caplog)
        assert what in warning


@pytest.mark.holds("error: JournalError")
@pytest.mark.parametrize("journal", [3, b"run.db", "", "a\0b", object()])
def test_what_can_be_no_path_is_refused(journal: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="journal: expected"):
        JobQueue(1, journal=journal)


@pytest.mark.holds("error: JournalError")
def test_a_second_queue_is_refused_while_the_first_is_open(path: Path) -> None:
    queue = JobQueue(1, journal=path)
    with queue:
        with pytest.raises(JournalError, match="another queue"):
            JobQueue(1, journal=path)
        assert queue.run(["a"], do.succeed).completed == 1
    JobQueue(1, journal=path).close()
    for call in (queue.prune, lambda: queue.create_job("job", ["a"], do.succeed)):
        with pytest.raises(QueueClosedError):
            call()


def test_a_queue_that_nobody_holds_lets_go_of_its_journal(path: Path) -> None:
    JobQueue(1, journal=path)
    wait_until_free(path)


# -- what a journal holds ----------------------------------------------------------------------------------------------


def test_jobs_of_the_journal_are_listed_loaded_and_cleared(path: Path) -> None:
    with JobQueue(1, journal=path, max_retries=0) as queue:
        old = queue.run(with_ids("a", "b"), do.only({"id": "b"}, do.fail), id="old")
        queue.create_job("new", ["x", "y"], do.succeed)
        assert [job.id for job in queue.jobs()] == ["old", "new"]
    with JobQueue(1, journal=path) as queue:
        queue.create_job("here", ["a"], do.succeed)
        assert [(job.id, job.status, job.total) for job in queue.jobs()] == [
            ("old", JobStatus.COMPLETED_WITH_ERRORS, 2),
            ("new", JobStatus.PENDING, 2),
            ("here", JobStatus.PENDING, 1),
        ]
        loaded = queue.load_job("old")
        assert told(loaded) == told(old)
        assert loaded.to_dict() == old.to_dict()
        assert (loaded.seed, loaded.duration, loaded.retries) == (old.seed, old.duration, old.retries)
        assert [error.item.payload for error in loaded.failures] == [{"id": "b"}]
        with pytest.raises(JobNotFoundError):
            queue.load_job("nothing")
        with pytest.raises(JobNotFoundError):
            queue.start("old")
        assert queue.get_job("nothing") is None
        queue.clear_job("old")
        queue.clear_job("here")
        assert queue.get_job("old") is None
        assert queue.create_job("old", list("abc"), do.succeed).total == 3
        with pytest.raises(JobNotFoundError):
            queue.clear_job("here")
    assert [job.id for job in queue.jobs()] == ["new", "old"]


def test_failed_items_run_again_from_the_journal_with_the_handler_that_is_in_there(path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    with JobQueue(1, journal=path, max_retries=0) as queue:
        queue.run(list("abc"), lambda item: 1 / 0 if item == "b" and broken.exists() else item.upper(), id="job")
    broken.unlink()
    with JobQueue(1, journal=path, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.retry_failed("job").result()
        assert job.results == ["A", "B", "C"]
        assert (job.items[1].attempts, len(job.items[1].history)) == (1, 1)
        assert [progress.item.id for progress in recorder.of(JOB_PROGRESS)] == [1]
        with pytest.raises(JobExistsError):
            queue.create_job("job", list("abc"), do.succeed)
    with JobQueue(1, journal=path) as queue:
        assert queue.load_job("job").results == ["A", "B", "C"]
        queue.create_job("other", ["a", "b"], do.succeed)
    with JobQueue(1, journal=path) as queue, pytest.raises(JobStateError, match="create_job"):
        queue.retry_failed("other")


# -- big and odd results -----------------------------------------------------------------------------------------------


def make_array(number: int) -> dict[str, Any]:
    import numpy as np  # which there is none of under wine

    return {"number": number, "pixels": np.full((512, 256), number, dtype="f8")}


def make_bytes(number: int) -> bytes:
    return bytes([number]) * 300_000


def test_big_results_go_to_files_and_come_back(path: Path) -> None:
    with JobQueue(2, journal=path) as queue:
        queue.run(range(3), make_array, id="arrays")
        queue.run(range(2), make_bytes, id="bytes")
        files = values_of(path)
    assert len(files) == 5
    assert IS_WINDOWS or {found.stat().st_mode & 0o777 for found in files} == {0o600}
    assert path.stat().st_size < 200_000
    with JobQueue(2, journal=path) as queue:
        arrays = queue.create_job("arrays", range(3), make_array)
        assert [result["number"] for result in arrays.results if result] == [0, 1, 2]
        pixels = arrays.items[2].result["pixels"]  # type: ignore[index]
        pixels += 1
        assert float(pixels.sum()) == 3.0 * 512 * 256
        assert queue.load_job("bytes").results == [make_bytes(0), make_bytes(1)]
        queue.clear_job("arrays")
        assert len(values_of(path)) == 2


def test_a_result_whose_file_is_gone_is_made_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with JobQueue(1, journal=path) as queue:
        queue.run(range(2), make_bytes, id="job")
    values_of(path)[0].unlink()
    with JobQueue(1, journal=path) as queue:
        job = queue.create_job("job", range(2), make_bytes)
        assert (job.completed, job.status) == (1, JobStatus.PENDING)
        assert queue.start("job").result().results == [make_bytes(0), make_bytes(1)]
    assert len(warned(caplog)) == 1


# -- a disk that fills -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_full_disk_pauses_the_job_and_room_lets_it_go_on(
    path: Path, tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    calls, waiting = Gate(tmp_path / "calls"), Gate(tmp_path / "waiting")
    handler = do.announce(calls, do.return_value(os.urandom(2000)))
    with JobQueue(1, journal=path) as queue:
        recorder = Recorder(queue)
        handler = do.only_from(100, do.block_until_told(waiting, handler), handler)
        job = queue.create_job("job", range(150), handler, chunksize=2)
        disk.is_full = True
        run = queue.start("job")
        with pytest.raises(JournalError, match="room on the disk"):
            run.result(300)
        recorder.wait_for(JOB_PAUSED)
        waiting.open()
        with pytest.raises(JournalError, match="room on the disk"):
            queue.resume("job")
        with pytest.raises(JournalError, match="room on the disk"):
            queue.create_job("more", ["a"], do.succeed)
        assert queue.get_job("more") is None
        disk.is_full = False
        recorder.wait_for(JOB_RESUMED)
        assert run.result(300).completed == 150
        recorder.wait_for(JOB_FINISHED)
        recorder.check(job)
        assert queue.run(["a"], do.succeed, id="more").completed == 1
    assert len(calls.arrived()) == 150
    assert sum("paused" in text for text in warned(caplog)) == 1
    with JobQueue(1, journal=path) as queue:
        assert queue.load_job("job").completed == 150


@pytest.mark.slow
def test_closing_with_a_full_disk_ends_and_tells_what_is_lost(path: Path, disk: Disk) -> None:
    queue = JobQueue(1, journal=path)
    job = queue.create_job("job", range(200), do.return_value(os.urandom(2000)), chunksize=3)
    disk.is_full = True
    run = queue.start("job")
    with pytest.raises(JournalError, match="room on the disk"):
        run.result(300)
    with pytest.raises(JournalError, match="will run again"):
        queue.close()
    assert run.result() is run.job
    assert run.job.completed == job.completed > 0
    disk.is_full = False
    with JobQueue(1, journal=path) as queue:
        job = queue.create_job("job", range(200), do.return_value(b"x"))
        assert job.completed < 200
        assert queue.start("job").result().completed == 200


# -- one item once more ------------------------------------------------------------------------------------------------


def test_one_item_can_be_replayed_here_also_from_the_journal(path: Path, tmp_path: Path) -> None:
    seen: list[Any] = []

    def setup() -> Any:
        seen.append("begun")
        yield 10
        seen.append("ended")

    def handler(item: dict[str, Any], state: int) -> int:
        current = current_item()
        current.report(0.5)
        seen.append((os.getpid(), current.id, current.attempt, current.cancelled, current.worker))
        if item["id"] == "b":
            raise ValueError("b")
        drawn = int(current.rng.integers(1000))
        return state + drawn

    items = [{"id": "a", "n": 1}, {"id": "b", "n": 2}]
    with JobQueue(1, journal=path, max_retries=0) as queue:
        job = queue.create_job("job", items, handler, setup=setup)
        events: list[Any] = []
        queue.on(JOB_PROGRESS, events.append)
        queue.start("job").result()
        assert job.items[0].replay() == job.items[0].result
        failed = next(told.item for told in events if told.item.id == "b")
        with pytest.raises(ValueError, match="b") as caught:
            failed.replay()
        assert caught.traceback[-1].name == "handler"
        with pytest.raises(RuntimeError, match="current_item"):
            current_item()
        assert (job.completed, job.failed, job.items[1].attempts) == (1, 1, 1)
    with JobQueue(1, journal=path) as queue:
        loaded = queue.load_job("job")
        assert loaded.items[0].replay() == job.items[0].result
        with pytest.raises(ValueError, match="b"):
            loaded.items[1].replay()


def say_pid(_: int) -> int:
    return os.getpid()


def test_an_item_without_its_handler_can_not_be_replayed(path: Path) -> None:
    with JobQueue(1, journal=path) as queue:
        job = queue.run([b"x" * 300_000], do.return_length, id="big")
        assert job.items[0].replay() == 300_000
        assert queue.run([1], say_pid, id="small").items[0].replay() == os.getpid()
    with JobQueue(1, journal=path) as queue, pytest.raises(JournalError, match="not in the journal"):
        queue.load_job("big").items[0].replay()


# -- map ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_map_with_a_journal_calls_only_what_is_missing(path: Path, tmp_path: Path) -> None:
    first, again = Gate(tmp_path / "first"), Gate(tmp_path / "again")
    of_one = partial(mpqueue.map, journal=path, job_id="squares", concurrency=2)
    failing = do.announce(first, do.only(7, do.fail_with(ValueError("seven")), do.square))
    with pytest.raises(ValueError, match="seven"):
        of_one(failing, range(12), max_retries=0)
    assert len(first.arrived()) == 12
    healed = do.announce(again, do.square)
    results = of_one(healed, range(12), on_error="collect")
    assert again.arrived() == set()
    assert [result for result in results if not isinstance(result, ValueError)] == [n * n for n in range(12) if n != 7]
    with pytest.raises(JournalMismatchError, match="1 new, 1 gone"):
        of_one(healed, range(1, 13))
    assert of_one(healed, range(8, 13), rerun=mpqueue.Rerun(update=True)) == [64, 81, 100, 121, 144]
    assert again.arrived() == {"12"}
    assert mpqueue.starmap(pow, [(2, 3), (2, 4)], journal=path, concurrency=1) == [8, 16]
    assert mpqueue.map(abs, [-1, -2], journal=str(path), concurrency=1) == [1, 2]
    assert mpqueue.map(str.upper, ["a"], journal=path, concurrency=1) == ["A"], "it has no module of its own"
    assert [*lines_of(path)] == [
        "squares",
        "map builtins.pow",
        "map builtins.abs",
        "map builtins.str.upper",
    ]
