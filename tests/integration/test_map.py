"""`mpqueue.map` and `starmap`: results, failures, retries, limits; and the pool that they share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import mpqueue
from mpqueue import (
    SetupError,
)
from mpqueue.testing import close_shared_pool
from tests.support import handlers as do
from tests.support.leaks import processes
from tests.support.programs import interrupt_program, is_running, run_program
from tests.support.systems import not_on_windows
from tests.support.this_system import IS_WINDOWS
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_pool_ends", "forked_workers")]


@pytest.fixture(scope="module")
def without_workers(forked_workers: None) -> set[int]:
    """The processes that are here without a shared pool."""
    return processes()


Workers = Callable[[int], set[int]]


@pytest.fixture
def workers(without_workers: set[int]) -> Workers:
    """Those of the shared pool, which are to be so many once they have started."""

    def found(count: int) -> set[int]:
        pids = wait_until(lambda: len(found := processes() - without_workers) == count and found)
        assert isinstance(pids, set)
        return pids

    return found


# --- results --------------------------------------------------------------------------------------------------------


def test_starmap_calls_with_the_entries_of_each_item_and_takes_the_options_of_map() -> None:
    assert mpqueue.starmap(pow, [(2, 3), (3, 2), (7, 2, 5)]) == [8, 9, 4]
    assert mpqueue.starmap(divmod, [(7, 2), (1, 0)], on_error="skip", max_retries=0) == [(3, 1)]
    with pytest.raises(ZeroDivisionError):
        mpqueue.starmap(divmod, [(1, 0)], max_retries=0)
    with pytest.raises(TypeError, match="expected a callable"):
        mpqueue.starmap(cast("Any", None), [])


def test_function_that_no_worker_can_import_fails_every_item(tmp_path: Path) -> None:
    script = """
        import sys, types, mpqueue
        ghost = types.ModuleType("ghost")
        exec("def f(item): return item", vars(ghost))
        sys.modules["ghost"] = ghost
        try:
            mpqueue.map(ghost.f, range(100), max_retries=0)
        except mpqueue.SetupError as error:
            print(type(error.__cause__).__name__, len(error.__notes__))
    """
    assert run_program(tmp_path, script).stdout.split() == ["ModuleNotFoundError", "1"]
    assert issubclass(SetupError, Exception)


# --- failures -------------------------------------------------------------------------------------------------------


def test_first_failure_in_item_order_is_raised_as_itself_when_all_is_done(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    gate.open()

    def fail_on_odd(item: int) -> int:
        gate.announce(item)
        if item % 2:
            raise ValueError(f"{item} is odd")
        return item

    with pytest.raises(ValueError, match="1 is odd") as caught:
        mpqueue.map(fail_on_odd, range(26), max_retries=0)
    assert gate.arrived() == {str(item) for item in range(26)}
    (note,) = caught.value.__notes__
    assert note == "mpqueue: raised by item 1; 12 more failed: items 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, ..."
    assert "fail_on_odd" in str(caught.value.__cause__), "the worker's traceback"


# --- the shared pool ------------------------------------------------------------------------------------------------


def test_concurrency_caps_the_workers_that_serve_one_call(tmp_path: Path, workers: Workers) -> None:
    mpqueue.map(do.succeed, range(3), concurrency=3)
    workers(3)
    for cap in (1, 2):
        seen = mpqueue.map(do.count_present(tmp_path), range(200), concurrency=cap, chunksize=1)
        assert max(seen) <= cap


def test_calls_share_one_pool_that_grows_and_never_shrinks(workers: Workers) -> None:
    mpqueue.map(do.succeed, range(10), concurrency=1)
    (first,) = workers(1)
    assert mpqueue.map(do.return_pid, range(10), concurrency=1) == [first] * 10
    mpqueue.map(do.succeed, range(10), concurrency=3)
    three = workers(3)
    assert first in three
    assert set(mpqueue.map(do.return_pid, range(100), concurrency=2)) <= three
    assert set(mpqueue.imap(do.return_pid, range(100), concurrency=2)) <= three
    assert workers(3) == three


def test_no_more_workers_are_started_than_there_are_items(workers: Workers) -> None:
    mpqueue.map(do.succeed, "ab", concurrency=40)
    workers(2)
    assert list(mpqueue.imap(do.succeed, "abc", concurrency=40)) == ["a", "b", "c"]
    three = workers(3)
    mpqueue.map(do.succeed, [], concurrency=40)
    assert mpqueue.map(do.double, range(3), concurrency=40) == [0, 2, 4]
    assert workers(3) == three


def test_pool_has_a_worker_for_each_cpu_where_nothing_is_said(workers: Workers) -> None:
    mpqueue.map(do.succeed, [1])
    workers((os.cpu_count() or 1) if IS_WINDOWS else len(os.sched_getaffinity(0)))


@pytest.mark.skipif(any("_NUM_THREADS" in name for name in os.environ), reason="the number of inner threads is set")
def test_workers_have_one_inner_thread_whatever_was_asked_first() -> None:
    assert mpqueue.map(os.getenv, ["OMP_NUM_THREADS"], concurrency=1) == ["1"]


def test_pool_can_be_ended_when_no_call_uses_it_and_the_next_call_makes_another(workers: Workers) -> None:
    results = mpqueue.imap(do.double, range(3), concurrency=2)
    before = workers(2)
    assert not close_shared_pool()
    assert list(results) == [0, 2, 4]
    assert set(mpqueue.map(do.return_pid, range(10), concurrency=2)) <= before
    assert close_shared_pool()
    assert not any(map(is_running, before))
    assert mpqueue.map(do.double, "a") == ["aa"]


@pytest.mark.long
def test_pool_ends_when_it_was_idle_for_half_a_minute(workers: Workers) -> None:
    mpqueue.map(do.succeed, range(3), concurrency=1)
    (worker,) = workers(1)
    wait_until(lambda: not is_running(worker), what="the worker to end")
    assert mpqueue.map(do.double, "a") == ["aa"]


def test_pool_ends_with_the_program_silently(tmp_path: Path) -> None:
    script = """
        import os, mpqueue
        print(*mpqueue.map(lambda _: os.getpid(), range(20)))
        rest = mpqueue.imap(abs, range(10**9))
        print(next(rest))
    """
    done = run_program(tmp_path, script)
    pids, first = done.stdout.splitlines()
    assert first == "0"
    assert done.stderr == ""
    wait_until(lambda: not any(map(is_running, map(int, pids.split()))), what="the workers to end")


@not_on_windows("no forks")
def test_fork_has_a_pool_of_its_own(tmp_path: Path) -> None:
    script = """
        import multiprocessing, os, warnings
        import mpqueue

        warnings.simplefilter("ignore")  # Python warns of forks in programs with threads

        def pids():
            return mpqueue.map(lambda _: os.getpid(), range(5), concurrency=1)

        def child(connection, results):
            results.close()
            connection.send((os.getpid(), mpqueue.map(abs, [-1, -2]), mpqueue.map(lambda _: os.getppid(), [1])))

        before = pids()
        results = mpqueue.imap(abs, range(10), concurrency=1)
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=child, args=(there, results))
        process.start()
        there.close()
        pid, doubled, parents = here.recv()
        process.join()
        assert doubled == [1, 2]
        assert parents == [pid], "its workers are its own children"
        assert process.exitcode == 0
        assert list(results) == list(range(10)), "and the parent's work goes on"
        assert pids() == before
    """
    assert run_program(tmp_path, script).stderr == ""


# --- interruption ---------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_running_items_and_goes_on(tmp_path: Path) -> None:
    script = """
        import mpqueue

        try:
            mpqueue.map(do.announce_pid(gate), range(100))
        except KeyboardInterrupt:
            print("interrupted", mpqueue.map(abs, [-1]))
    """
    done = interrupt_program(tmp_path, script, 1)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted [1]\n", "")
