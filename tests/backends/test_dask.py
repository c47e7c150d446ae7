"""What only Dask has: workers that come and go, slots that share a process, nannies, versions that differ."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from distributed import Client, LocalCluster

import mpqueue
from mpqueue import JobQueue, ResultPicklingError, RetryPolicy, WorkerCrashedError, WorkerStartError
from mpqueue.backends import DaskBackend
from tests.support import handlers as do
from tests.support.arrays import (
    check_arrays_after_rights_are_lost,
    check_arrays_both_ways,
    segment_at,
    segments_here,
)
from tests.support.dask_cluster import DaskCluster, dask_cluster
from tests.support.programs import run_program
from tests.support.relay import Relay
from tests.support.results import results_of
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.slow

SOON = RetryPolicy(max_retries=1, base_delay=0.0)


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A cluster whose workers come and go: each test says first how many it begins with."""
    with dask_cluster(tmp_path_factory.mktemp("changing"), 0) as cluster:
        yield cluster


# -- workers that come and go ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_workers_that_join_are_used_and_those_that_go_cost_nobody_a_try(changing: DaskCluster, gate: Gate) -> None:
    """One by a failure of its machine, one since its nanny is killed, one that is sent away in good order."""
    changing.have_workers(1)
    with JobQueue(None, backend=DaskBackend(changing.address), retry=SOON) as queue:
        assert queue.concurrency == 1
        job = queue.create_job("job", range(40), do.block_until_told(gate, then=do.return_pid), chunksize=1)
        run = queue.start("job")
        gate.wait_for_count(1)
        joined = [changing.add_worker() for _ in range(3)]
        gate.wait_for_count(4)  # each of them has begun an item, while the first still runs its own
        assert queue.concurrency == 4
        changing.kill_machine(joined[0])
        joined[1].kill()
        joined[2].terminate()
        changing.await_slots(1)
        gate.open()
        assert len(results_of(run.result(300))) == 40
        assert queue.concurrency == 1
        joined[2].wait(300)  # Dask takes its time, and the next test counts processes
    assert [item.attempts for item in job.items] == [1] * 40
    report = job.report()
    assert "on 4 workers" in str(report)
    assert sum(part.seconds for part in report.figures.work) == pytest.approx(report.figures.worker_seconds, rel=0.01)


@pytest.mark.long
def test_a_queue_that_was_given_a_size_waits_for_room_and_takes_no_more(changing: DaskCluster, gate: Gate) -> None:
    changing.have_workers(2)
    with JobQueue(None, backend=DaskBackend(changing.address)) as queue:
        queue.resize(3)
        queue.create_job("job", range(40), do.block_until_told(gate, then=do.return_pid), chunksize=1)
        run = queue.start("job")
        gate.wait_for_count(2)
        joined = [changing.add_worker() for _ in range(2)]
        gate.wait_for_count(3)
        changing.await_slots(4)
        gate.open()
        assert len(set(results_of(run.result(300)))) == queue.concurrency == 3
        for worker in joined:
            worker.terminate()
            worker.wait(300)


@pytest.mark.long
def test_an_adaptive_cluster_grows_with_a_job_and_shrinks_after_it(gate: Gate) -> None:
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        # what an item of unknown length counts for is a tenth of the usual target
        cluster.adapt(minimum=0, maximum=2, interval="200ms", wait_count=2, target_duration="500ms")
        with JobQueue(None, backend=DaskBackend(cluster), retry=SOON) as queue:
            job = queue.create_job("job", range(30), do.block_until_told(gate), chunksize=1)
            run = queue.start("job")
            gate.wait_for_count(2, timeout=300)
            gate.open()
            assert results_of(run.result(300)) == list(range(30))
            wait_until(lambda: not _standins(cluster), what="nothing to wait any more")
        assert [item.attempts for item in job.items] == [1] * 30
        wait_until(lambda: not cluster.scheduler.workers, what="the workers to go")
        assert [name for name in cluster.scheduler.task_prefixes if name.startswith("mpqueue_")] == []


def _standins(cluster: Any) -> list[str]:
    return [key for key in cluster.scheduler.tasks if str(key).startswith("mpqueue_waits")]


def test_the_scheduler_knows_how_much_waits_and_for_whom(changing: DaskCluster, tmp_path: Path) -> None:
    """A queue of a number of workers wants no more; without one, it wants what its items need."""
    changing.have_workers(0)
    with Client(changing.address, set_as_default=False) as client:
        for concurrency, wanted in ((3, 3), (None, 40)):
            with JobQueue(concurrency, backend=DaskBackend(changing.address)) as queue:
                queue.start(queue.create_job("job", range(40), do.double).id)
                await_demand(changing, wanted, client)
                queue.cancel("job")
                await_demand(changing, 0, client)


def await_demand(cluster: DaskCluster, count: int, client: Client | None = None) -> None:
    """Wait until so many items are known to wait for workers."""
    with contextlib.nullcontext(client) if client else Client(cluster.address, set_as_default=False) as asked:
        wait_until(lambda: asked.run_on_scheduler(_count_standins) == count, what=f"a demand of {count}")


def _count_standins(dask_scheduler: Any) -> int:
    return sum(str(task.key).startswith("mpqueue_waits") for task in dask_scheduler.unrunnable)


@pytest.mark.long
def test_a_worker_that_is_paused_for_its_memory_gets_nothing_and_holds_up_no_close(
    changing: DaskCluster, gate: Gate
) -> None:
    changing.have_workers(2)
    with (
        Client(changing.address, set_as_default=False) as client,
        JobQueue(None, backend=DaskBackend(changing.address), retry=SOON) as queue,
    ):
        job = queue.create_job("job", range(20), do.block_until_told(gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for_count(2)
        paused, _ = client.nthreads()
        client.run(_pause_from, 1e-9, workers=[paused])
        wait_until(lambda: client.run(_status, workers=[paused])[paused] == "paused", what="the pause")
        gate.open()
        assert results_of(run.result(300)) == list(range(20))
        wait_until(lambda: queue.concurrency == 1, what="the paused worker to count no more")
        client.run(_pause_from, 0.8, workers=[paused])
        wait_until(lambda: queue.concurrency == 2, what="it to be used again")
        client.run(_pause_from, 1e-9)
        wait_until(lambda: set(client.run(_status).values()) == {"paused"}, what="the pause")
        queue.close()
        client.run(_pause_from, 0.8)
    assert [item.attempts for item in job.items] == [1] * 20


def _pause_from(fraction: float, dask_worker: Any) -> None:
    dask_worker.memory_manager.memory_pause_fraction = fraction


def _status(dask_worker: Any) -> str:
    return str(dask_worker.status.name)


@pytest.mark.long
def test_workers_are_chosen_by_name_and_by_what_they_have(tmp_path: Path) -> None:
    with dask_cluster(tmp_path, 1) as cluster:
        gpu = ("CUDA_VISIBLE_DEVICES=3",)
        cluster.add_worker(threads=4, options=("--name", "big", "--resources", "GPU=2"), env=gpu)
        cluster.await_slots(5)
        named = DaskBackend(cluster.address, workers=["big"])
        assert named.count_workers() == 4
        rich = DaskBackend(cluster.address, resources={"GPU": 1})
        assert (rich.count_workers(), "resources={'GPU': 1}" in repr(rich)) == (2, True)
        for backend in (named, rich):
            assert len(set(mpqueue.map(lambda _: os.getppid(), range(40), backend=backend))) == 1
            assert mpqueue.map(lambda _: os.environ["CUDA_VISIBLE_DEVICES"], [0], backend=backend) == ["3"]
    for wrong, error in (({"workers": "big"}, TypeError), ({"resources": {"GPU": 0}}, ValueError)):
        with pytest.raises(error, match="expected"):
            DaskBackend("tcp://127.0.0.1:1", **wrong)


def test_a_worker_can_be_retired_while_it_is_used(changing: DaskCluster, gate: Gate) -> None:
    changing.have_workers(2)
    with (
        JobQueue(None, backend=DaskBackend(changing.address), retry=SOON) as queue,
        Client(changing.address, set_as_default=False) as client,
    ):
        job = queue.create_job("job", range(4), do.block_until_told(gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for_count(2)
        first, _ = client.scheduler_info()["workers"]
        assert list(client.retire_workers([first])) == [first]
        gate.open()
        assert results_of(run.result(300)) == [0, 1, 2, 3]
    assert [item.attempts for item in job.items] == [1] * 4


@pytest.mark.long
def test_a_worker_that_goes_while_its_result_is_unpickled_without_end_costs_that_item(
    changing: DaskCluster, tmp_path: Path
) -> None:
    changing.have_workers(0)
    worker, unpickling, running = changing.add_worker(), Gate(tmp_path / "unpickling"), Gate(tmp_path / "running")
    endless = do.return_made(do.WhenUnpickled, do.block_until_told(unpickling))
    with JobQueue(1, backend=DaskBackend(changing.address), max_retries=0) as queue:
        handle = do.only(1, endless, do.only(3, do.block_until_told(running)))
        job = queue.create_job("job", range(5), handle, chunksize=5)
        run = queue.start("job")
        unpickling.wait_for(None)
        changing.kill_machine(worker)
        changing.add_worker()
        running.open()
        run.result(300)
        unpickling.open()
    assert isinstance(job.items[1].exception, ResultPicklingError)
    assert "it was still being unpickled after 3" in (job.items[1].error or "")
    assert job.results == [0, None, 2, 3, 4]
    assert [item.attempts for item in job.items] == [1] * 5


def test_a_worker_that_dies_while_its_queue_closes_leaves_no_traceback(
    changing: DaskCluster, caplog: pytest.LogCaptureFixture
) -> None:
    changing.have_workers(0)
    worker = changing.add_worker(nanny=False)
    changing.await_slots(1)
    queue = JobQueue(1, backend=DaskBackend(changing.address), retry=SOON)
    assert results_of(queue.run([1, 2], do.double)) == [2, 4]
    worker.send_signal(signal.SIGSTOP)  # it would answer at once
    closing = threading.Thread(target=queue.close)
    closing.start()
    closing.join(0.5)  # it has asked the worker by then
    worker.kill()
    closing.join(300)
    worker.wait()
    assert not closing.is_alive()
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_job_waits_for_the_first_worker_and_no_worker_for_too_long_fails_it(changing: DaskCluster) -> None:
    changing.have_workers(0)
    with (
        JobQueue(None, backend=DaskBackend(changing.address, patience=0.5)) as queue,
        pytest.raises(WorkerStartError, match="there was no room for any"),
    ):
        queue.run(range(2), do.double)
    with JobQueue(None, backend=DaskBackend(changing.address)) as queue:
        queue.create_job("job", range(5), do.double)
        run = queue.start("job")
        changing.add_worker()
        assert results_of(run.result(300)) == [0, 2, 4, 6, 8]


@pytest.mark.long
def test_without_its_scheduler_a_job_is_interrupted_and_the_next_run_goes_on(tmp_path: Path, gate: Gate) -> None:
    journal = tmp_path / "run.db"
    handler = partial(_succeed_or_block, gate)
    with (
        dask_cluster(tmp_path, 1) as cluster,
        JobQueue(
            None,
            backend=DaskBackend(cluster.address, connect_timeout=2.0, patience=10.0),
            journal=journal,
            retry=SOON,
        ) as queue,
    ):
        job = queue.create_job("job", range(5), handler, chunksize=1)
        run = queue.start("job")
        gate.wait_for(2)
        wait_until(lambda: job.completed == 2, what="what has ended to be home")
        cluster.kill_scheduler()
        with pytest.raises(WorkerStartError, match="connection to the Dask scheduler is lost"):
            run.result(300)
        gate.open()
        assert [str(item.status) for item in job.items] == ["completed"] * 2 + ["pending"] * 3
    with JobQueue(1, journal=journal) as queue:
        job = queue.run(range(5), handler, id="job")
        assert (job.results, [item.attempts for item in job.items]) == ([0, 1, 2, 3, 4], [1] * 5)


def test_that_the_scheduler_is_gone_is_said_where_no_worker_was_left(tmp_path: Path) -> None:
    with (
        dask_cluster(tmp_path, 0) as cluster,
        JobQueue(None, backend=DaskBackend(cluster.address, connect_timeout=2.0, patience=4.0), retry=SOON) as queue,
    ):
        queue.create_job("job", range(5), do.double)
        run = queue.start("job")
        await_demand(cluster, 5)
        cluster.kill_scheduler()
        with pytest.raises(WorkerStartError, match="connection to the Dask scheduler is lost"):
            run.result(300)


def _succeed_or_block(gate: Gate, item: int) -> int:
    if item >= 2:
        gate.pass_through(item)
    return item


def test_a_connection_that_was_cut_while_no_worker_was_there_is_made_anew(
    changing: DaskCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mpqueue")
    changing.have_workers(0)
    with (
        Relay(changing.address) as relay,
        JobQueue(None, backend=DaskBackend(relay.url, connect_timeout=2.0), retry=SOON) as queue,
    ):
        queue.create_job("job", range(5), do.double)
        run = queue.start("job")
        await_demand(changing, 5)
        relay.cut()
        wait_until(lambda: "can't be reached" in caplog.text, what="a try to connect again")
        relay.open()
        changing.add_worker()
        assert results_of(run.result(300)) == [0, 2, 4, 6, 8]


def test_a_worker_of_another_version_is_left_out(changing: DaskCluster, caplog: pytest.LogCaptureFixture) -> None:
    changing.have_workers(2)
    with Client(changing.address, set_as_default=False) as client:
        other, _ = client.nthreads()
        client.run(_pretend_version, "0.0.9", workers=[other])
        try:
            with JobQueue(None, backend=DaskBackend(changing.address), retry=SOON) as queue:
                assert results_of(queue.run(range(40), do.double)) == [2 * item for item in range(40)]
        finally:
            client.run(_pretend_version, mpqueue.__version__, workers=[other])
    assert caplog.text.count(f"the Dask worker {other} is left out: expected the same versions as here") == 1
    assert f"mpqueue 0.0.9 there and {mpqueue.__version__} here" in caplog.text


def _pretend_version(version: str) -> None:
    mpqueue.__version__ = version


def test_a_client_that_is_killed_leaves_no_worker_of_ours(cluster: DaskCluster, tmp_path: Path) -> None:
    script = f"""
        import os, mpqueue
        from mpqueue.backends import DaskBackend
        queue = mpqueue.JobQueue(None, backend=DaskBackend({cluster.address!r}))
        print(queue.run(range(10), abs).completed, flush=True)
        os._exit(0)
    """
    assert run_program(tmp_path, script).stdout == "10\n"
    with Client(cluster.address, set_as_default=False) as client:
        cluster.check_is_clean(client)
        assert not any(client.run(_threads_of_ours, nanny=True).values())


def _threads_of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mpqueue")]


def test_the_scheduler_keeps_nothing_of_a_finished_chunk(cluster: DaskCluster) -> None:
    with (
        Client(cluster.address, set_as_default=False) as client,
        JobQueue(None, backend=DaskBackend(cluster.address), retry=SOON) as queue,
    ):
        queue.run(range(10), do.double, chunksize=1)
        assert queue.run([bytes(5000)] * 300, do.succeed, chunksize=1).completed == 300
        wait_until(lambda: client.run_on_scheduler(_count_tasks_of_ours) == 0, what="no task to be left")


def _count_tasks_of_ours(dask_scheduler: Any) -> int:
    return sum(str(key).startswith("mpqueue") for key in dask_scheduler.tasks)


def test_a_client_that_is_killed_while_a_worker_starts_leaves_none(cluster: DaskCluster, tmp_path: Path) -> None:
    here = tmp_path / "starting"
    for folder in (cluster.folder, tmp_path):
        (folder / "slow_to_import.py").write_text(
            f"import pathlib, threading\npathlib.Path({str(here)!r}).touch()\nthreading.Event().wait(300)\n"
        )
    script = f"""
        import os, threading, mpqueue
        from mpqueue.backends import DaskBackend

        def end():
            while not os.path.exists({str(here)!r}):
                threading.Event().wait(0.01)
            print("starting", flush=True)
            os._exit(0)

        threading.Thread(target=end, daemon=True).start()
        queue = mpqueue.JobQueue(None, backend=DaskBackend({cluster.address!r}), preload=["slow_to_import"])
        queue.run(range(10), abs)
    """
    assert run_program(tmp_path, script).stdout == "starting\n"
    with Client(cluster.address, set_as_default=False) as client:
        cluster.check_is_clean(client)


def test_a_module_that_was_edited_is_reloaded_where_workers_have_the_old_one(
    changing: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing.have_workers(1)
    name = "edited_between_two_runs"
    monkeypatch.syspath_prepend(str(changing.folder))  # where its workers run, and import from
    for factor in (2, 30):  # of another length: Python takes what it compiled in the same second for the same otherwise
        (changing.folder / f"{name}.py").write_text(f"def work(item):\n    return {factor} * item\n")
        sys.modules.pop(name, None)  # as when the program runs again
        importlib.invalidate_caches()
        with JobQueue(None, backend=DaskBackend(changing.address), retry=SOON) as queue:
            job = queue.run(range(3), importlib.import_module(name).work)
        assert results_of(job) == [0, factor, 2 * factor]
    del sys.modules[name]


# -- ways to the workers ---------------------------------------------------------------------------------------------


def test_where_workers_can_t_be_reached_all_goes_through_the_scheduler(cluster: DaskCluster, tmp_path: Path) -> None:
    with (
        Client(cluster.address, set_as_default=False, direct_to_workers=False) as client,
        JobQueue(None, backend=DaskBackend(client), retry=SOON) as queue,
    ):
        assert results_of(queue.run(range(200), do.double, chunksize=1)) == [2 * item for item in range(200)]
        job = queue.run(range(6), do.only(3, do.kill_self), chunksize=1)
        assert isinstance(job.items[3].exception, WorkerCrashedError)
        assert [item.attempts for item in job.items] == [1] * 3 + [2] + [1] * 2
        assert results_of(queue.run([bytes(2_000_000)] * 4, len, chunksize=1)) == [2_000_000] * 4


# -- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.long(but=["elsewhere"])
def test_what_is_shared_goes_with_the_last_that_holds_it(either_cluster: DaskCluster, gate: Gate) -> None:
    with JobQueue(None, backend=DaskBackend(either_cluster.address)) as queue:
        table = mpqueue.share(Counted())
        queue.create_job("met", range(2), partial(_meet_and_tell, table, gate), chunksize=1)
        run = queue.start("met")
        gate.wait_for(0, 1)  # both workers are at it
        gate.open()
        assert results_of(run.result(300)) == [0, 1]
        assert results_of(queue.run([("in an item", table)] * 4, _second_of, chunksize=1)) == [7] * 4
        del table, run
        for name in [job.id for job in queue.jobs()]:
            queue.clear_job(name)
        wait_until(lambda: gc.collect() >= 0 and set(results_of(queue.run(range(20), _count_them))) == {0})


class Counted:
    """A large object; each process counts its own."""

    alive: ClassVar[weakref.WeakSet[Counted]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.table = np.arange(500_000)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        Counted.alive.add(self)


def _meet_and_tell(table: Any, gate: Gate, item: int) -> int:
    gate.pass_through(item)
    return int(table.table[item])


def _second_of(item: tuple[str, Any]) -> int:
    return int(item[1].table[7])


def _count_them(item: int) -> int:
    gc.collect()
    return len(Counted.alive)


@pytest.mark.long(but=["here-direct", "elsewhere-through the scheduler"])
@pytest.mark.parametrize("direct", [None, False], ids=["direct", "through the scheduler"])
def test_arrays_arrive_equal_and_writable_wherever_the_workers_are(
    either_cluster: DaskCluster, direct: bool | None
) -> None:
    with (
        Client(either_cluster.address, set_as_default=False, direct_to_workers=direct) as client,
        JobQueue(None, backend=DaskBackend(client), retry=SOON) as queue,
    ):
        check_arrays_both_ways(queue)


def test_nothing_big_is_sent_where_the_workers_are_on_the_program_s_machine(cluster: DaskCluster) -> None:
    """Items and what is shared are in segments of this program, results in such of the workers."""
    table = mpqueue.share(np.arange(500_000))
    arrays = [np.full(200_000, at) for at in range(8)]
    with JobQueue(None, backend=DaskBackend(cluster.address)) as queue:
        told = results_of(queue.run([(array, table) for array in arrays], _look_where_it_is))
        for at, (result, item_at, table_at) in enumerate(told):
            assert int(result[0]) == at + 1
            assert item_at is not None
            assert table_at in segments_here()
            assert segment_at(result) is not None


def _look_where_it_is(item: tuple[Any, Any]) -> tuple[Any, int | None, int | None]:
    array, table = item
    return array + 1, segment_at(array), segment_at(table.value)


@pytest.mark.long(but=["1"])
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("chunksize", [1, 4])
def test_items_after_one_that_gives_up_its_worker_s_rights_run_in_another_worker(
    cluster: DaskCluster, chunksize: int
) -> None:
    with JobQueue(1, backend=DaskBackend(cluster.address), max_retries=0) as queue:
        check_arrays_after_rights_are_lost(queue, chunksize)


# -- what does not fit -----------------------------------------------------------------------------------------------


def test_versions_that_differ_everywhere_are_a_clear_error(
    cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = f"mpqueue {mpqueue.__version__} there and 0.0.9 here"
    monkeypatch.setattr(mpqueue, "__version__", "0.0.9")
    backend = DaskBackend(cluster.address, patience=0.5)
    with JobQueue(None, backend=backend) as queue, pytest.raises(WorkerStartError, match=there):
        queue.run(range(2), do.double)


@pytest.mark.parametrize("wrong", [None, 5, object()])
def test_what_is_no_cluster_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="client: expected"):
        DaskBackend(wrong)


def test_an_address_where_nobody_is_is_an_error_at_once() -> None:
    with pytest.raises(OSError, match="Timed out"):
        DaskBackend("tcp://127.0.0.1:1", connect_timeout=0.2)
