"""The end of a queue: by ``with``, by ``close``, by nobody holding it, by the interpreter's exit, in a fork."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mpqueue import Job, JobQueue, JobRun, JobStatus, QueueClosedError, RetryPolicy
from mpqueue.events import ITEM_RETRY, JOB_PROGRESS, JOB_STARTED
from tests.support import handlers as do
from tests.support.interruptions import Interruption
from tests.support.leaks import threads_of_queues
from tests.support.length import IS_LONG
from tests.support.programs import is_running, run_program
from tests.support.recorder import Recorder
from tests.support.strength import workers_of
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.slow


def start_blocked(queue: JobQueue, gate: Gate, job_id: str = "job", items: Any = "ab") -> JobRun:
    """Start a job whose items wait at the gate, one at a time."""
    queue.create_job(job_id, list(items), do.block_until_told(gate), chunksize=1)
    return queue.start(job_id)


# --- by itself ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["with", "close"])
def test_started_jobs_are_waited_for(end: str, gate: Gate) -> None:
    def open_later() -> None:
        gate.wait_for("a")
        gate.open()

    threading.Thread(target=open_later).start()
    if end == "with":
        with JobQueue(1) as queue:
            run = start_blocked(queue, gate)
    else:
        queue = JobQueue(1)
        run = start_blocked(queue, gate)
        queue.close()
    assert run.done()
    assert run.job.results == ["a", "b"]


def is_closed(queue: JobQueue) -> bool:
    try:
        queue.__enter__()
    except QueueClosedError:
        return True
    return False


def test_leaving_by_an_exception_kills_and_keeps_the_results_so_far(gate: Gate) -> None:
    jobs: list[Job] = []

    def work() -> None:
        with JobQueue(2) as queue:
            recorder = Recorder(queue)
            jobs.append(
                queue.create_job("job", list("abcd"), do.only("b", do.announce(gate, do.hang_sleep)), chunksize=1)
            )
            jobs.append(queue.create_job("pending", ["x"], do.succeed))
            queue.start("job")
            gate.wait_for("b")
            recorder.wait_for(JOB_PROGRESS, 3)
            raise LookupError

    with pytest.raises(LookupError):
        work()
    job, pending = jobs
    assert (job.status, job.results, job.cancelled) == ("cancelled", ["a", None, "c", "d"], True)
    assert job.items[1].status == "pending"
    assert pending.status is JobStatus.PENDING


@pytest.mark.holds("error: QueueClosedError")
def test_calls_on_a_closed_queue_raise_and_jobs_stay_readable() -> None:
    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(["a", "b"], do.only("b", do.fail), id="job")
        queue.create_job("pending", ["x"], do.succeed)
    calls: list[Callable[[], object]] = [
        lambda: queue.create_job("new", ["a"], do.succeed),
        lambda: queue.start("pending"),
        lambda: queue.run(["a"], do.succeed),
        lambda: queue.pause("job"),
        lambda: queue.resume("job"),
        lambda: queue.cancel("pending"),
        lambda: queue.cancel_items("pending", [0]),
        lambda: queue.clear_job("job"),
        lambda: queue.retry_failed("job"),
        lambda: queue.on(JOB_STARTED, print),
        lambda: queue.once(JOB_STARTED, print),
        queue.__enter__,
        lambda: asyncio.run(queue.__aenter__()),
    ]
    for call in calls:
        with pytest.raises(QueueClosedError, match="expected an open queue to"):
            call()
    assert (job.status, job.results, job.failed) == ("completed_with_errors", ["a", None], 1)
    assert job.items[1].error == "ValueError: cannot do 'b'"
    assert job.to_dict()["completed"] == 1
    assert len(job.failures) == 1
    again = queue.get_job("job")
    assert again is not None
    assert again.results == job.results
    assert [job.id for job in queue.jobs()] == ["job", "pending"]
    assert queue.get_stats().total == 2


# --- drain ----------------------------------------------------------------------------------------------------------


@pytest.mark.long(but=["drain"])
@pytest.mark.parametrize("how", ["drain", "adrain"])
def test_a_drained_queue_has_written_all_that_ended_and_the_next_run_goes_on(how: str, path: Path, gate: Gate) -> None:
    def work(item: str) -> object:
        return do.block_until_told(gate)(item) if item == "ends" else do.announce(gate, do.hang_sleep)(item)

    def open_once_it_drains() -> None:
        wait_until(lambda: is_closed(queue))
        gate.open()

    queue = JobQueue(2, journal=path)
    queue.create_job("job", ["ends", "hangs", "later"], work, chunksize=1)
    run = queue.start("job")
    gate.wait_for("ends", "hangs")
    opener = threading.Thread(target=open_once_it_drains)
    opener.start()
    asyncio.run(queue.adrain(2.0)) if how == "adrain" else queue.drain(2.0)
    assert run.done()
    opener.join()
    job = run.job
    assert (job.status, job.cancelled) == ("cancelled", True)
    assert [(item.status, item.attempts) for item in job.items] == [("completed", 1), ("pending", 0), ("pending", 0)]
    assert not threads_of_queues()
    with JobQueue(1, journal=path) as again:
        job = again.create_job("job", ["ends", "hangs", "later"], do.succeed)
        assert again.start("job").result(300).results == ["ends", "hangs", "later"]
    assert [item.attempts for item in job.items] == [1] * 3


def test_a_drain_whose_items_all_end_completes_the_job_and_wants_a_number_of_seconds(gate: Gate) -> None:
    with JobQueue(1) as queue:
        run = start_blocked(queue, gate, items="a")
        gate.wait_for("a")
        for wrong, error in ((-1, ValueError), (float("nan"), ValueError), ("soon", ValueError), (None, TypeError)):
            with pytest.raises(error, match="within: expected a"):
                queue.drain(wrong)  # type: ignore[arg-type]
        closer = threading.Thread(target=queue.drain)
        closer.start()
        wait_until(lambda: is_closed(queue))
        gate.open()
        closer.join(300)
        assert run.result(300).status is JobStatus.COMPLETED


def test_a_drain_that_waits_is_cut_short(gate: Gate) -> None:
    async def drain_until_cancelled(queue: JobQueue) -> None:
        task = asyncio.create_task(queue.adrain(600.0))
        await asyncio.to_thread(wait_until, lambda: is_closed(queue))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def drain_until_dropped(queue: JobQueue) -> None:
        coroutine = queue.adrain(600.0)
        coroutine.send(None)
        coroutine.close()

    cuts: list[Callable[[JobQueue], object]] = [
        lambda queue: queue.drain(0),
        lambda queue: asyncio.run(drain_until_cancelled(queue)),
        lambda queue: asyncio.run(drain_until_dropped(queue)),
    ]
    for cut_short in cuts:
        queue = JobQueue(1)
        run = start_blocked(queue, gate, items="a")
        gate.wait_for("a")
        closer = threading.Thread(target=queue.drain, args=(600.0,))
        closer.start()
        wait_until(partial(is_closed, queue))
        cut_short(queue)
        closer.join(300)
        assert run.result(300).status is JobStatus.CANCELLED
        assert not closer.is_alive()


@pytest.mark.parametrize("what", ["a listener", "a done-callback", "the end of a setup"])
def test_a_close_that_waits_is_cut_short_by_one_that_kills(
    what: str, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    inside, may_go_on, told = threading.Event(), threading.Event(), list[bool]()

    def hear(_: object) -> None:
        inside.set()
        told.append(may_go_on.wait(300))

    def setup() -> Iterator[None]:
        yield
        if what == "the end of a setup":
            gate.pass_through("the end")

    queue = JobQueue(1)
    if what == "a listener":
        queue.on(JOB_PROGRESS, hear)
    queue.create_job("job", ["a", "bystander"], lambda item, state: item, setup=setup)
    run = queue.start("job")
    if what == "a done-callback":
        run.add_done_callback(hear)
    closer = threading.Thread(target=queue.close)
    closer.start()
    wait_until(lambda: is_closed(queue) and run.job.status.final)
    if what == "the end of a setup":
        gate.wait_for("the end")
    else:
        assert inside.wait(300)
    queue.close(kill=True)
    closer.join(300)
    assert not closer.is_alive()
    assert told == [], "it was still waited for"
    may_go_on.set()
    assert run.result(300).results == ["a", "bystander"]
    wait_until(lambda: not threads_of_queues())
    assert not [record for record in caplog.records if "closing goes on" in record.message]


def test_an_end_that_was_interrupted_is_ended_by_the_next_close(tmp_path: Path) -> None:
    """At any moment; a few of them, from the first to one that does not come before the end."""
    moment, came = 0, True
    while came:
        path = tmp_path / f"{moment}.db"
        queue = JobQueue(1, journal=path)
        queue.run(["a", "b"], do.succeed, id="job")
        interruption = Interruption(moment)
        with contextlib.suppress(KeyboardInterrupt):
            interruption.run(queue.close)
        queue.close(kill=True)
        wait_until(lambda: not threads_of_queues())  # listeners are not waited for
        with JobQueue(1, journal=path) as again:
            assert again.load_job("job").results == ["a", "b"], f"interrupted at moment {moment}"
        moment, came = moment + (7 if IS_LONG else 50), interruption.came
    assert moment > 200


def test_closing_ends_workers_with_retries_that_are_due_in_a_long_time_only_when_told(tmp_path: Path) -> None:
    queue = JobQueue(1, retry=RetryPolicy(1, base_delay=300))
    recorder = Recorder(queue)
    queue.create_job("job", ["a"], do.fail)
    run = queue.start("job")
    recorder.wait_for(ITEM_RETRY)
    queue.close(wait=False)
    assert run.result(300).status is JobStatus.CANCELLED
    wait_until(lambda: not threads_of_queues())


# --- by nobody holding it -------------------------------------------------------------------------------------------


def test_queue_that_nobody_holds_is_collected_with_its_workers(tmp_path: Path) -> None:
    queue = JobQueue(2)
    recorder = Recorder(queue)
    job = queue.run(range(10), do.double)
    pids = workers_of(queue)
    gone = weakref.ref(queue)
    del queue, recorder
    gc.collect()
    assert gone() is None
    wait_until(lambda: not any(map(is_running, pids)))
    wait_until(lambda: not threads_of_queues())
    assert job.results == [2 * item for item in range(10)], "which outlives it"


def test_queue_that_was_never_used_is_collected() -> None:
    gone = weakref.ref(JobQueue(2))
    gc.collect()
    assert gone() is None


# --- by the interpreter's exit --------------------------------------------------------------------------------------

EXITS = {
    "close is forgotten while idle": ("queue.run(list('ab'), str.upper)", 0),
    "close is forgotten while an item runs": ("start('ab', wait); arrived()", 0),
    "close is forgotten while an item ignores SIGTERM": ("start('ab', stubborn); arrived()", 0),
    "close is forgotten while a retry waits": ("queue.on('item:retry', hear); start('ab', fail); here.wait(300)", 0),
    "sys.exit with a code": ("queue.run(list('ab'), str.upper); sys.exit(7)", 7),
    "an exception": ("start('ab', wait); arrived(); raise LookupError('out')", 1),
    "a listener hangs": ("queue.on('job:started', hear_for_ever); start('ab', wait); here.wait(300)", 0),
    "a daemon thread waits for a run": (
        "run = start('ab', wait); arrived(); threading.Thread(target=run.result, daemon=True).start()",
        0,
    ),
    "a thread waits for a run": ("run = start('ab', wait); arrived(); threading.Thread(target=run.result).start()", 0),
    "inside the with block": ("queue.__enter__(); start('ab', wait); arrived()", 0),
    "the queue is in a cycle": ("queue.me = queue; queue.run(list('ab'), str.upper); del queue", 0),
}

EXIT = """
    import os, signal, sys, threading, time
    import mpqueue
    from tests.support.waiting import wait_until

    here = threading.Event()

    def wait(item):
        open(f"item-{{item}}", "w").close()
        time.sleep(300)

    def stubborn(item):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        wait(item)

    def fail(item):
        raise ValueError(item)

    def hear(told):
        here.set()

    def hear_for_ever(told):
        here.set()
        threading.Event().wait(300)

    def start(items, handler):
        queue.create_job("job", list(items), handler)
        return queue.start("job")

    def arrived():
        wait_until(lambda: os.path.exists("item-a"))

    queue = mpqueue.JobQueue(2)
    queue.run(range(2), float)
    {body}
"""


@pytest.mark.long(
    but=["close is forgotten while an item runs", "an exception", "a thread waits for a run", "the queue is in a cycle"]
)
@pytest.mark.holds("promise: Closing leaves nothing")
@pytest.mark.parametrize("how", EXITS)
def test_interpreter_exits_and_leaves_nothing_when(how: str, tmp_path: Path) -> None:
    body, code = EXITS[how]
    done = run_program(tmp_path, EXIT.format(body=body), check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    if code == 1:
        assert done.stderr.endswith("LookupError: out\n")
        assert done.stderr.count("Traceback") == 1
    else:
        assert done.stderr.count("\n") == ("start(" in body)
        assert done.stderr.startswith("mpqueue: the program ends before this job: 'job' (" if done.stderr else "")


LEFT = {
    "never started": (
        "for name in 'abcdefg': queue.create_job(name, [1, 2], abs)",
        "mpqueue: the program ends, and 7 jobs were never started: 'a', 'b', 'c', 'd', 'e' and 2 more; queue.start()",
    ),
    "still running": (
        "queue.create_job('a', [0, 300], time.sleep, chunksize=1); run = queue.start('a'); next(run.as_completed())",
        "mpqueue: the program ends before this job: 'a' (1 of 2 items completed, 0 failed); run.result() waits",
    ),
    "over": ("queue.run([1, 2], abs); queue.start(queue.create_job('a', [], abs)).result()", ""),
    "closed": ("queue.create_job('a', [1], abs); queue.close()", ""),
}


@pytest.mark.long(but=["still running"])
@pytest.mark.parametrize("what", LEFT)
def test_the_program_s_end_names_the_jobs_that_are_left(what: str, tmp_path: Path) -> None:
    body, said = LEFT[what]
    done = run_program(tmp_path, f"import time\nfrom mpqueue import JobQueue\nqueue = JobQueue(1)\n{body}\n")
    assert (done.stderr == "") if not said else done.stderr.startswith(said)
    assert done.stderr.count("\n") == bool(said)


@pytest.mark.long(but=["exit handlers"])
@pytest.mark.parametrize("when", ["finalizers", "exit handlers"])
def test_what_is_closed_while_the_program_ends_waits_for_nothing(when: str, tmp_path: Path) -> None:
    body = f"""
        import atexit
        from mpqueue import JobQueue, Pool

        class Work:
            def __init__(self, pool, *ends):
                self.pool, self.ends = pool, ends
                if {when!r} == "exit handlers":
                    atexit.register(self.end)

            def end(self):
                for end in self.ends:
                    getattr(self.pool, end)()
                print(*self.ends)

            def __del__(self):
                if {when!r} == "finalizers":
                    self.end()

        class Queue(JobQueue):
            def leave(self):
                self.close(wait=False)

        first = Work(Pool(1), "close", "join")
        print(first.pool.map(abs, [-1]))
        second = Work(Pool(1), "join")
        second.pool.close()
        third = Work(Queue(1), "leave")
        print(third.pool.run([-1], abs).results)
    """
    done = run_program(tmp_path, body)
    assert sorted(done.stdout.splitlines()) == ["[1]", "[1]", "close join", "join", "leave"]
    assert done.stderr == ""


def test_a_thread_that_goes_on_making_queues_does_not_keep_the_program_from_its_end(tmp_path: Path) -> None:
    body = """
        import atexit, threading
        from mpqueue import JobQueue, QueueClosedError

        def go_on():
            while True:
                try:
                    with JobQueue(1) as queue:
                        queue.run(["bystander"], str.upper)
                except QueueClosedError as error:
                    said.append(str(error))
                    if "the program is ending" in said[-1]:
                        return
                here.set()

        def refused():
            thread.join(300)
            print(said[-1])
            try:
                JobQueue(1)
            except QueueClosedError as error:
                print(error)

        here, said = threading.Event(), []
        atexit.register(refused)
        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        here.wait(300)
    """
    done = run_program(tmp_path, body)
    first, second = done.stdout.splitlines()
    assert first == second
    assert first.startswith("the program is ending, so no queue can be made or started any more")
    assert done.stderr.count("the program ends before this job") <= 1


@pytest.mark.holds("promise: Closing leaves nothing")
def test_os_exit_leaves_nothing(tmp_path: Path) -> None:
    body = "start('ab', wait); arrived(); os._exit(9)"
    done = run_program(tmp_path, EXIT.format(body=body), check=False)
    assert (done.returncode, done.stdout) == (9, "")


# --- in a fork ------------------------------------------------------------------------------------------------------


def in_fork(work: Callable[[], object]) -> str:
    """What the work raises in a fork of this process: its type's name and message."""
    receiver, sender = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(receiver)
            try:
                outcome = repr(work())
            except BaseException as error:
                outcome = f"{type(error).__name__}: {error}"
            os.write(sender, outcome.encode())
        finally:
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver) as file:
        outcome = file.read()
    os.waitpid(pid, 0)
    return outcome


FORK_CALLS: dict[str, Callable[[JobQueue, JobRun], object]] = {
    "create_job": lambda queue, run: queue.create_job("new", ["a"], do.succeed),
    "start": lambda queue, run: queue.start("pending"),
    "run": lambda queue, run: queue.run(["a"], do.succeed),
    "pause": lambda queue, run: queue.pause("job"),
    "resume": lambda queue, run: queue.resume("job"),
    "cancel": lambda queue, run: queue.cancel("job"),
    "cancel_items": lambda queue, run: queue.cancel_items("job", [0]),
    "get_job": lambda queue, run: queue.get_job("job"),
    "jobs": lambda queue, run: queue.jobs(),
    "clear_job": lambda queue, run: queue.clear_job("pending"),
    "retry_failed": lambda queue, run: queue.retry_failed("job"),
    "get_stats": lambda queue, run: queue.get_stats(),
    "close": lambda queue, run: queue.close(),
    "with": lambda queue, run: queue.__enter__(),
    "on": lambda queue, run: queue.on(JOB_STARTED, print),
    "result": lambda queue, run: run.result(),
    "exception": lambda queue, run: run.exception(),
    "as_completed": lambda queue, run: list(run.as_completed()),
    "cancel of the run": lambda queue, run: run.cancel(),
    "await": lambda queue, run: asyncio.run(_await(run)),
}


async def _await(run: JobRun) -> Job:
    return await run


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_of_the_parent_gets_an_error_when_it_uses_the_queue(gate: Gate) -> None:
    with JobQueue(2) as queue:
        queue.create_job("pending", ["x"], do.succeed)
        run = start_blocked(queue, gate)
        gate.wait_for("a")
        for name, call in FORK_CALLS.items():
            outcome = in_fork(lambda call=call: call(queue, run))  # type: ignore[misc]
            assert outcome.startswith("QueueClosedError: this queue belongs to process"), (name, outcome)
        gate.open()
        assert run.result(300).results == ["a", "b"]
        assert len(workers_of(queue)) == 2
