"""What every engine must do: the behaviour of a queue, held against each engine that there is.

What an engine can't do, its capabilities say; then the queue has to refuse it or to make up for it, and the test says
how.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import ItemStatus, Job, JobStatus, ResultPicklingError, RetryPolicy, Stage, current_item, sinks
from mpqueue.backends import Backend
from mpqueue.events import JOB_FINISHED, JOB_PROGRESS, JOB_STARTED
from tests.support import contract_handlers as its
from tests.support import handlers as do
from tests.support.engine_pages import refused_by, refused_on_page
from tests.support.engines import WORKERS, Engine
from tests.support.recorder import Recorder
from tests.support.results import results_of
from tests.support.this_system import IS_LINUX
from tests.support.waiting import Gate, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("forked_workers"),
    pytest.mark.long(
        but=[
            "loky",
            "inline",
            "test_results_come_in_item_order_and_events_are_right",
            "test_big_items_handlers_and_results_travel",
            "test_what_is_shared_arrives",
            "test_closing_at_once_leaves_nothing",
            "test_cancel_with_kill_ends_what_runs_or_waits_for_it",
            "test_odd_outcomes_are_failures_and_cost_nobody_else_anything",
            "test_calls_run_on_the_engine_that_they_name",
            "test_it_refuses_what_its_page_says",
            "test_setup_runs_once_a_worker_and_is_finished",
        ]
    ),
]


# -- work ------------------------------------------------------------------------------------------------------------


def test_results_come_in_item_order_and_events_are_right(engine: Engine) -> None:
    with engine.queue() as queue:
        recorder = Recorder(queue)
        job = queue.create_job("job", range(500), do.double)
        assert results_of(queue.start("job").result()) == [2 * item for item in range(500)]
        assert job.status is JobStatus.COMPLETED
        recorder.check(job)
    names = recorder.names("job")
    assert (names[0], names[-1], names.count(JOB_PROGRESS)) == (JOB_STARTED, JOB_FINISHED, 500)


def test_one_job_follows_the_other_and_two_run_side_by_side(engine: Engine) -> None:
    with engine.queue() as queue:
        assert results_of(queue.run(range(10), do.double)) == [2 * item for item in range(10)]
        for name in ("a", "b"):
            queue.create_job(name, range(100), do.square)
        runs = [queue.start(name) for name in ("a", "b")]
        for run in runs:
            assert results_of(run.result()) == [item * item for item in range(100)]


def test_results_go_into_a_file_or_nowhere(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with engine.queue() as queue:
        queue.run(range(300), do.double, results=sinks.jsonl(path, in_order=True))
        assert queue.run(range(30), do.double, results="discard").completed == 30
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["id"], row["result"]) for row in rows] == [(item, 2 * item) for item in range(300)]


def test_items_go_through_stages(engine: Engine) -> None:
    with engine.queue(max_retries=0) as queue:
        heard = Recorder(queue)
        job = queue.run_stages(
            [4, 1, 0], [its.count_down, Stage(its.only_even, concurrency=1), its.array_of, its.first_of], id="flow"
        )
        assert job.results == [None, [], []]
        assert str(job.items[0].exception) == "in stage 'only_even': ValueError: 3"
        job = queue.run_stages(range(40), [its.array_of, Stage(its.first_of, ordered=True)])
        assert job.results == [*range(40)]
        heard.check(job)
        with pytest.raises(TypeError, match="expected a function"):
            queue.run_stages([1], [do.double, 3])  # type: ignore[list-item]


def test_so_many_items_run_at_a_time_as_units_are_there_or_it_is_refused(engine: Engine) -> None:
    # Not each system says how much memory there is.
    counts = engine.able.own_processes and engine.able.is_here
    memory = {"memory": "1GB"} if counts else {}
    with engine.queue(resources={"license": 1, "gpu": 2, **memory}) as queue:
        job = queue.run(range(6), its.held_units, uses=lambda item: {"license": 1, "gpu": item % 2})
        assert results_of(job) == [{"license": [0]} | ({"gpu": [0]} if item % 2 else {}) for item in range(6)]
        if counts:
            assert queue.run(range(4), do.double, uses={"cpu": 2, "memory": "10MB"}).completed == 4
            return
        with pytest.raises(ValueError, match=r"uses\['cpu'\]: expected none, since the workers"):
            queue.create_job("refused", range(4), do.double, uses={"cpu": 1})
        with pytest.raises(ValueError, match=r"uses\['memory'\]: expected none, since the workers"):
            queue.create_job("refused", range(4), do.double, uses={"memory": 1})
    with pytest.raises(ValueError, match="gpu_env: expected False"):
        engine.queue(resources={"gpu": 1}, gpu_env=True)


def test_a_lane_never_runs_two_items_at_once(engine: Engine, tmp_path: Path) -> None:
    alone = partial(its.run_alone, tmp_path / "running")
    with engine.queue(resources={"license": 1}, max_retries=0) as queue:
        assert results_of(queue.run(range(100), alone, uses={"license": 1})) == [*range(100)]
        assert results_of(queue.run(range(100), alone, concurrency=1)) == [*range(100)]
        stages: list[Any] = [do.succeed, Stage(alone, concurrency=1, ordered=True)]
        assert queue.run_stages(range(100), stages).results == [*range(100)]
    with engine.queue(1, max_retries=0) as queue:
        assert results_of(queue.run(range(100), alone)) == [*range(100)]


def test_handlers_add_items_to_an_open_job(engine: Engine) -> None:
    with engine.queue() as queue:
        queue.open_job("grows", [20], its.halve)
        run = queue.start("grows")
        assert queue.add_items("grows", [30]) == 1
        queue.seal("grows")
        job = run.result()
        assert (job.total, job.completed, sum(item == 1 for item in results_of(job))) == (98, 98, 50)


def test_big_items_handlers_and_results_travel(engine: Engine) -> None:
    np = pytest.importorskip("numpy")  # which there is none of under wine
    table = np.arange(200_000)

    def add(array: Any) -> Any:
        array += table  # what comes is the handler's own to change
        return array

    with engine.queue() as queue:
        items = [np.full(200_000, at) for at in range(4)]
        results = results_of(queue.run(items, add))
    for at, result in enumerate(results):
        assert (result == table + at).all()
        assert (items[at] == at).all()


def test_what_is_shared_arrives(engine: Engine) -> None:
    np = pytest.importorskip("numpy")
    table = mpqueue.share(np.arange(100_000))
    with engine.queue() as queue:
        assert results_of(queue.run(range(5), lambda item: int(table.value[item]) + len(table))) == [
            100_000 + item for item in range(5)
        ]


def test_a_handler_knows_its_item_and_its_try(engine: Engine) -> None:
    def tell(item: dict[str, Any]) -> tuple[Any, ...]:
        here = current_item()
        here.report(0.5)
        if here.attempt == 1 and here.id == "b":
            raise ValueError("again")
        return here.job_id, here.id, here.attempt, here.worker < 1000, here.paused, here.cancelled

    with engine.queue() as queue:
        job = queue.run([{"id": "a"}, {"id": "b"}], tell, id="the-job")
    assert results_of(job) == [
        ("the-job", "a", 1, True, False, False),
        ("the-job", "b", 2, True, False, False),
    ]


# -- failures --------------------------------------------------------------------------------------------------------


def test_a_failing_item_is_tried_again_and_then_fails_as_itself(engine: Engine) -> None:
    with engine.queue(retry=RetryPolicy(max_retries=2, base_delay=0.01)) as queue:
        recorder = Recorder(queue)
        job = queue.run(["good", "bad", "late"], partial(its.fail_variously), id="job")
        recorder.check(job)
    good, bad, late = job.items
    assert (good.status, good.attempts) == (ItemStatus.COMPLETED, 1)
    assert (bad.status, bad.attempts, bad.error) == (ItemStatus.FAILED, 3, "ValueError: no")
    assert isinstance(bad.exception, ValueError)
    assert "fail_variously" in (bad.traceback or "")
    assert (late.status, late.attempts) == (ItemStatus.COMPLETED, 3)
    assert [try_.duration >= 0 for try_ in bad.history] == [True] * 3


@pytest.mark.long(but=["return_lock", "return_ununpicklable"])
@pytest.mark.parametrize(
    "bad", [do.return_lock, do.raise_unpicklable, do.raise_base_exception, do.return_ununpicklable]
)
def test_odd_outcomes_are_failures_and_cost_nobody_else_anything(engine: Engine, bad: Any) -> None:
    with engine.queue(max_retries=0) as queue:
        job = queue.run(range(6), do.only(3, bad))
    assert [item.status for item in job.items] == ["completed"] * 3 + ["failed"] + ["completed"] * 2
    assert [item.attempts for item in job.items] == [1] * 6


@pytest.mark.parametrize("early", [False, True], ids=["answer", "early report"])
def test_a_result_that_takes_long_to_unpickle_holds_up_no_other_job(
    engine: Engine, early: bool, tmp_path: Path
) -> None:
    unpickling, running = Gate(tmp_path / "unpickling"), Gate(tmp_path / "running")
    slow = do.return_made(do.WhenUnpickled, do.block_until_told(unpickling))
    with engine.queue(WORKERS) as queue:
        last = do.block_until_told(running) if early else do.succeed
        queue.create_job("slow", range(3), do.only(0, slow, do.only(2, last)), chunksize=3)
        run = queue.start("slow")
        unpickling.wait_for(None)
        running.open()
        assert queue.run(["bystander"], do.succeed).results == ["bystander"]
        assert not run.done()
        unpickling.open()
        job = run.result()
    assert job.results == [None, 1, 2]
    assert [item.attempts for item in job.items] == [1, 1, 1]


@pytest.mark.long(but=["loky"])
@pytest.mark.holds("wait: a result is unpickled in your program")
def test_a_result_that_is_unpickled_without_end_costs_its_item(engine: Engine, tmp_path: Path) -> None:
    """It has half a minute: those two wait for that at the same time. One worker dies meanwhile."""

    def run(name: str, last: do.Handler) -> Job:
        gate = Gate(tmp_path / name)
        endless = do.return_made(do.WhenUnpickled, do.block_until_told(gate))
        after = partial(its.wait_for_arrival, gate, None, last)
        try:
            with engine.queue(1, max_retries=0) as queue:
                return queue.run(range(5), do.only(1, endless, do.only(3, after)), chunksize=5)
        finally:
            gate.open()

    with ThreadPoolExecutor(2) as threads:
        ends, dies = threads.map(run, ("ends", "dies"), (do.succeed, engine.die))
    for job in (ends, dies):
        assert [item.status for item in job.items if item.id not in (1, 3)] == [ItemStatus.COMPLETED] * 3
        assert isinstance(job.items[1].exception, ResultPicklingError)
        assert "it was still being unpickled after 3" in (job.items[1].error or "")
        assert [item.attempts for item in job.items] == [1] * 5
    assert ends.items[3].status is ItemStatus.COMPLETED
    assert isinstance(dies.items[3].exception, mpqueue.WorkerCrashedError)


# -- dead workers ----------------------------------------------------------------------------------------------------


def test_a_dead_worker_costs_its_item_one_try_and_nobody_else_any(engine: Engine) -> None:
    with engine.queue() as queue:
        job = queue.run(range(40), do.only(17, do.at_first(engine.die)))
    assert results_of(job) == list(range(40))
    assert [item.attempts for item in job.items] == [1] * 17 + [2] + [1] * 22


def test_an_item_that_always_kills_its_worker_fails_in_the_end(engine: Engine) -> None:
    with engine.queue(retry=RetryPolicy(max_retries=1, base_delay=0.0)) as queue:
        job = queue.run(range(10), do.only(4, engine.die))
        assert results_of(queue.run(range(3), do.double)) == [0, 2, 4], "the queue goes on"
    assert isinstance(job.items[4].exception, mpqueue.WorkerCrashedError)
    assert [item.attempts for item in job.items] == [1] * 4 + [2] + [1] * 5
    assert job.completed == 9


def test_a_time_limit_ends_the_item_or_is_refused(engine: Engine) -> None:
    if not engine.able.own_processes:
        with pytest.raises(ValueError, match="timeout: expected None"):
            engine.queue(timeout=5)
        with engine.queue() as queue, pytest.raises(ValueError, match="timeout: expected None"):
            queue.create_job("job", [1], do.succeed, timeout=5)
        return
    with engine.queue(max_retries=0) as queue:
        job = queue.run(range(3), do.only(1, do.hang_holding_gil), timeout=1.0)
    assert isinstance(job.items[1].exception, mpqueue.ItemTimeoutError)
    assert [item.attempts for item in job.items] == [1, 1, 1]
    assert job.completed == 2


# -- setup -----------------------------------------------------------------------------------------------------------


def test_setup_runs_once_a_worker_and_is_finished(engine: Engine, gate: Gate) -> None:
    with engine.queue() as queue:
        job = queue.run(range(50), lambda item, state: (item, state), setup=partial(its.begin_and_end, gate))
        assert results_of(job) == [(item, "state") for item in range(50)]
        wait_until(lambda: _count(gate, "ended") == _count(gate, "begun"), what="the setups to be finished")
    assert 1 <= _count(gate, "begun") <= engine.workers


def _count(gate: Gate, word: str) -> int:
    return sum(name.startswith(word) for name in gate.arrived())


def test_a_setup_that_fails_everywhere_fails_the_job_once(engine: Engine) -> None:
    def refuse() -> None:
        raise OSError("no model")

    with engine.queue(max_retries=0) as queue:
        job = queue.run(range(5), lambda item, _: item, setup=refuse)
        assert results_of(queue.run([1], do.double)) == [2]
    assert isinstance(job.items[0].exception, mpqueue.SetupError)
    assert job.failed == 5


# -- pause and cancel ------------------------------------------------------------------------------------------------


def test_pause_reaches_a_chunk_that_runs_and_resume_goes_on(engine: Engine, gate: Gate) -> None:
    with engine.queue(1) as queue:  # two would share the items behind the one that waits
        wait = do.only(5, partial(its.wait_for_pause, gate), its.take_a_while)
        job = queue.create_job("job", range(50), wait, chunksize=50)
        run = queue.start("job")
        gate.wait_for(5)
        queue.pause("job")
        gate.open()
        assert queue.run(["x"], do.succeed).results == ["x"]
        assert job.completed < 50
        assert not run.done()
        queue.resume("job")
        assert results_of(run.result()) == list(range(50))
    assert [item.attempts for item in job.items] == [1] * 50


def test_cancel_reaches_the_handler_that_runs(engine: Engine, gate: Gate) -> None:
    with engine.queue() as queue:
        job = queue.create_job("job", range(50), partial(its.run_until_cancelled, gate), chunksize=1)
        run = queue.start("job")
        wait_until(gate.arrived, what="an item to start")
        queue.cancel("job")
        gate.open()
        assert run.result().status is JobStatus.CANCELLED
        assert job.completed < 50
        assert results_of(queue.run(range(3), do.double)) == [0, 2, 4]


def test_cancel_is_still_heard_by_who_runs_when_another_has_ended(engine: Engine, gate: Gate) -> None:
    if engine.workers < 2:
        pytest.skip("nobody who hears it runs beside another there")
    with engine.queue() as queue:
        queue.create_job("job", range(2), partial(its.look_once_told, gate), chunksize=1)
        run = queue.start("job")
        gate.wait_for(0, 1)
        queue.cancel("job")
        assert results_of(queue.run(["a"], do.succeed)) == ["a"]  # where the first has ended
        gate.open()
        assert run.result().status is JobStatus.CANCELLED
    assert gate.is_here("heard")


def test_cancel_with_kill_ends_what_runs_or_waits_for_it(engine: Engine, gate: Gate) -> None:
    with engine.queue() as queue:
        queue.create_job("job", range(10), do.block_until_told(gate), chunksize=1)
        run = queue.start("job")
        wait_until(gate.arrived, what="an item to start")
        queue.cancel("job", kill=True)
        if not engine.able.own_processes:
            gate.open()
        assert run.result().status is JobStatus.CANCELLED
        assert results_of(queue.run(range(3), do.double)) == [0, 2, 4]


def test_closing_at_once_leaves_nothing(engine: Engine, gate: Gate) -> None:
    """That nothing is left, the fixture of all tests sees to."""
    queue = engine.queue()
    queue.create_job("job", range(10), do.block_until_told(gate), chunksize=1)
    run = queue.start("job")
    wait_until(gate.arrived, what="an item to start")
    if not engine.able.own_processes:
        gate.open()
    queue.close(kill=True)
    assert run.result(300).status is JobStatus.CANCELLED


# -- balance ---------------------------------------------------------------------------------------------------------


def test_items_behind_a_slow_one_go_elsewhere(engine: Engine, gate: Gate) -> None:
    if engine.workers < 2:
        pytest.skip("there is no other worker")
    with engine.queue() as queue:
        job = queue.create_job("job", range(20), do.only(0, do.block_until_told(gate)), chunksize=20)
        run = queue.start("job")
        gate.wait_for(0)
        wait_until(lambda: job.completed == 19, what="the other items")
        gate.open()
        assert results_of(run.result()) == list(range(20))
    assert [item.attempts for item in job.items] == [1] * 20


def test_what_was_finished_comes_home_before_a_slow_item_ends(engine: Engine, gate: Gate) -> None:
    with engine.queue(1) as queue:
        queue.create_job("job", range(6), do.only(5, do.block_until_told(gate)), chunksize=6)
        run = queue.start("job")
        finished = run.as_completed()
        assert {next(finished).id for _ in range(5)} == {0, 1, 2, 3, 4}
        assert not run.done()
        gate.open()
        assert results_of(run.result()) == list(range(6))


def test_workers_can_be_more_and_fewer_while_a_job_runs_or_that_is_refused(engine: Engine, gate: Gate) -> None:
    with engine.queue(1, max_retries=0) as queue:
        if not engine.able.own_processes:
            with pytest.raises(ValueError, match="workers of the queue's own"):
                queue.resize(2)
            return
        job = queue.create_job("job", range(6), do.block_until_told(gate, then=do.return_pid), chunksize=1)
        run = queue.start("job")
        gate.wait_for_count(1)
        queue.resize(2)
        gate.wait_for_count(2)
        queue.resize(1, kill=True)
        assert queue.concurrency == 1
        wait_until(lambda: _count_running(job) == 1, what="the second worker to have gone")
        gate.open()
        assert len(set(results_of(run.result()))) == 1
        assert [item.attempts for item in job.items] == [1] * 6


def _count_running(job: Job[Any, Any]) -> int:
    return sum(item.status is ItemStatus.PROCESSING for item in job.items)


def test_a_running_item_is_seen_to_run(engine: Engine, gate: Gate) -> None:
    with engine.queue(1) as queue:
        job = queue.create_job("job", range(2), do.block_until_told(gate))
        run = queue.start("job")
        gate.wait_for(0)
        wait_until(lambda: job.items[0].status is ItemStatus.PROCESSING, what="the item to be seen")
        assert job.items[1].status is ItemStatus.PENDING
        gate.open()
        run.result()


# -- options that an engine may refuse ---------------------------------------------------------------------------------


def test_capture_output_works_or_is_refused(engine: Engine) -> None:
    with engine.queue() as queue:
        if not engine.able.own_processes:
            with pytest.raises(ValueError, match="capture_output"):
                queue.create_job("job", [1], do.succeed, capture_output=True)
            return
        job = queue.run(range(3), print, capture_output=True)
        assert [item.stdout for item in job.items] == ["0\n", "1\n", "2\n"]


def test_workers_are_replaced(engine: Engine) -> None:
    with engine.queue(per_worker={"items": 5}) as queue:
        job = queue.run(range(11), do.return_pid if engine.able.own_processes else do.double)
    assert [item.attempts for item in job.items] == [1] * 11
    if engine.able.own_processes:
        assert max(Counter(results_of(job)).values()) <= 5
    else:
        assert results_of(job) == [2 * item for item in range(11)]


def test_inner_threads_are_set_or_that_is_refused(engine: Engine) -> None:
    if not engine.able.own_processes:
        with pytest.raises(ValueError, match=r"per_worker\['threads'\]"):
            engine.queue(per_worker={"threads": 3})
        return
    with engine.queue(1, per_worker={"threads": 3}) as queue:
        assert results_of(queue.run([0], its.inner_threads)) == ["3"]


def test_modules_are_preloaded_or_that_is_refused(engine: Engine) -> None:
    if not engine.able.can_fork:
        with pytest.raises(ValueError, match="preload"):
            engine.queue(preload=["colorsys"])
        return
    with engine.queue(1, preload=["colorsys"]) as queue:
        assert results_of(queue.run(["colorsys"], its.is_imported)) == [True]


@pytest.mark.skipif(not IS_LINUX, reason="the tables are about Linux; other systems refuse more")
def test_it_refuses_what_its_page_says(engine: Engine) -> None:
    assert refused_by(engine) == refused_on_page(engine)


def test_where_handlers_are_is_sampled(engine: Engine) -> None:
    with engine.queue() as queue:
        profile = queue.run(range(2), its.spin_a_while, profile=True).profile
    assert profile is not None
    assert its.spin_a_while.__name__ in {stack[0].function for stack in profile.stacks}


# -- calls -----------------------------------------------------------------------------------------------------------


def test_calls_run_on_the_engine_that_they_name(engine: Engine, opened: list[Backend]) -> None:
    """Each has a queue of its own on it, which has ended with the call."""
    here: dict[str, Any] = {"backend": engine.backend, "concurrency": 1}
    assert mpqueue.starmap(pow, [(2, 3), (3, 2)], **here) == [8, 9]
    assert asyncio.run(mpqueue.amap(do.double, range(5), **here)) == [0, 2, 4, 6, 8]
    endless = mpqueue.imap(do.double, itertools.count(), **here)
    assert list(itertools.islice(endless, 50)) == [2 * item for item in range(50)]
    endless.close()
    assert mpqueue.stages(range(3), [do.double, do.double], **here) == [0, 4, 8]
    assert opened == [engine.backend] * 4


def test_pools_run_on_the_engine_that_they_name(engine: Engine, opened: list[Backend]) -> None:
    here: dict[str, Any] = {"backend": engine.backend}
    with mpqueue.Pool(**here) as pool:
        assert (pool.map(do.double, range(5)), pool.apply(do.double, (3,))) == ([0, 2, 4, 6, 8], 6)
        assert list(pool.imap(do.double, range(5))) == [0, 2, 4, 6, 8]
    with mpqueue.Executor(1, **here) as executor:
        assert (executor.submit(do.double, 3).result(), list(executor.map(do.double, [1]))) == (6, [2])
    assert opened == [engine.backend] * 2


def test_joblib_runs_on_the_engine_that_it_is_given(engine: Engine, opened: list[Backend]) -> None:
    joblib = pytest.importorskip("joblib")
    ours: Any = importlib.import_module("mpqueue.joblib_backend")
    ours.register(backend=engine.backend)
    try:
        with joblib.parallel_config(backend="mpqueue", n_jobs=2):
            assert joblib.Parallel()(joblib.delayed(do.double)(item) for item in range(5)) == [0, 2, 4, 6, 8]
    finally:
        ours.close()
        ours.register()
    assert opened == [engine.backend]
    if not engine.able.own_processes:
        with pytest.raises(ValueError, match="can't end an item"):
            ours.MPQueueBackend(backend=engine.backend, timeout=30.0)


@pytest.fixture
def opened(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[Backend]:
    """The engines that queues have opened, one for each queue."""
    kind, opened = type(engine.backend), list[Backend]()

    def open_noted(backend: Backend, *given: Any, open_: Callable[..., Any] = kind.open) -> Any:
        opened.append(backend)
        return open_(backend, *given)

    monkeypatch.setattr(kind, "open", open_noted)
    return opened


def test_a_time_limit_of_a_call_is_refused_where_nothing_can_be_killed(engine: Engine) -> None:
    limited: dict[str, Any] = {"backend": engine.backend, "timeout": 30.0}
    calls: list[Callable[[], Any]] = [
        lambda: mpqueue.map(do.double, [1], **limited),
        lambda: list(mpqueue.imap(do.double, [1], **limited)),
        lambda: mpqueue.stages([1], [do.double], **limited),
        lambda: mpqueue.Pool(1, **limited).terminate(),
        lambda: mpqueue.Executor(1, **limited).shutdown(),
    ]
    for call in calls if not engine.able.own_processes else calls[:1]:
        with (
            contextlib.nullcontext()
            if engine.able.own_processes
            else pytest.raises(ValueError, match="can't end an item")
        ):
            call()
