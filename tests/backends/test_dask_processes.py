"""Each slot of a Dask worker has a process of its own: what that is good for, and what it leaves behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from mpqueue import (
    ItemTimeoutError,
    JobQueue,
    MemoryLimitError,
    RetryPolicy,
    WorkerCrashedError,
    WorkerStartError,
)
from mpqueue.backends import DaskBackend
from tests.support import handlers as do
from tests.support import hogs
from tests.support.dask_cluster import DaskCluster, dask_cluster
from tests.support.programs import is_running
from tests.support.results import results_of
from tests.support.waiting import Gate, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long(
        but=[
            "no nanny",
            "here",
            "test_an_item_that_kills_the_dask_worker_each_time_is_found",
            "test_a_dask_worker_that_can_t_start_processes_is_left_out_and_says_what_helps",
            "test_what_others_scatter_costs_a_queue_nothing",
        ]
    ),
]

SOON = RetryPolicy(max_retries=1, base_delay=0.0)


@pytest.fixture(scope="module", params=["nanny", "no nanny"])
def two_slots(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """One Dask worker of two threads."""
    folder = tmp_path_factory.mktemp("two")
    with dask_cluster(folder, 1, threads=2, nanny=request.param == "nanny") as cluster:
        yield cluster


@pytest.fixture
def other(two_slots: DaskCluster) -> Iterator[Client]:
    """Another user of the same cluster. After the test nothing of ours is left on it."""
    with Client(two_slots.address, set_as_default=False) as client:
        yield client
        two_slots.check_is_clean(client)


# -- neighbours ------------------------------------------------------------------------------------------------------


def test_a_time_limit_leaves_the_tasks_and_the_data_of_others_alone(
    two_slots: DaskCluster, other: Client, tmp_path: Path, gate: Gate
) -> None:
    workers = list(other.scheduler_info()["workers"])
    data = other.scatter({"data": [*range(1000)]}, hash=False)["data"]
    task = other.submit(gate.pass_through, "task", pure=False)
    gate.wait_for("task")
    with JobQueue(1, backend=DaskBackend(two_slots.address), max_retries=0) as queue:
        for hang in (do.hang_sleep, do.hang_holding_gil):
            job = queue.run(range(3), do.only(1, hang), timeout=0.5)
            assert isinstance(job.items[1].exception, ItemTimeoutError)
            assert [item.attempts for item in job.items] == [1, 1, 1]
            assert job.completed == 2
        assert isinstance(queue.run([1], do.kill_self).items[0].exception, WorkerCrashedError)
        children = Gate(tmp_path / "children")
        job = queue.run([0], partial(_hang_with_a_child, children), timeout=1.0)
        assert isinstance(job.items[0].exception, ItemTimeoutError)
        wait_until(lambda: not any(is_running(int(pid)) for pid in children.arrived()), what="its child to be gone")
    gate.open()
    task.result(300)
    assert data.result() == list(range(1000))
    assert list(other.scheduler_info()["workers"]) == workers


def _hang_with_a_child(children: Gate, item: int) -> None:
    child = subprocess.Popen(["sleep", "300"])
    children.announce(child.pid)
    child.wait()


def test_a_slot_is_busy_while_ours_is(two_slots: DaskCluster, other: Client, gate: Gate) -> None:
    """Dask runs no more at a time than there are slots, for all clients together."""
    with JobQueue(None, backend=DaskBackend(two_slots.address)) as queue:
        assert queue.concurrency == 2
        queue.create_job("job", range(2), do.block_until_told(gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for(0, 1)
        task = other.submit(os.getpid, pure=False)
        assert not task.done()
        gate.open()
        assert results_of(run.result()) == [0, 1]
        assert task.result(300)


@pytest.mark.long
def test_another_s_task_comes_between_two_chunks(two_slots: DaskCluster, other: Client, gate: Gate) -> None:
    """Although the task that has the slot goes on from chunk to chunk."""
    with JobQueue(None, backend=DaskBackend(two_slots.address)) as queue:
        job = queue.create_job("job", range(400), partial(_begin_and_wait, gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for_count(2)
        task = other.submit(len, gate.arrived(), pure=False)
        gate.open()
        assert task.result(300) == 2
        assert job.completed < 400
        assert run.result(300).completed == 400


def _begin_and_wait(gate: Gate, item: int) -> int:
    if item < 2:
        gate.pass_through(item)
    threading.Event().wait(0.02)
    return item


def test_what_others_scatter_costs_a_queue_nothing(two_slots: DaskCluster, other: Client, gate: Gate) -> None:
    """Dask has an event of it that can't be pickled, which ends the connection of whoever follows all events."""
    with JobQueue(None, backend=DaskBackend(two_slots.address), retry=SOON) as queue:
        job = queue.create_job("job", range(6), do.block_until_told(gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for_count(2)
        for number in range(3):
            other.scatter(number, broadcast=True, hash=False)
        gate.open()
        assert results_of(run.result(300)) == list(range(6))
    assert [item.attempts for item in job.items] == [1] * 6


def test_a_task_that_holds_the_global_lock_keeps_no_result_back(
    two_slots: DaskCluster, other: Client, tmp_path: Path, gate: Gate
) -> None:
    """In one chunk: to Dask the task waits for a moment, which may cost the lane its slot; the next is given later."""
    line = tmp_path / "line"
    os.mkfifo(line)
    with JobQueue(1, backend=DaskBackend(two_slots.address), retry=SOON) as queue:
        job = queue.create_job("job", [0], do.block_until_told(gate))
        run = queue.start("job")
        gate.wait_for(0)
        task = other.submit(_hold_global_lock, gate, line, pure=False)
        gate.wait_for("held")
        gate.open()
        try:
            assert results_of(run.result(100)) == [0]
        finally:
            line.open("wb").close()
        task.result(300)
    assert job.items[0].attempts == 1


def _hold_global_lock(gate: Gate, line: Path) -> None:
    """Hold it until somebody opens the named pipe for writing."""
    gate.announce("held")
    os.close(ctypes.PyDLL(None).open(str(line).encode(), os.O_RDONLY))


def test_a_frozen_dask_worker_loses_its_items_to_others(tmp_path: Path, gate: Gate) -> None:
    with dask_cluster(tmp_path, 2, nanny=False) as cluster:
        with JobQueue(None, backend=DaskBackend(cluster.address), retry=SOON, timeout=100.0) as queue:
            job = queue.create_job("job", range(30), do.block_until_told(gate), chunksize=1)
            run = queue.start("job")
            gate.wait_for_count(2)
            with Client(cluster.address, set_as_default=False) as client:
                frozen, _ = client.run(os.getpid).values()
            os.kill(frozen, signal.SIGSTOP)
            try:
                gate.open()
                assert results_of(run.result(300)) == list(range(30))
            finally:
                os.kill(frozen, signal.SIGCONT)
        assert {item.attempts for item in job.items} == {1}


# -- limits ----------------------------------------------------------------------------------------------------------


def test_an_item_that_takes_too_much_memory_fails_alone(two_slots: DaskCluster, other: Client) -> None:
    handler = do.only(0, lambda item: hogs.take_and_hang(600))
    with JobQueue(2, backend=DaskBackend(two_slots.address), retry=SOON, per_worker={"memory": "300MB"}) as queue:
        job = queue.run(range(20), handler)
    hog, *others = job.items
    assert (hog.status, hog.attempts) == ("failed", 2)
    assert isinstance(hog.exception, MemoryLimitError)
    assert [(item.result, item.attempts) for item in others] == [(at, 1) for at in range(1, 20)]


def test_where_a_worker_was_is_told_with_its_timeout(two_slots: DaskCluster, other: Client) -> None:
    with JobQueue(1, backend=DaskBackend(two_slots.address), max_retries=0) as queue:

        def tells() -> bool:
            """Whether the worker said where it was, for which it has 50 ms before it is killed."""
            job = queue.run([1], do.hang_sleep, timeout=0.5)
            return "in hang_sleep" in (getattr(job.items[0].exception, "stack", None) or "")

        wait_until(tells, what="a stack")


# -- deaths ----------------------------------------------------------------------------------------------------------


def test_a_dask_worker_that_is_killed_takes_its_workers_along_and_costs_nobody_a_try(gate: Gate) -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster,
        JobQueue(None, backend=DaskBackend(cluster), retry=SOON) as queue,
    ):
        job = queue.create_job("job", range(6), partial(_announce_parent_and_wait, gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for_count(4)
        told = [name.split("-") for name in gate.arrived() if "-in-" in name]
        workers = [int(worker) for _, worker, _, _ in told]
        (parent,) = {int(parent) for _, _, _, parent in told}
        os.kill(parent, signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, workers)), what="its workers to be gone")
        gate.open()
        assert results_of(run.result(300)) == list(range(6))
    assert [item.attempts for item in job.items] == [1] * 6


def _announce_parent_and_wait(gate: Gate, item: int) -> int:
    gate.announce(f"{item}-{os.getpid()}-in-{os.getppid()}")
    gate.pass_through(item)
    return item


def test_an_item_that_kills_the_dask_worker_each_time_is_found() -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster,
        JobQueue(None, backend=DaskBackend(cluster), retry=SOON) as queue,
    ):
        job = queue.run(range(8), _kill_the_parent_of_item_3, chunksize=1)
    assert isinstance(job.items[3].exception, WorkerCrashedError)
    assert [item.attempts for item in job.items] == [1] * 3 + [2] + [1] * 4
    assert job.completed == 7


def _kill_the_parent_of_item_3(item: int) -> int:
    if item == 3:
        os.kill(os.getppid(), signal.SIGKILL)
        threading.Event().wait()
    return item


# -- data and code ---------------------------------------------------------------------------------------------------


def test_modules_that_are_uploaded_later_are_found(two_slots: DaskCluster, other: Client, tmp_path: Path) -> None:
    module = tmp_path / "uploaded_after_the_start.py"
    module.write_text("def work(item):\n    return 3 * item\n")
    with JobQueue(1, backend=DaskBackend(two_slots.address), max_retries=0) as queue:
        assert results_of(queue.run([1], do.double)) == [2]
        other.upload_file(str(module))
        assert results_of(queue.run([1, 2], _use_what_was_uploaded)) == [3, 6]


def _use_what_was_uploaded(item: int) -> Any:
    import importlib

    return importlib.import_module("uploaded_after_the_start").work(item)


# -- where no process can be started ---------------------------------------------------------------------------------


def test_a_dask_worker_that_can_t_start_processes_is_left_out_and_says_what_helps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        JobQueue(None, backend=DaskBackend(cluster, patience=3.0)) as queue,
    ):
        client.run(_have_no_python)
        with pytest.raises(WorkerStartError, match=r"expected to be allowed to start processes.*ulimit -u"):
            queue.run(range(2), do.double)
    assert caplog.text.count("is left out: expected to be allowed to start processes") == 1


def _have_no_python() -> None:
    sys.executable = "/nowhere/python"
