"""Events: which, when, with what, in what order; and listeners that are slow, raise, or are coroutines."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from mpqueue import (
    ItemRetry,
    Job,
    JobFinished,
    JobProgress,
    JobQueue,
    JobRun,
    JobStarted,
    JobStatus,
    RetryPolicy,
)
from mpqueue.events import EVENT_NAMES, ITEM_RETRY, JOB_FINISHED, JOB_PAUSED, JOB_PROGRESS, JOB_RESUMED, JOB_STARTED
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.strength import workers_of
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


# --- which and with what --------------------------------------------------------------------------------------------


@pytest.mark.holds(
    "seed: events: the queue is an event emitter",
    "seed: events: job:started, with the job's id",
    "seed: events: job:finished, with id, status, completed, failed and duration",
)
def test_job_tells_that_it_started_each_item_and_that_it_finished() -> None:
    with JobQueue(2, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.run(list("abc"), do.only("b", do.fail), id="job")
    assert recorder.names("job") == [JOB_STARTED, *[JOB_PROGRESS] * 3, JOB_FINISHED]
    (started,), (finished,) = recorder.of(JOB_STARTED), recorder.of(JOB_FINISHED)
    assert started == JobStarted("job")
    assert isinstance(finished, JobFinished)
    assert finished == JobFinished("job", JobStatus.COMPLETED_WITH_ERRORS, 2, 1, finished.duration)
    assert finished.duration == job.duration
    recorder.check(job)


@pytest.mark.holds(
    "seed: events: job:progress after each item that completes or fails, with the whole state",
    "seed: JobItem: pending, processing, completed, failed or retry",
)
def test_progress_comes_after_each_item_with_counters_status_and_item_as_of_then() -> None:
    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(20), do.only(7, do.fail), id="job")
    told = recorder.of(JOB_PROGRESS)
    assert all(isinstance(progress, JobProgress) for progress in told)
    assert [(progress.completed, progress.failed) for progress in told][-1] == (19, 1)
    for number, progress in enumerate(told, 1):
        assert progress.completed + progress.failed == number
        assert (progress.job_id, progress.status, progress.total, progress.paused) == ("job", "running", 20, False)
        assert progress.item.status == ("failed" if progress.item.id == 7 else "completed")
    (failed,) = [progress.item for progress in told if progress.item.id == 7]
    assert (failed.error, failed.attempts) == ("ValueError: cannot do 7", 1)
    assert job.status is JobStatus.COMPLETED_WITH_ERRORS


def test_items_of_a_progress_are_a_read_only_live_view() -> None:
    with JobQueue(1) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(5), do.succeed)
    first = recorder.of(JOB_PROGRESS)[0]
    assert len(first.items) == 5
    assert [item.status for item in first.items] == ["completed"] * 5
    assert first.items[3] == job.items[3]
    assert not hasattr(first.items, "append")
    with pytest.raises(TypeError):
        first.items[0] = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.completed = 0


def test_retry_is_told_with_item_attempt_delay_and_error() -> None:
    with JobQueue(1, retry=RetryPolicy(2, base_delay=0.01)) as queue:
        recorder = Recorder(queue)
        queue.run(["a", "b"], do.only("b", do.fail_until(3)), id="job")
    told = recorder.of(ITEM_RETRY)
    assert all(isinstance(retry, ItemRetry) for retry in told)
    assert [(retry.job_id, retry.item.id, retry.attempt, retry.delay, retry.error) for retry in told] == [
        ("job", 1, 1, 0.01, "ValueError: cannot do 'b'"),
        ("job", 1, 2, 0.02, "ValueError: cannot do 'b'"),
    ]
    assert [(retry.item.status, retry.item.attempts) for retry in told] == [("retry", 1), ("retry", 2)]


def test_pause_and_resume_are_told_as_progress_without_an_item(gate: Gate) -> None:
    with JobQueue(1) as queue:
        recorder = Recorder(queue)
        queue.create_job("job", ["a", "b"], do.block_until_told(gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for("a")
        queue.pause("job")
        queue.resume("job")
        gate.open()
        run.result()
    (paused,), (resumed,) = recorder.of(JOB_PAUSED), recorder.of(JOB_RESUMED)
    for told, status in ((paused, "paused"), (resumed, "running")):
        assert isinstance(told, JobProgress)
        assert (told.job_id, told.status, told.item, told.total) == ("job", status, None, 2)
        assert (told.completed, told.failed, told.paused) == (0, 0, status == "paused")


@pytest.mark.holds("seed: events: job:progress after each item that completes or fails, with the whole state")
def test_wire_form_of_events_has_the_seed_s_keys() -> None:
    def handle(item: dict[str, int]) -> dict[str, str]:
        if item["id"] == 2:
            raise ValueError("no picture")
        return {"alt_text": "a couch"}

    with JobQueue(1, retry=RetryPolicy(1, base_delay=0.01)) as queue:
        recorder = Recorder(queue)
        queue.run([{"id": 1}, {"id": 2}], handle, id="job")
    assert recorder.of(JOB_STARTED)[0].to_dict() == {"jobId": "job"}
    finished = recorder.of(JOB_FINISHED)[0]
    assert finished.to_dict() == {
        "jobId": "job",
        "status": "completed_with_errors",
        "completed": 1,
        "failed": 1,
        "duration": round(finished.duration * 1000),
    }
    assert recorder.of(JOB_PROGRESS)[-1].to_dict() == {
        "jobId": "job",
        "status": "running",
        "total": 2,
        "completed": 1,
        "failed": 1,
        "paused": False,
        "items": [
            {"id": 1, "status": "completed", "result": {"alt_text": "a couch"}, "proposedAlt": "a couch"},
            {"id": 2, "status": "failed", "error": "no picture", "errorType": "ValueError"},
        ],
    }
    assert recorder.of(ITEM_RETRY)[0].to_dict() == {
        "jobId": "job",
        "item": {"id": 2, "status": "retry", "error": "no picture", "errorType": "ValueError"},
        "attempt": 1,
        "delay": 10,
        "error": "no picture",
        "errorType": "ValueError",
    }
    for _, told in recorder.events:
        assert json.loads(json.dumps(told.to_dict())) == told.to_dict()


def test_progress_interval_merges_progress_and_always_sends_the_last_state() -> None:
    with JobQueue(2, max_retries=0, progress_interval=300) as queue:
        recorder = Recorder(queue)
        queue.run(range(5000), do.only(17, do.fail), id="job")
    told = recorder.of(JOB_PROGRESS)
    assert len(told) == 2, "the first at once, the last before the end, none between"
    assert [progress.item for progress in told] == [None, None]
    assert (told[-1].completed, told[-1].failed) == (4999, 1)
    assert recorder.names("job") == [JOB_STARTED, JOB_PROGRESS, JOB_PROGRESS, JOB_FINISHED]


def test_merged_progress_comes_when_the_interval_is_over_without_another_item(gate: Gate) -> None:
    with JobQueue(1, progress_interval=0.05) as queue:
        recorder = Recorder(queue)
        queue.create_job("job", list("abc"), do.only("c", do.block_until_told(gate)), chunksize=1)
        run = queue.start("job")
        gate.wait_for("c")
        wait_until(lambda: [progress.completed for progress in recorder.of(JOB_PROGRESS)][-1:] == [2])
        gate.open()
        run.result()


def test_merged_progress_that_waits_comes_before_the_job_is_paused(gate: Gate) -> None:
    with JobQueue(1, progress_interval=300) as queue:
        recorder = Recorder(queue)
        job = queue.create_job("job", list("abc"), do.only("c", do.block_until_told(gate)), chunksize=1)
        run = queue.start("job")
        gate.wait_for("c")
        wait_until(lambda: job.completed == 2)
        queue.pause("job")
        wait_until(lambda: recorder.of(JOB_PAUSED))
        assert recorder.names("job") == [JOB_STARTED, JOB_PROGRESS, JOB_PROGRESS, JOB_PAUSED]
        assert [(told.completed, told.paused) for told in recorder.of(JOB_PROGRESS)] == [(1, False), (2, False)]
        queue.resume("job")
        gate.open()
        run.result()


@pytest.mark.parametrize("progress_interval", [0, 300])
def test_progress_of_an_open_job_has_the_total_of_its_time(progress_interval: float) -> None:
    may_listen = threading.Event()
    with JobQueue(1, progress_interval=progress_interval) as queue:
        recorder = Recorder(queue)
        queue.on(JOB_STARTED, lambda event: may_listen.wait(300))
        job = queue.open_job("job", [1, 2], do.double)
        run = queue.start("job")
        wait_until(lambda: job.completed == 2)
        queue.add_items("job", range(10))
        may_listen.set()
        wait_until(lambda: recorder.of(JOB_PROGRESS))
        queue.seal("job")
        run.result()
    told = recorder.of(JOB_PROGRESS)
    assert told[0].total == 2
    assert told[-1].total == 12


# --- listening ------------------------------------------------------------------------------------------------------


def test_listening_to_what_is_no_event_or_by_what_is_no_callable_is_refused() -> None:
    with JobQueue(1) as queue:
        anything: Any = queue
        for name in ("job:done", "job:", "item:", "item:completed", "job:Progress"):
            with pytest.raises(ValueError, match=r"expected one of .*job:progress.*got '" + name):
                queue.on(name, print)
            with pytest.raises(ValueError, match="job:progress"):
                queue.once(name, print)
        with pytest.raises(TypeError, match=r"^event: expected a str, got None"):
            anything.on(None, print)
        with pytest.raises(TypeError, match="expected a callable"):
            anything.on(JOB_STARTED, "print")
        queue.on("mine", print)


def test_listeners_may_be_decorated_heard_once_and_removed() -> None:
    heard: list[str] = []
    with JobQueue(1) as queue:

        @queue.on(JOB_STARTED)
        def always(started: JobStarted) -> None:
            heard.append(f"always {started.job_id}")

        @queue.once(JOB_STARTED)
        def once(started: JobStarted) -> None:
            heard.append(f"once {started.job_id}")

        queue.run(["a"], do.succeed, id="first")
        queue.run(["a"], do.succeed, id="second")
        queue.off(JOB_STARTED, always)
        queue.run(["a"], do.succeed, id="third")
    assert heard == ["always first", "once first", "always second"]


def test_completion_offers_what_listeners_need() -> None:
    heard: list[int] = []
    with JobQueue(1) as queue:
        assert {"on", "once", "off"} <= {*dir(queue)}
        assert not {"emit", "listeners", "event_names"} & {*dir(queue)}
        queue.on("mine", heard.append)
        queue.emit("mine", 1)
        queue.off("mine", heard.append)
        queue.emit("mine", 2)
    assert heard == [1]


def test_listeners_are_called_in_order_on_one_thread_of_their_own() -> None:
    calls: list[tuple[str, str, int]] = []
    with JobQueue(2) as queue:
        for listener in ("first", "second"):
            for name in EVENT_NAMES:
                queue.on(
                    name,
                    lambda told, listener=listener, name=name: calls.append((listener, name, threading.get_ident())),
                )
        queue.run(range(50), do.succeed)
    assert [listener for listener, _, _ in calls] == ["first", "second"] * (len(calls) // 2)
    assert len({thread for _, _, thread in calls}) == 1
    assert threading.get_ident() not in {thread for _, _, thread in calls}
    assert [name for _, name, _ in calls][::2] == [JOB_STARTED, *[JOB_PROGRESS] * 50, JOB_FINISHED]


@pytest.mark.holds("fault: a listener raises or is slow")
@pytest.mark.parametrize("error", [ValueError("trouble"), SystemExit(3), KeyboardInterrupt(), BaseException("trouble")])
def test_listener_that_raises_is_logged_and_the_others_go_on(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with JobQueue(1) as queue:

        @queue.on(JOB_PROGRESS)
        def troublemaker(progress: JobProgress) -> None:
            raise error

        recorder = Recorder(queue)
        job = queue.run(["a", "b"], do.succeed)
        recorder.check(job)
    assert job.status is JobStatus.COMPLETED
    assert len(caplog.records) == 2
    for record in caplog.records:
        assert (record.name, record.levelno) == ("mpqueue", logging.ERROR)
        assert "troublemaker" in record.getMessage()
        assert record.exc_info is not None
        assert record.exc_info[1] is error


@pytest.mark.holds("fault: a listener raises or is slow")
def test_slow_listener_delays_later_events_and_the_run_but_never_the_work(tmp_path: Path) -> None:
    may_go_on = threading.Event()
    with JobQueue(2) as queue:

        @queue.on(JOB_STARTED)
        def slow(started: JobStarted) -> None:
            may_go_on.wait(300)

        recorder = Recorder(queue)
        job = queue.create_job("job", range(2000), do.double)
        run = queue.start("job")
        wait_until(lambda: job.status is JobStatus.COMPLETED, what="the work to be done")
        assert job.results == [2 * item for item in range(2000)]
        assert recorder.names("job") == []
        assert not run.done()
        may_go_on.set()
        run.result(300)
        recorder.check(job)
    assert len(recorder.of(JOB_PROGRESS)) == 2000


def test_run_resolves_after_a_last_progress_that_its_interval_has_delayed() -> None:
    told: list[tuple[int, bool, bool]] = []
    with JobQueue(1, progress_interval=0.5) as queue:

        @queue.on(JOB_PROGRESS)
        def progress(event: JobProgress) -> None:
            if event.completed == 1:
                queue.add_items("job", ["b"])  # ends within the interval; its event comes when that is over
            else:
                queue.seal("job")
            told.append((event.completed, run.job.status.final, run.done()))

        queue.open_job("job", [], do.succeed)
        run = queue.start("job")
        queue.add_items("job", ["a"])
        run.result(300)
    assert told == [(1, False, False), (2, True, False)]


# --- calls from listeners -------------------------------------------------------------------------------------------


def test_every_method_may_be_called_from_listeners_and_done_callbacks(gate: Gate) -> None:
    done: list[Any] = []
    finished = threading.Event()

    def use_everything(queue: JobQueue, suffix: str) -> None:
        queue.create_job(f"new {suffix}", range(200), do.block_until_told(gate))
        queue.start(f"new {suffix}")
        queue.pause(f"new {suffix}")
        queue.resume(f"new {suffix}")
        queue.cancel(f"new {suffix}")
        queue.create_job(f"cleared {suffix}", ["a"], do.succeed)
        queue.clear_job(f"cleared {suffix}")
        queue.on(JOB_PAUSED, print)
        queue.remove_listener(JOB_PAUSED, print)
        done.append((queue.get_job(f"new {suffix}"), queue.get_stats(), queue.jobs(), queue.retry_failed("job")))

    with JobQueue(1, max_retries=0) as queue:
        queue.create_job("job", ["a"], do.succeed)

        @queue.on(JOB_FINISHED)
        def listener(told: JobFinished) -> None:
            if told.job_id == "job":
                use_everything(queue, "of listener")

        def callback(run: Any) -> None:
            use_everything(queue, "of callback")
            finished.set()

        run = queue.start("job")
        run.add_done_callback(callback)
        assert finished.wait(300)
        gate.open()
    assert [type(job) for job, *_ in done] == [Job, Job]
    assert [type(retried) for *_, retried in done] == [JobRun, JobRun]


async def awaited(run: JobRun) -> Job:
    return await run


def test_waiting_for_an_unresolved_run_in_a_listener_raises_instead_of_hanging() -> None:
    errors: list[BaseException] = []

    def note(call: Any) -> None:
        try:
            call()
        except RuntimeError as error:
            errors.append(error)

    with JobQueue(1) as queue:
        queue.create_job("job", ["a"], do.succeed)
        runs: list[JobRun] = []
        started = threading.Event()

        @queue.once(JOB_PROGRESS)
        def listener(progress: JobProgress) -> None:
            assert started.wait(300)
            note(runs[0].result)
            note(lambda: runs[0].exception(5))
            note(lambda: asyncio.run(awaited(runs[0])))
            note(lambda: queue.run(["x"], do.succeed))

        runs.append(queue.start("job"))
        started.set()
        runs[0].add_done_callback(lambda run: errors.append(RuntimeError(run.result().id)))
        runs[0].result(300)
        wait_until(lambda: len(errors) == 5)
    assert [str(error).partition(":")[0] for error in errors] == [
        "run.result()",
        "run.exception()",
        "await run",
        "queue.run()",
        "job",
    ], "a resolved run gives its result anywhere"
    assert len(queue.jobs()) == 1, "queue.run() created nothing"


def test_close_from_a_listener_acts_as_if_it_did_not_wait(gate: Gate) -> None:
    closed = threading.Event()
    queue = JobQueue(1)

    @queue.on(JOB_PROGRESS)
    def listener(progress: JobProgress) -> None:
        queue.close()
        closed.set()

    queue.create_job("job", list("abc"), do.only("b", do.block_until_told(gate)), chunksize=1)
    run = queue.start("job")
    assert closed.wait(300)
    assert run.job.cancelled
    gate.open()
    assert run.result(300).status is JobStatus.CANCELLED
    queue.close()


# --- coroutine listeners --------------------------------------------------------------------------------------------


def test_coroutine_listener_registered_outside_a_loop_is_refused() -> None:
    async def listener(told: Any) -> None: ...

    class Listener:
        async def __call__(self, told: Any) -> None: ...

    with JobQueue(1) as queue:
        for refused in (listener, Listener()):
            with pytest.raises(TypeError, match="expected a running event loop"):
                queue.on(JOB_STARTED, refused)
        assert queue.listeners(JOB_STARTED) == []


def test_coroutine_listeners_are_scheduled_in_order_on_the_loop_that_registered_them() -> None:
    heard: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with JobQueue(2) as queue:
            heard_all = asyncio.Event()

            @queue.on(JOB_PROGRESS)
            async def listener(progress: JobProgress) -> None:
                heard.append((progress.completed, asyncio.get_running_loop() is loop))
                if progress.completed == 50:
                    heard_all.set()

            @queue.once(JOB_PROGRESS)
            async def once(progress: JobProgress) -> None:
                heard.append("once")

            await queue.start(queue.create_job("job", range(50), do.succeed).id)
            await heard_all.wait()

    asyncio.run(main())
    assert heard.count("once") == 1
    heard.remove("once")
    assert heard == [(number, True) for number in range(1, 51)]


def test_coroutine_listeners_are_not_awaited() -> None:
    async def main() -> JobStatus:
        async with JobQueue(1) as queue:
            release = asyncio.Event()
            ended = asyncio.Event()

            @queue.on(JOB_STARTED)
            async def listener(started: JobStarted) -> None:
                await release.wait()
                ended.set()

            queue.create_job("job", list("abc"), do.succeed)
            job = await queue.start("job")
            assert not ended.is_set()
            release.set()
            await ended.wait()
            return job.status

    assert asyncio.run(main()) is JobStatus.COMPLETED


def test_coroutine_listener_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with JobQueue(1) as queue:
            heard = asyncio.Event()

            @queue.on(JOB_FINISHED)
            async def troublemaker(finished: JobFinished) -> None:
                heard.set()
                raise ValueError("trouble")

            queue.create_job("job", ["a"], do.succeed)
            await queue.start("job")
            await heard.wait()
            await asyncio.sleep(0)

    asyncio.run(main())
    (record,) = caplog.records
    assert "a coroutine listener raised" in record.getMessage()
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "trouble"


def test_coroutine_listener_of_a_loop_that_is_closed_is_dropped() -> None:
    queue = JobQueue(1)

    async def register() -> None:
        @queue.on(JOB_PROGRESS)
        async def listener(progress: JobProgress) -> None: ...

    asyncio.run(register())
    with queue:
        recorder = Recorder(queue)
        job = queue.run(list("abc"), do.succeed)
        recorder.check(job)
        assert len(workers_of(queue)) == 1
