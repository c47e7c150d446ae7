"""Workers that are forked from a process which has imported what they need: `JobQueue(preload=...)`."""

from __future__ import annotations

import importlib
import logging
import os
import random
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpqueue import JobQueue, JobStatus, WorkerCrashedError, WorkerStartError
from mpqueue.backends import Capabilities, LokyBackend
from tests.support import handlers as do
from tests.support.forked_workers import forked_workers
from tests.support.leaks import descendants
from tests.support.programs import is_running, run_program, start_program
from tests.support.recorder import Recorder
from tests.support.results import results_of
from tests.support.strength import workers_of
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.slow

#: A module that no worker has imported by itself, and says in a file that it was.
HEAVY = """
import os, pathlib
with open({folder!r} + "/imported", "a") as file:
    file.write(f"{{os.getpid()}}\\n")
{then}
"""


def write_module(folder: Path, monkeypatch: pytest.MonkeyPatch, then: str = "", name: str = "heavy_one") -> str:
    """A module that a forker can import, and which nobody has."""
    (folder / f"{name}.py").write_text(HEAVY.format(folder=str(folder), then=then))
    monkeypatch.syspath_prepend(str(folder))
    return name


def importers(folder: Path) -> list[int]:
    """The processes that have imported the module."""
    return [int(line) for line in (folder / "imported").read_text().split()]


def has_imported(name: str, item: Any) -> tuple[bool, int, int]:
    return name in sys.modules, os.getpid(), os.getppid()


def test_workers_have_what_one_process_has_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write_module(tmp_path, monkeypatch)
    with JobQueue(2, preload=[name], per_worker={"items": 2}) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(12), partial(has_imported, name), chunksize=1)
        recorder.check(job)
        (forker,) = importers(tmp_path)
        found, pids, parents = (set(column) for column in zip(*job.results, strict=True))
        assert found == {True}
        assert parents == {forker}
        assert len(pids) >= 6
        assert importers(tmp_path) == [forker]
        assert len(workers_of(queue)) == 2
    assert not is_running(forker)


def test_workers_forked_after_a_reload_run_what_was_reloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that they are forked from has imported the module as it was before."""
    name = write_module(tmp_path, monkeypatch, "def f(item):\n    return 1\n", "edited_one")
    module = importlib.import_module(name)
    with JobQueue(1, preload=[name], per_worker={"items": 2}) as queue:
        assert queue.run(range(4), module.f, chunksize=1).results == [1] * 4
        write_module(tmp_path, monkeypatch, "def f(item):\n    return 2000\n", name)
        importlib.reload(module)
        assert queue.run(range(6), module.f, chunksize=1).results == [2000] * 6
    del sys.modules[name]


_model: list[int] | None = None


def load_model(folder: Path) -> None:
    global _model  # noqa: PLW0603 - as a script does it
    _model = [os.getpid()]
    do.count_calls(folder)(0)


def look_at_model(item: Any) -> list[int] | None:
    return _model


def test_a_function_is_called_once_and_what_it_leaves_is_every_workers(tmp_path: Path) -> None:
    with JobQueue(2, preload=partial(load_model, tmp_path)) as queue:
        job = queue.run(range(4), look_at_model, chunksize=1)
        (model,) = {tuple(model) for model in job.results if model}
        assert queue.run([0], do.return_pid).results != list(model)
    assert [count for _, count in do.calls(tmp_path)] == [1]
    assert _model is None


def test_a_forker_that_dies_costs_nobody_anything_and_is_replaced(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write_module(tmp_path, monkeypatch)
    with JobQueue(1, preload=[name], max_retries=0) as queue:
        queue.create_job("job", range(3), do.only(1, do.block_until_told(gate)), chunksize=3)
        run = queue.start("job")
        gate.wait_for(1)
        (forker,) = importers(tmp_path)
        os.kill(forker, signal.SIGKILL)
        wait_until(lambda: not is_running(forker), what="the forker's end")
        gate.open()
        assert run.result(300).results == [0, 1, 2]
        worker = workers_of(queue)
        # Nobody is there to say how a worker ends that comes from the first one.
        job = queue.run([0], do.kill_self)
        assert isinstance(job.items[0].exception, WorkerCrashedError)
        assert workers_of(queue) != worker
        first, second = importers(tmp_path)
        assert first == forker != second


def test_a_queue_closes_while_the_process_that_workers_are_forked_from_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = write_module(tmp_path, monkeypatch)
    queue = JobQueue(2, preload=[name])
    assert queue.run(range(4), do.succeed).results == [0, 1, 2, 3]
    (forker,) = importers(tmp_path)
    os.kill(forker, signal.SIGSTOP)
    with caplog.at_level(logging.WARNING):
        queue.close()
    assert not is_running(forker)
    assert "closing" not in caplog.text


def wait_in_import(gate: Gate) -> None:
    do.block_until_told(gate)("import")


@pytest.mark.long(but=["True"])
@pytest.mark.parametrize("kill", [False, True])
def test_a_queue_that_closes_during_the_imports_says_nothing(
    gate: Gate, caplog: pytest.LogCaptureFixture, *, kill: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        queue = JobQueue(2, preload=partial(wait_in_import, gate))
        queue.create_job("job", [1], do.succeed)
        run = queue.start("job")
        gate.wait_for("import")
        if not kill:
            queue.cancel("job")
        queue.close(kill=kill)
    assert run.job.status is JobStatus.CANCELLED
    assert caplog.text == ""


THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, name='mine', daemon=True).start()"


@pytest.mark.long
def test_what_starts_threads_is_named_and_workers_start_the_ordinary_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = write_module(tmp_path, monkeypatch, THREAD)
    with caplog.at_level(logging.WARNING), JobQueue(1, preload=["decimal", name], max_retries=0) as queue:
        job = queue.run(range(3), do.only(1, do.exit_zero), chunksize=1)
        assert job.results == [0, None, 2]
        (found,) = queue.run([0], partial(has_imported, name)).results
        assert found is not None
        assert (found[0], found[2]) == (True, os.getpid())
    (warning,) = [record.getMessage() for record in caplog.records if "preload" in record.getMessage()]
    assert "importing 'heavy_one' has started threads (mine)" in warning
    assert len({*importers(tmp_path)}) == len(importers(tmp_path)) == 3  # that process, a worker, and its replacement


BOTH = """
import os, sys, threading
from mpqueue import JobQueue

SCALE, OFFSET, SEEN, FOLDER = 1, 0, None, sys.argv[2]

class Config:
    level = 0

def load():
    global SCALE
    SCALE, Config.level = 10, 5
    if {how!r} == "thread":
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    with open(FOLDER + "/calls", "a") as calls:
        calls.write(".")
    if {how!r} == "ends" and os.path.getsize(FOLDER + "/calls") <= 3:
        os._exit(0)

def begin():
    global OFFSET, SEEN
    OFFSET, SEEN = 3, (SCALE, Config.level)

def handle(item):
    return item * SCALE + OFFSET, SEEN, Config.level

if __name__ == "__main__":
    with JobQueue(1, preload=load, initializer=begin if sys.argv[1] == "both" else None) as queue:
        print(queue.run(range(3), handle).results)
        print(queue.run(range(2), lambda item: handle(item)[0]).results)
"""


@pytest.mark.long(but=["forks-both", "thread-none"])
@pytest.mark.parametrize("initializer", ["both", "none"])
@pytest.mark.parametrize("how", ["forks", "thread", "ends"])
def test_each_worker_of_a_script_has_what_the_function_has_set_and_its_initializer_comes_later(
    tmp_path: Path, how: str, initializer: str
) -> None:
    offset, seen = (3, (10, 5)) if initializer == "both" else (0, None)
    program = run_program(tmp_path, BOTH.replace("{how!r}", repr(how)), initializer, tmp_path)
    expected = [(item * 10 + offset, seen, 5) for item in range(3)]
    assert program.stdout.splitlines() == [str(expected), str([offset, 10 + offset])]


class Hasty(LokyBackend):
    """Waits for workers for a second only."""

    capabilities = Capabilities(patience=1.0, can_fork=LokyBackend.capabilities.can_fork)


@pytest.mark.long(but=["False"])
@pytest.mark.parametrize("threads", [False, True])
def test_imports_may_take_longer_than_a_queue_waits_for_workers(
    caplog: pytest.LogCaptureFixture, threads: bool
) -> None:
    def preload() -> None:
        if threads:
            threading.Thread(target=threading.Event().wait, args=(60,), daemon=True).start()
        threading.Event().wait(3)

    with JobQueue(2, backend=Hasty(), preload=preload) as queue:
        assert queue.run(range(4), do.double).results == [0, 2, 4, 6]
    assert "no worker could be started" not in caplog.text


@pytest.mark.long(but=["raises"])
@pytest.mark.parametrize(
    ("then", "message"),
    [
        ("raise ValueError('no licence')", "importing 'heavy_one' has failed: ValueError.*no licence"),
        ("os._exit(0)", "ended with exit code 0 before it answered"),
    ],
    ids=["raises", "exits"],
)
def test_an_import_that_fails_fails_the_jobs_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str, message: str
) -> None:
    name = write_module(tmp_path, monkeypatch, then)
    with JobQueue(1, preload=[name]) as queue:
        with pytest.raises(WorkerStartError, match=message):
            queue.run(range(2), do.succeed)
        assert queue.last_job is not None
        assert queue.last_job.status is JobStatus.CANCELLED


def draw(item: Any) -> tuple[float, float]:
    return random.random(), float(np.random.rand())  # noqa: NPY002


@pytest.mark.long
def test_no_two_workers_draw_the_same_random_numbers() -> None:
    with JobQueue(2, preload=["numpy", "random"], per_worker={"items": 1}) as queue:
        job = queue.run(range(6), draw, chunksize=1)
    for column in zip(*job.results, strict=True):
        assert len(set(column)) == 6


def surroundings(item: Any) -> tuple[str | None, str | None, str]:
    return os.environ.get("SET_LATER"), os.environ.get("SET_BEFORE"), os.getcwd()


def surroundings_in(queue: JobQueue) -> tuple[str | None, str | None, str]:
    (found,) = queue.run([0], surroundings).results
    assert found is not None
    return found


@pytest.mark.long
def test_a_worker_finds_the_surroundings_of_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET_BEFORE", "1")
    monkeypatch.delenv("SET_LATER", raising=False)
    with JobQueue(1, preload=["decimal"], max_retries=0) as queue:
        assert surroundings_in(queue) == (None, "1", os.getcwd())
        monkeypatch.setenv("SET_LATER", "2")
        monkeypatch.delenv("SET_BEFORE")
        monkeypatch.chdir(tmp_path)
        queue.run([0], do.kill_self)
        assert surroundings_in(queue) == ("2", None, str(tmp_path))


def leave_a_fork_of_its_own_session(item: Any) -> int:
    if (child := os.fork()) == 0:
        os.setsid()
        signal.pause()
    return child


def test_one_process_forks_the_workers_of_all_queues_of_a_test_file() -> None:
    find = partial(has_imported, __name__)
    with forked_workers(__name__):
        with JobQueue(1) as one, JobQueue(2) as other:
            found = [result for queue in (one, other) for result in results_of(queue.run(range(4), find))]
        (forker,) = {parent for _, _, parent in found}
        assert forker != os.getpid()
        assert {imported for imported, _, _ in found} == {True}
    assert not is_running(forker)
    with JobQueue(1) as queue:
        assert results_of(queue.run([0], find))[0][2] == os.getpid()


def test_what_a_forked_worker_leaves_behind_dies_with_it() -> None:
    with JobQueue(1, preload=["decimal"], max_retries=0) as queue:
        (child,) = queue.run([0], leave_a_fork_of_its_own_session).results
        assert child is not None
        assert is_running(child)
        queue.run([0], do.kill_self)
        wait_until(lambda: not is_running(child), what="the child's end")


def test_all_end_with_a_program_that_is_killed(tmp_path: Path) -> None:
    body = """
    import sys, time
    from mpqueue import JobQueue
    from tests.support import handlers as do
    from tests.support.waiting import Gate
    from pathlib import Path
    if __name__ == "__main__":
        JobQueue(2, preload=["decimal"]).run(range(2), do.announce_pid(Gate(Path(sys.argv[1]))))
    """
    gate = Gate(tmp_path / "gate")
    with start_program(tmp_path, body, gate.folder) as program:
        pids = [int(pid) for pid in gate.wait_for_count(2)]
        family = [*descendants(program.pid)]
        assert {*pids} < {*family}
        program.kill()
        program.communicate(timeout=300)
    wait_until(lambda: not any(map(is_running, family)), what="the end of all")


@pytest.mark.parametrize(
    ("preload", "error", "message"),
    [
        (["no_such_module_at_all"], ValueError, "'no_such_module_at_all', which can't be found here"),
        ([""], ValueError, "names of modules"),
        ([3], TypeError, "a list of names of modules, or a function"),
        (7, TypeError, "a list of names of modules, or a function"),
    ],
)
def test_what_can_be_no_preload_is_refused_at_once(preload: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        JobQueue(1, preload=preload)
