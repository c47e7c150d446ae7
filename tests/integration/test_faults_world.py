"""The world breaks: no shared memory, no descriptors, no processes; and whoever kills from outside."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from mpqueue import JobQueue, JobStatus, WorkerStartError
from tests.support import handlers as do
from tests.support.command_line import run_command
from tests.support.programs import PATIENCE, run_program, write_program
from tests.support.recorder import Recorder
from tests.support.small_shm import small_shm
from tests.support.strength import workers_of
from tests.support.surroundings import MUSL
from tests.support.systems import LINUX_ONLY

pytestmark = pytest.mark.slow

# --- shared memory --------------------------------------------------------------------------------------------------


def run_in_small_shm(folder: Path, body: str, size: str) -> subprocess.CompletedProcess[str]:
    program = write_program(folder, body)
    command = small_shm([sys.executable, str(program)], size=size)
    return subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


FILLED_BY_A_HANDLER = """
    import os
    import mpqueue
    from tests.support import handlers as do
    from tests.support.strength import workers_of

    with mpqueue.JobQueue(1, max_retries=1, timeout=30) as queue:
        job = queue.run(["left", "culprit", "right"], do.only("culprit", do.fill_shared_memory), chunksize=3)
        assert [job.results[0], job.results[2]] == ["left", "right"], job.to_dict()
        assert [job.items[0].attempts, job.items[2].attempts] == [1, 1]
        # What there is goes on, also with things that would not fit into /dev/shm.
        job = queue.run([bytes(40_000_000)] * 2, len)
        assert job.results == [40_000_000] * 2, job.to_dict()
        assert len(workers_of(queue)) == 1
    print("fine")
"""


def test_handler_that_fills_shared_memory_costs_its_own_item_at_worst(tmp_path: Path) -> None:
    done = run_in_small_shm(tmp_path, FILLED_BY_A_HANDLER, "32m")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fine" in done.stdout


FULL_BEFORE = """
    import os
    {before}
    import mpqueue

    state = os.statvfs("/dev/shm")
    file = os.open("/dev/shm/filled", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(file, 0, state.f_bavail * state.f_frsize)
    with mpqueue.JobQueue(2) as queue:
        job = queue.create_job("job", range(3), float)
        try:
            queue.start("job").result()
        except mpqueue.WorkerStartError as error:
            print(error)
            assert job.status == "pending", job
            # And once there is room again, the same job starts.
            os.unlink("/dev/shm/filled")
            os.close(file)
            queue.start("job").result()
        print(job.results)
"""


@LINUX_ONLY
def test_shared_memory_that_is_full_before_the_start_does_not_matter(tmp_path: Path) -> None:
    done = run_in_small_shm(tmp_path, FULL_BEFORE.format(before=""), "8m")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "[0.0, 1.0, 2.0]\n"


def test_shared_memory_that_is_full_before_the_start_is_refused_where_semaphores_have_names(tmp_path: Path) -> None:
    done = run_in_small_shm(tmp_path, FULL_BEFORE.format(before=MUSL), "8m")
    assert done.returncode == 0, done.stdout + done.stderr
    refusal, results = done.stdout.splitlines()
    assert refusal.startswith("expected at least")
    assert "/dev/shm" in refusal
    assert results == "[0.0, 1.0, 2.0]"


# --- a full disk ----------------------------------------------------------------------------------------------------

# The small /dev/shm is the disk; what the workers share is elsewhere.
FILLS_THE_DISK = """
    import contextlib, os, signal, subprocess, sys, threading, time
    import mpqueue
    from mpqueue import JobQueue, JournalError
    from tests.support import handlers as do

    PATH, FILLER, SEEN = "/dev/shm/run.db", "/dev/shm/filler", os.path.abspath("seen")

    def make_bytes(item):
        while item >= 800 and not os.path.exists(SEEN):  # the disk is full at a fourth of that
            time.sleep(0.01)
        return os.urandom(300_000 if item % 50 == 49 else 2000)

    def refused(call):
        try:
            call()
        except JournalError as error:
            assert "expected room on the disk" in str(error), error
            return True

    def fill():
        file = os.open(FILLER, os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(file, 0, 14 << 20)
        os.close(file)

    def run_until_full(queue):
        job = queue.create_job("job", range(1000), make_bytes, chunksize=2)
        run = queue.start("job")
        assert refused(run.result)
        assert refused(lambda: queue.resume("job"))
        assert refused(lambda: queue.create_job("more", list("a"), do.succeed))
        assert job.status == "paused" and 0 < job.completed < 1000, job
        open(SEEN, "w").close()
        return run

    def check(job):
        assert [len(result) for result in job.results] == [len(make_bytes(item)) for item in range(1000)]
"""

IS_KILLED = """
    if sys.argv[1:]:
        with JobQueue(1, journal=PATH) as queue:
            run_until_full(queue)
            os.kill(os.getpid(), signal.SIGKILL)
    fill()
    assert subprocess.run([sys.executable, __file__, "until it is killed"]).returncode == -signal.SIGKILL
    with open(FILLER, "ab", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    refused(lambda: JobQueue(1, journal=PATH).close())  # or not: there may be nothing to write
    os.unlink(FILLER)
    with JobQueue(1, journal=PATH) as queue:
        job = queue.create_job("job", range(1000), make_bytes)
        print("there", job.completed > 0)
        check(queue.start("job").result())
        assert queue.run(["bystander"], do.succeed, id="more").completed == 1
    print("fine")
"""


def test_disk_that_fills_loses_nothing_and_destroys_nothing(tmp_path: Path) -> None:
    done = run_in_small_shm(tmp_path, FILLS_THE_DISK + IS_KILLED, "16m")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fine" in done.stdout


# --- files that must not grow ---------------------------------------------------------------------------------------

MUST_NOT_GROW = """
    import logging, resource, sys, threading
    import mpqueue

    class Refuses(logging.Filter):
        def filter(self, record):
            raise RuntimeError("no record is good enough")

    heard = []

    class Hears(logging.Handler):
        def emit(self, record):
            heard.append(record.getMessage())

    logging.getLogger().addHandler(Hears())
    limit, by_a_handler = int(sys.argv[1]), sys.argv[2] == "handler"

    def forbid():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def handle(item):
        if by_a_handler:
            forbid()
            logging.getLogger("mpqueue").addFilter(Refuses())  # also our own warnings
        logging.warning("item %s", item)
        print("printed", flush=True)
        if item == 7:
            threading.Event().wait(0.2)  # what ended before it could go home early
        return bytes(300_000) if item % 3 else item

    if not by_a_handler:
        forbid()
    for chunksize in (1, 30):
        with mpqueue.JobQueue(2, max_retries=0) as queue:
            job = queue.run(range(30), handle, chunksize=chunksize, capture_output=True)
            assert job.results == [bytes(300_000) if item % 3 else item for item in range(30)], job.to_dict()
            assert {item.attempts for item in job.items} == {1}
            assert {item.stdout for item in job.items} == {"printed\\n"}
            assert queue.run([bytes(500_000)], len).results == [500_000]
        assert set(heard) >= {f"item {item}" for item in range(30)}, heard
        heard.clear()
    print("fine")
"""


@pytest.mark.long(but=["8192-handler"])
@pytest.mark.parametrize("by", ["parent", "handler"])
@pytest.mark.parametrize("limit", [8192, 200_000])
def test_files_that_must_not_grow_fail_no_item(tmp_path: Path, limit: int, by: str) -> None:
    done = run_program(tmp_path, MUST_NOT_GROW, str(limit), by)
    assert done.stdout == "fine\n", done.stderr


# --- workers that can't be started ----------------------------------------------------------------------------------


#: What each worker runs first: those with these numbers, in the order of their starts, end before they answer.
ENDS_EARLY = """
import os, sys
if "worker_entry" in " ".join(sys.orig_argv):
    for number in range(1000):
        try:
            os.close(os.open(os.path.join({folder!r}, f"{{number}}.start"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        if number in {numbers}:
            os._exit(7)
        break
"""
ALL = range(1000)


def let_starts_fail(folder: Path, numbers: Iterable[int]) -> dict[str, str]:
    """The variable of the environment with which these starts of workers fail."""
    (folder / "first").mkdir()
    write_program(folder / "first", ENDS_EARLY.format(folder=str(folder), numbers=numbers), "sitecustomize.py")
    return {"PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(folder / "first")])}


def test_jobs_for_which_no_worker_can_be_started_end_with_the_reason_and_their_items_have_not_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as broken, JobQueue(2, journal=tmp_path / "run.db") as queue:
        broken.setenv(*let_starts_fail(tmp_path, ALL).popitem())
        recorder = Recorder(queue)
        queue.create_job("job", list("abc"), do.succeed)
        with pytest.raises(WorkerStartError, match="no worker could be started") as caught:
            queue.start("job").result(300)
        job = queue.get_job("job")
        assert job is not None
        recorder.check(job)
        assert "exit code 7" in str(caught.value.__cause__)
        assert (job.status, job.failed, job.stopped_why) == (JobStatus.CANCELLED, 0, str(caught.value))
        assert [(str(item.status), item.attempts) for item in job.items] == [("pending", 0)] * 3
        with pytest.raises(WorkerStartError):
            job.raise_for_failures()
        broken.undo()
        # The queue is not broken by it.
        assert queue.run(list("abc"), do.succeed).results == ["a", "b", "c"]
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        job = queue.run(list("abc"), do.succeed, id="job")
        assert (job.results, [item.attempts for item in job.items]) == (["a", "b", "c"], [1, 1, 1])


def test_the_command_says_that_no_worker_came_and_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "starved.py").write_text("def work(line):\n    return line\n")
    (tmp_path / "in.txt").write_text("a\nb\n")
    command = ["run", "starved:work", "--from", "lines", "in.txt", "--journal", "run.db", "-o", "out.jsonl"]
    done = run_command(tmp_path, *command, code=75, **let_starts_fail(tmp_path, ALL))
    assert "Traceback" not in done.stderr
    assert "stopped: no worker could be started" in done.stderr
    assert "2 not run" in done.stderr
    assert f"run the same command to go on: mpqueue {' '.join(command)}" in done.stderr
    run_command(tmp_path, *command, code=0)
    assert [json.loads(line)["result"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ["a", "b"]


def test_worker_that_cannot_be_started_is_tried_again_while_the_others_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(*let_starts_fail(tmp_path, [1, 2, 3]).popitem())
    with JobQueue(2) as queue:
        assert queue.run(range(10), do.double).completed == 10
        assert len(workers_of(queue)) == 2
    assert len([*tmp_path.glob("*.start")]) == 5
    (warning,) = [record.getMessage() for record in caplog.records]
    assert re.search("worker [01] could not be started, trying again", warning)


def test_descriptors_that_are_exhausted_in_a_worker_fail_the_item_that_wants_one() -> None:
    def exhaust(item: str) -> str:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        while True:
            os.open(os.devnull, os.O_RDONLY)

    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.run(["left", "culprit", "right"], do.only("culprit", exhaust), chunksize=3)
        recorder.check(job)
        assert job.results == ["left", None, "right"]
        assert "Too many open files" in (job.items[1].error or "")
        assert queue.run(range(100), do.double).completed == 100
        # Large results need a descriptor, or another way.
        assert queue.run([5_000_000], do.big_result, max_retries=3).completed == 1
