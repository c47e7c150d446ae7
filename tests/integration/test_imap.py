"""`mpqueue.imap` and `imap_unordered`: lazy at both ends, failures in their place, and an end whenever it is wanted."""

from __future__ import annotations

import contextlib
import gc
import itertools
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

import mpqueue
from mpqueue.testing import close_shared_pool
from tests.support import handlers as do
from tests.support.front_ends import Counted
from tests.support.length import long
from tests.support.loops import LONG_WORK, Run, each_loop, in_loops, turns_of_others
from tests.support.programs import run_program
from tests.support.systems import not_on_windows
from tests.support.waiting import Gate, spend, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_pool_ends", "forked_workers")]

both = pytest.mark.parametrize("imap", [mpqueue.imap, mpqueue.imap_unordered])


# --- results --------------------------------------------------------------------------------------------------------


def test_unordered_results_do_not_wait_for_a_slow_one(gate: Gate) -> None:
    handler = do.only(0, do.block_until_told(gate))
    results = mpqueue.imap_unordered(handler, range(200), chunksize=1, buffersize=10, concurrency=2)
    early = [next(results) for _ in range(199)]
    gate.open()
    assert sorted(early) == list(range(1, 200))
    assert list(results) == [0]


def test_what_is_wrong_is_refused_at_once() -> None:
    imap = cast("Any", mpqueue.imap)
    with pytest.raises(TypeError, match="items: expected an iterable, got 3"):
        imap(do.double, 3)
    with pytest.raises(TypeError, match="expected a callable"):
        imap(3, [1])
    with pytest.raises(ValueError, match="buffersize"):
        imap(do.double, [1], buffersize=0)
    with pytest.raises(ValueError, match="on_error: expected one of 'raise', 'collect', 'skip', got 'group'"):
        imap(do.double, [1], on_error="group")
    assert close_shared_pool()


# --- laziness -------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("buffersize", [1, long(2), 7, long(100)])
def test_reading_stops_within_the_buffer_when_the_consumer_does(imap: Callable[..., Any], buffersize: int) -> None:
    numbers = Counted()
    with contextlib.closing(imap(do.succeed, numbers, buffersize=buffersize)) as results:
        assert numbers.read <= buffersize
        for taken in range(1, 300):
            next(results)
            assert numbers.read <= taken + buffersize
    assert numbers.read >= 299


def test_slow_first_item_stops_the_reading_for_ordered_results(gate: Gate) -> None:
    numbers = Counted()
    handler = do.only(0, do.block_until_told(gate))
    with ThreadPoolExecutor(1) as threads:
        results = mpqueue.imap(handler, numbers, buffersize=20, chunksize=1, concurrency=2)
        first = threads.submit(next, results)
        gate.wait_for(0)
        assert numbers.read <= 20
        gate.open()
        assert first.result(300) == 0
        assert list(itertools.islice(results, 99)) == list(range(1, 100))
        results.close()


MEMORY = """
    import itertools, sys
    import mpqueue

    def memory():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    def read(results, count):
        for _ in itertools.islice(results, count):
            pass

    count = int(sys.argv[2])
    results = getattr(mpqueue, sys.argv[1])(abs, iter(range(count)))
    read(results, count // 5)
    before = memory()
    read(results, count)
    assert next(results, None) is None
    print((memory() - before) >> 20)
"""


@pytest.mark.holds("promise: Memory is bounded")
@not_on_windows("memory is not told")
@pytest.mark.parametrize(("imap", "count"), [("imap", 1_000_000), long("imap_unordered", 1_000_000)])
def test_memory_stays_constant_over_millions_of_items(imap: str, count: int, tmp_path: Path) -> None:
    grown = run_program(tmp_path, MEMORY, imap, count).stdout
    assert int(grown) < 40, "megabytes; a million items, kept, are more than 100"


def test_what_is_read_is_dropped_with_its_result(tmp_path: Path) -> None:
    """As the memory of the parent, but exactly: of 1000 items only those in the buffer are alive."""
    alive = 0

    class Item:
        def __init__(self) -> None:
            nonlocal alive
            alive += 1

        def __reduce__(self) -> tuple[Any, ...]:
            return int, ()

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    results = mpqueue.imap(do.succeed, (Item() for _ in range(1000)), buffersize=20, chunksize=1)
    for _ in results:
        assert alive <= 20 + 2  # two may be on their way through the coordinator
    gc.collect()
    wait_until(lambda: alive == 0, what="the last items to go")


# --- the input ------------------------------------------------------------------------------------------------------


def failing_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise LookupError("no more")


def ended_by(error: BaseException) -> Iterator[int]:
    yield 0
    raise error


def test_interruption_while_the_input_is_read_ends_the_iterator_which_says_so() -> None:
    class Interrupted:
        def __init__(self) -> None:
            self.numbers = iter(range(100))
            self.calls = 0

        def __iter__(self) -> Interrupted:
            return self

        def __next__(self) -> int:
            self.calls += 1
            if self.calls == 60:
                raise KeyboardInterrupt
            return next(self.numbers)

    results = mpqueue.imap(do.succeed, Interrupted(), buffersize=20)
    found: list[int] = []

    def find_all() -> None:
        for result in results:
            found.append(result)  # noqa: PERF402 - what was found counts, although this is interrupted

    with pytest.raises(KeyboardInterrupt):
        find_all()
    assert found == list(range(len(found)))
    assert len(found) < 60
    with pytest.raises(mpqueue.QueueClosedError, match="this iterator is closed"):
        next(results)
    assert mpqueue.map(do.succeed, range(3)) == [0, 1, 2]


# --- in coroutines --------------------------------------------------------------------------------------------------


@in_loops
async def test_loop_runs_on_within_a_block_of_results() -> None:
    results = mpqueue.imap(do.succeed, range(30), chunksize=30, buffersize=10_000)
    assert await anext(results) == 0

    async def iterate() -> None:
        found: list[int] = []
        waits = 0
        while len(found) < 29:
            if len(found) == waits:
                spend(LONG_WORK)
            with anyio.move_on_after(0) as scope:
                found.append(await anext(results))
            waits += scope.cancelled_caught
        assert found == list(range(1, 30))
        assert waits > 10

    assert await turns_of_others(iterate) > 10


@in_loops
async def test_failures_and_the_error_of_the_input_come_in_their_places() -> None:
    results = mpqueue.imap(do.only(1, do.fail), failing_after(3), max_retries=0)
    assert await anext(results) == 0
    with pytest.raises(ValueError, match="cannot do 1"):
        await anext(results)
    assert await anext(results) == 2
    with pytest.raises(LookupError, match="no more"):
        await anext(results)
    with pytest.raises(StopAsyncIteration):
        await anext(results)


@in_loops
async def test_an_error_of_the_input_that_looks_like_the_end_does_not_end_the_loop() -> None:
    results = mpqueue.imap(do.succeed, ended_by(do.FalseError()))
    assert await anext(results) == 0
    with pytest.raises(do.FalseError):
        await anext(results)
    results = mpqueue.imap(do.succeed, ended_by(StopAsyncIteration("no more")))
    assert await anext(results) == 0
    with pytest.raises(RuntimeError, match="the input raised StopAsyncIteration") as caught:
        await anext(results)
    assert isinstance(caught.value.__cause__, StopAsyncIteration)


@in_loops
async def test_cancelled_wait_for_a_result_loses_none(gate: Gate) -> None:
    results = mpqueue.imap(do.only("a", do.block_until_told(gate)), "abc")
    with anyio.move_on_after(0.05) as scope:
        await anext(results)
    assert scope.cancelled_caught
    gate.open()
    assert [result async for result in results] == ["a", "b", "c"]


@in_loops
async def test_a_second_task_that_waits_for_a_result_is_refused(gate: Gate) -> None:
    results = mpqueue.imap(do.block_until_told(gate), "a")
    came: list[str] = []

    async def wait() -> None:
        try:
            came.append(await anext(results))
        except RuntimeError as error:
            came.append(str(error))
            gate.open()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        tasks.start_soon(wait)
    assert came == ["expected one task at a time to wait for what comes next, got a second one", "a"]


@each_loop
def test_results_that_come_when_the_loop_has_ended_are_not_lost(run: Run, gate: Gate) -> None:
    held = list[Iterator[str]]()

    async def main() -> None:
        results = mpqueue.imap(do.block_until_told(gate), "ab")
        held.append(results)
        with anyio.move_on_after(0.01):
            await anext(results)

    run(main)
    gate.open()
    assert list(held[0]) == ["a", "b"]


def test_a_loop_that_a_failure_has_ended_leaves_no_iterator(tmp_path: Path) -> None:
    """No collection of garbage has to find it, so that its workers and its journal are free at once."""
    handler = do.only(3, do.fail, do.succeed)
    gc.disable()
    try:
        for _ in range(3):
            numbers = mpqueue.imap(handler, range(60), max_retries=0, concurrency=1, journal=tmp_path / "run.db")
            alive = weakref.ref(numbers)
            with pytest.raises(ValueError, match="cannot do 3"):
                for _ in numbers:
                    pass
            del numbers
            assert alive() is None
    finally:
        gc.enable()
