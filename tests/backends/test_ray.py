"""What only Ray has: nodes that come and go, room that is not there yet, a Ray that comes and goes with a queue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import mpqueue
from mpqueue import JobQueue, RetryPolicy, SetupError, WorkerStartError
from mpqueue.backends import RayBackend
from tests.support import handlers as do
from tests.support import leaks
from tests.support.arrays import (
    segment_at,
    segments_here,
)
from tests.support.engines import WORKERS
from tests.support.programs import run_program, start_program
from tests.support.ray_local import QUIET, actors_here, other_node
from tests.support.results import results_of
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.slow

SOON = RetryPolicy(max_retries=1, base_delay=0.0)


def test_a_node_that_dies_costs_nobody_a_try_and_the_job_goes_on_when_another_comes(ray_node: None, gate: Gate) -> None:
    """Its guardian is an actor there, and dies with it."""
    backend = RayBackend(worker={"num_cpus": 0, "resources": {"spot": 1}})
    with JobQueue(1, backend=backend, retry=SOON) as queue, JobQueue(1, backend=RayBackend()) as bystander:
        run = None
        with other_node({"spot": 1}) as node:
            job = queue.create_job("job", range(20), do.only(7, do.block_until_told(gate)), chunksize=10)
            run = queue.start("job")
            gate.wait_for(7)
            assert results_of(bystander.run(range(5), do.double)) == [0, 2, 4, 6, 8]
            node.kill_raylet()
            wait_until(lambda: not node.has_workers(), what="the node's workers to be gone")
        assert not run.done()
        gate.open()
        with other_node({"spot": 1}):
            assert results_of(run.result(300)) == list(range(20))
            queue.close()
    assert [tried for item in job.items for tried in item.history] == []
    assert [item.attempts for item in job.items] == [1] * 20


#: Workers on this program's own node, and on another one, which this machine is too.
HERE, THERE = None, {"num_cpus": 0, "resources": {"spot": 1}}


@pytest.fixture(params=["here", "there"])
def place(request: pytest.FixtureRequest, ray_node: None) -> Iterator[str]:
    """Where the workers are."""
    if request.param == "here":
        yield "here"
        return
    with other_node({"spot": WORKERS}):
        yield "there"


def _backend(place: str) -> RayBackend:
    return RayBackend(worker=HERE if place == "here" else THERE)


@pytest.mark.long(but=["there"])
def test_a_node_has_one_copy_of_what_is_shared(place: str, gate: Gate) -> None:
    """On this program's own machine, that is the one that it has itself."""
    with JobQueue(WORKERS, backend=_backend(place)) as queue:
        table = mpqueue.share(np.arange(500_000))
        queue.create_job("met", range(2), partial(_meet_and_tell, table, gate), chunksize=1)
        run = queue.start("met")
        gate.wait_for(0, 1)  # both workers are at it
        gate.open()
        told = results_of(run.result(300))
        assert results_of(queue.run([(7, table)] * 4, _look_up, chunksize=1)) == [7] * 4
        assert [item for item, _ in told] == [0, 1]
        ((inode),) = {inode for _, inode in told}  # each maps the same file
        assert inode is not None
        assert inode in segments_here()
        del table
        assert results_of(queue.run(range(4), do.double)) == [0, 2, 4, 6]


def _meet_and_tell(table: Any, gate: Gate, item: int) -> tuple[int, int | None]:
    do.block_until_told(gate)(item)
    mapped = segment_at(table.value)
    table.value[item] += 100  # for itself
    return int(table.value[item]) - 100, mapped


def _look_up(item: tuple[int, Any]) -> int:
    return int(item[1].value[item[0]])


@pytest.mark.long
def test_workers_for_which_there_is_no_room_are_done_without(ray_node: None) -> None:
    """A job whose setup fails in all that are there does not wait for those that are not."""
    with JobQueue(3, backend=RayBackend(), max_retries=0) as queue:
        assert results_of(queue.run(range(30), do.double)) == [2 * item for item in range(30)]
        job = queue.run(range(3), _take_state, setup=_refuse)
    assert isinstance(job.items[0].exception, SetupError)


@pytest.mark.long
def test_idle_workers_give_their_room_back_and_come_again(ray_node: None) -> None:
    with JobQueue(None, backend=RayBackend(), max_retries=0) as queue:
        assert queue.run(range(30), _put_into_state, setup=dict).results == list(range(30))
        wait_until(lambda: ray.available_resources().get("CPU") == WORKERS, what="the room to be given back")
        assert ray.get(ray.remote(_one).remote()) == 1
        assert queue.run(range(30), _put_into_state, setup=dict).results == list(range(30))
        assert queue.concurrency == WORKERS


def _one() -> int:
    return 1


def _put_into_state(item: int, state: dict[int, int]) -> int:
    state[item] = item
    return state[item]


@pytest.mark.long
def test_as_many_workers_start_as_there_are_items_for(ray_node: None, gate: Gate) -> None:
    with JobQueue(None, backend=RayBackend()) as queue:
        run = queue.start(queue.create_job("job", [0], do.block_until_told(gate)))
        gate.wait_for(0)
        assert ray.available_resources().get("CPU") == WORKERS - 1
        gate.open()
        assert results_of(run.result(300)) == [0]


@pytest.mark.long
def test_a_queue_that_finds_no_room_waits_and_says_so(ray_node: None, caplog: pytest.LogCaptureFixture) -> None:
    """Longer than its patience, which is for workers that can't come."""
    other = ray.remote(num_cpus=WORKERS)(_Holder).remote()
    ray.get(other.there.remote())
    with JobQueue(1, backend=RayBackend(patience=0.5), max_retries=0) as queue:
        run = queue.start(queue.create_job("job", range(3), do.double))
        wait_until(lambda: "no room on Ray now" in caplog.text, what="it to say so")
        with pytest.raises(TimeoutError):
            run.result(2.0)
        ray.kill(other)
        assert results_of(run.result(300)) == [0, 2, 4]


@pytest.mark.long
def test_room_that_was_taken_meanwhile_is_looked_for_on_other_nodes(ray_node: None) -> None:
    """What Ray says of a node's room is a moment old: an actor that does not come there may come elsewhere."""
    with other_node({}), JobQueue(1, backend=RayBackend(), max_retries=0) as queue:
        queue.create_job("job", range(3), do.double)
        other = ray.remote(num_cpus=WORKERS)(_Holder).remote()
        assert results_of(queue.start("job").result(300)) == [0, 2, 4]
        ray.kill(other)


@pytest.mark.long
def test_an_actor_that_ends_while_its_agent_starts_is_replaced(ray_node: None) -> None:
    with JobQueue(1, backend=RayBackend(), retry=SOON) as queue:
        run = queue.start(queue.create_job("job", range(3), do.double))
        wait_until(_kill_an_actor_whose_agent_starts, what="an agent to start")
        assert results_of(run.result(300)) == [0, 2, 4]


def _kill_an_actor_whose_agent_starts() -> bool:
    actors = [int(actor.split()[0]) for actor in actors_here()]
    with_agent = [actor for actor in actors if [*leaks.descendants(actor)]]
    for actor in with_agent:
        os.kill(actor, signal.SIGKILL)
    return bool(with_agent)


class _Holder:
    def there(self) -> bool:
        return True


def test_workers_for_which_no_node_could_have_room_interrupt_the_job(ray_node: None) -> None:
    backend = RayBackend(worker={"resources": {"nowhere": 1}}, patience=0.5)
    with JobQueue(1, backend=backend) as queue, pytest.raises(WorkerStartError, match="there was no room for any"):
        queue.run(range(3), do.double)


def _refuse() -> None:
    raise OSError("no model")


def _take_state(item: int, _: None) -> int:
    return item


def test_a_queue_that_is_closed_while_its_workers_start_leaves_none(ray_node: None) -> None:
    """That no actor is left, the fixture sees to."""
    for kill in (True, False):
        with JobQueue(1, backend=RayBackend()) as queue:
            queue.create_job("job", range(3), do.double)
            queue.start("job")
            queue.close(wait=False, kill=kill)


def test_versions_that_differ_are_a_clear_error_at_once(ray_node: None, monkeypatch: pytest.MonkeyPatch) -> None:
    there = f"mpqueue {mpqueue.__version__} there and 0.0.9 here"
    monkeypatch.setattr(mpqueue, "__version__", "0.0.9")
    with JobQueue(1, backend=RayBackend()) as queue, pytest.raises(WorkerStartError, match=there):
        queue.run(range(2), do.double)


def test_the_command_line_runs_on_ray(ray_node: None, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import ray\n\ndef where(line):\n    return ray.get_runtime_context().get_node_id()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mpqueue", "run", "own:where", "--from", "lines", "-", "--backend", "ray"],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        cwd=tmp_path,
        input="a\nb\n",
        text=True,
        capture_output=True,
        check=False,
    )
    node = ray.get_runtime_context().get_node_id()
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["result"] for line in done.stdout.splitlines()] == [node] * 2


def test_a_client_that_is_killed_leaves_no_worker(ray_node: None, tmp_path: Path) -> None:
    address = ray.get_runtime_context().gcs_address
    script = f"""
        import os, mpqueue
        from mpqueue.backends import RayBackend
        queue = mpqueue.JobQueue(None, backend=RayBackend({address!r}))
        print(queue.concurrency, queue.run(range(10), abs).completed, flush=True)
        os.kill(os.getpid(), 9)
    """
    assert run_program(tmp_path, script, check=False).stdout == "2 10\n"
    wait_until(lambda: not actors_here(), what="the actors to be gone")


def test_a_local_ray_ends_with_its_last_queue_and_with_ctrl_c(tmp_path: Path, short_folder: str) -> None:
    """That no process is left, the fixture of all tests sees to."""
    script = f"""
        import os, threading
        os.environ.update({json.dumps({**QUIET, "RAY_TMPDIR": short_folder})})
        import mpqueue, ray
        from mpqueue.backends import RayBackend

        def hang(item):
            open("hanging", "w").close()
            threading.Event().wait()

        try:
            with mpqueue.JobQueue(1, backend=RayBackend()) as queue:
                print(queue.run(range(10), abs).completed, ray.is_initialized(), flush=True)
                queue.run(range(10), hang)
        finally:
            left = [one.name for one in threading.enumerate() if one.name == "mpqueue-ray"]
            print(ray.is_initialized(), left)
    """
    program = start_program(tmp_path, script)
    wait_until((tmp_path / "hanging").exists, what="an item to run")
    program.send_signal(signal.SIGINT)
    output, said = program.communicate(timeout=300)
    assert output == "10 True\nFalse []\n"
    assert "KeyboardInterrupt" in said
    assert "Exception ignored" not in said


@pytest.mark.parametrize(
    ("wrong", "error"), [(5, TypeError), ("ray://head:10001", ValueError), ("192.0.2.1:1234", ValueError)]
)
def test_an_address_that_is_none_is_refused(ray_node: None, wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="address: expected"):
        RayBackend(wrong)


@pytest.mark.long
def test_a_ray_that_is_shut_down_under_a_queue_interrupts_its_jobs(tmp_path: Path, short_folder: str) -> None:
    script = f"""
        import os, threading
        os.environ.update({json.dumps({**QUIET, "RAY_TMPDIR": short_folder})})
        import mpqueue, ray
        from mpqueue.backends import RayBackend

        def hang(item):
            open("hanging", "w").close()
            threading.Event().wait()

        def shut_down():
            while not os.path.exists("hanging"):
                threading.Event().wait(0.05)
            ray.shutdown()

        with mpqueue.JobQueue(1, backend=RayBackend()) as queue:
            threading.Thread(target=shut_down).start()
            for handler in (hang, abs):
                try:
                    queue.run(range(3), handler)
                except mpqueue.WorkerStartError as error:
                    print(error, queue.last_job.status, ray.is_initialized(), flush=True)
            ray.init(include_dashboard=False, num_cpus=1)  # the program's own, which is not the queue's to end
        print(ray.is_initialized())
    """
    lines = run_program(tmp_path, script).stdout.splitlines()
    for line in lines[:2]:
        assert "the program has shut Ray down" in line
        assert line.endswith(" cancelled False")
    assert lines[2:] == ["True"]


@pytest.mark.long
def test_a_cluster_whose_gcs_is_lost_interrupts_its_jobs_and_nothing_hangs(tmp_path: Path, short_folder: str) -> None:
    script = f"""
        import os, signal, threading
        os.environ.update({json.dumps({**QUIET, "RAY_TMPDIR": short_folder})})
        import mpqueue, psutil
        from mpqueue.backends import RayBackend

        def work(item):
            if item >= 2 and os.path.exists("once"):
                open("hanging", "w").close()
                threading.Event().wait()
            return item

        def kill_gcs():
            while not os.path.exists("hanging"):
                threading.Event().wait(0.05)
            for child in all_of_ray():
                there.append(child)
                if child.name() == "gcs_server":
                    child.kill()

        def all_of_ray():
            return psutil.Process().children(recursive=True)

        there = []
        open("once", "w").close()
        with mpqueue.JobQueue(1, backend=RayBackend(), journal="run.db") as queue:
            threading.Thread(target=kill_gcs).start()
            job = queue.create_job("job", range(4), work, chunksize=1)
            try:
                queue.start(job).result(300)
            except mpqueue.WorkerStartError as error:
                print(job.status, error, flush=True)
        os.remove("once")
        with mpqueue.JobQueue(1, journal="run.db") as queue:
            job = queue.run(range(4), work, id="job", chunksize=1)
            print(job.results, [item.attempts for item in job.items])
        for child in there:  # some of Ray's own live on for a while
            if child.is_running():
                child.kill()
    """
    program = start_program(tmp_path, script)
    output, _ = program.communicate(timeout=300)  # Ray's own end takes some seconds
    first, second = output.splitlines()
    assert first.startswith("cancelled ")
    assert "is gone: its head node, or gcs_server there, has ended" in first
    assert second == "[0, 1, 2, 3] [1, 1, 1, 1]"
