"""`mpqueue.imap` and `imap_unordered`: lazy at both ends, failures in their place, and an end whenever it is wanted."""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

import mpqueue
from mpqueue import (
    HandlerPicklingError,
    ItemTimeoutError,
    QueueClosedError,
    RetryPolicy,
    TooManyFailuresError,
    WorkerCrashedError,
)
from mpqueue.testing import close_shared_pool
from tests.support import handlers as do
from tests.support.interruptions import Interruption
from tests.support.length import IS_LONG, long
from tests.support.loops import LONG_WORK, Run, arrive, in_loops, turns_of_others
from tests.support.programs import is_running, run_program
from tests.support.results import outcomes
from tests.support.systems import not_on_windows
from tests.support.waiting import Gate, spend, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_pool_ends", "forked_workers")]

both = pytest.mark.parametrize("imap", [mpqueue.imap, mpqueue.imap_unordered])


class Counted:
    """0, 1, 2 and so on for ever; ``read`` is how many of them were taken."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            self.read += 1
            yield self.read - 1


# --- results --------------------------------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(mpqueue.imap(do.double, range(5000))) == list(range(0, 10_000, 2))


def test_unordered_results_all_come_once() -> None:
    assert sorted(mpqueue.imap_unordered(do.double, range(5000))) == list(range(0, 10_000, 2))


def test_unordered_results_do_not_wait_for_a_slow_one(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    handler = do.only(0, do.block_until_told(gate))
    results = mpqueue.imap_unordered(handler, range(200), chunksize=1, buffersize=10, concurrency=2)
    early = [next(results) for _ in range(199)]
    gate.open()
    assert sorted(early) == list(range(1, 200))
    assert list(results) == [0]


@both
def test_no_items_give_no_results(imap: Callable[..., Any]) -> None:
    assert list(imap(do.double, [])) == []


@both
def test_results_of_any_kind_come(imap: Callable[..., Any]) -> None:
    items = [None, (), [1], ValueError("a value like any other"), StopIteration(1)]
    assert sorted(map(repr, imap(do.succeed, items))) == sorted(map(repr, items))


@both
def test_ended_iterator_stays_at_its_end(imap: Callable[..., Any]) -> None:
    results = imap(do.double, [1])
    assert iter(results) is results
    assert list(results) == [2]
    assert list(results) == []
    results.close()


def test_work_begins_before_the_first_result_is_asked_for(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    results = mpqueue.imap(do.announce(gate), "ab")
    gate.wait_for("a", "b")
    assert list(results) == ["a", "b"]


def test_two_iterators_can_be_read_in_turn() -> None:
    pairs = zip(mpqueue.imap(do.double, range(300)), mpqueue.imap(do.square, range(300)), strict=True)
    assert list(pairs) == [(2 * number, number**2) for number in range(300)]


def test_several_chunks_of_a_given_size_are_put_in_order() -> None:
    assert list(mpqueue.imap(do.succeed, range(1000), chunksize=7, buffersize=100)) == list(range(1000))


def test_what_is_wrong_is_refused_at_once() -> None:
    imap = cast("Any", mpqueue.imap)
    with pytest.raises(TypeError, match="items: expected an iterable, got 3"):
        imap(do.double, 3)
    with pytest.raises(TypeError, match="expected a callable"):
        imap(3, [1])
    lock = threading.Lock()
    with pytest.raises(HandlerPicklingError, match="'lock'"):
        imap(lambda _: lock.locked(), [1])
    for option, value in (("buffersize", 0), ("chunksize", 0), ("concurrency", 0), ("max_failures", -1)):
        with pytest.raises(ValueError, match=option):
            imap(do.double, [1], **{option: value})
    with pytest.raises(ValueError, match="on_error: expected one of 'raise', 'collect', 'skip', got 'group'"):
        imap(do.double, [1], on_error="group")
    assert close_shared_pool()


# --- laziness -------------------------------------------------------------------------------------------------------


@both
def test_endless_input_works(imap: Callable[..., Any]) -> None:
    with contextlib.closing(imap(do.double, itertools.count())) as results:
        found = set(itertools.islice(results, 1000))
    assert len(found) == 1000
    assert not any(number % 2 for number in found)


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


def test_buffer_is_used() -> None:
    numbers = Counted()
    with contextlib.closing(mpqueue.imap(do.succeed, numbers, buffersize=50)) as results:
        for _ in range(100):
            next(results)
            if numbers.read >= 140:
                break
        assert numbers.read >= 100


def test_slow_first_item_stops_the_reading_for_ordered_results(tmp_path: Path) -> None:
    gate, numbers = Gate(tmp_path), Counted()
    handler = do.only(0, do.block_until_told(gate))
    with ThreadPoolExecutor(1) as threads:
        results = mpqueue.imap(handler, numbers, buffersize=20, chunksize=1, concurrency=2)
        first = threads.submit(next, results)
        gate.wait_for(0)
        assert numbers.read <= 20
        gate.open()
        assert first.result(30) == 0
        assert list(itertools.islice(results, 99)) == list(range(1, 100))
        results.close()


@both
def test_without_a_buffersize_reading_is_bounded_too(imap: Callable[..., Any]) -> None:
    numbers = Counted()
    with contextlib.closing(imap(do.succeed, numbers)) as results:
        for taken in range(1, 1000):
            next(results)
            assert numbers.read <= taken + 100_000


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


# --- the end --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def busy_iterator(folder: Path) -> Iterator[list[Any]]:
    """A list of an iterator that has given one result, while its next item runs for ever; to be ended inside."""
    gate, closed = Gate(folder), threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    handler = do.only(0, do.succeed, do.announce_pid(gate))
    held = [mpqueue.imap(handler, items(), chunksize=1, concurrency=1, buffersize=3)]
    assert next(held[0]) == 0
    (pid,) = gate.wait_for_count(1)
    yield held
    wait_until(lambda: not is_running(int(pid)), what="the running item to end")
    assert closed.is_set(), "the input was closed"
    assert gate.arrived() == {pid}, "no other item has begun"
    assert mpqueue.map(do.double, [1]) == [2], "the pool goes on"
    assert close_shared_pool(), "and no call uses it"


def test_closing_ends_the_work(tmp_path: Path) -> None:
    with busy_iterator(tmp_path) as held, contextlib.closing(held[0]):
        pass


def test_closed_iterator_is_at_its_end(tmp_path: Path) -> None:
    with busy_iterator(tmp_path) as held:
        held[0].close()
        held[0].close()
        assert list(held[0]) == []


def test_dropping_the_last_reference_ends_the_work(tmp_path: Path) -> None:
    with busy_iterator(tmp_path) as held:
        held.clear()


def test_leaving_a_loop_ends_the_work(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    handler = do.only(0, do.succeed, do.announce_pid(gate))
    for result in mpqueue.imap(handler, itertools.count(), chunksize=1, concurrency=1):
        assert result == 0
        (pid,) = gate.wait_for_count(1)
        break
    wait_until(lambda: not is_running(int(pid)), what="the running item to end")
    assert close_shared_pool()


def test_iterator_in_a_cycle_ends_its_work_when_it_is_collected(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    holder: list[Any] = [mpqueue.imap(do.announce_pid(gate), range(3), concurrency=1)]
    holder.append(holder)
    (pid,) = gate.wait_for_count(1)
    del holder
    gc.collect()
    wait_until(lambda: not is_running(int(pid)), what="the running item to end")
    assert close_shared_pool()


def test_pool_that_is_closed_meanwhile_ends_the_iterator(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    results = mpqueue.imap(do.block_until_told(gate), range(3))
    gate.wait_for_count(1)
    close_shared_pool(kill=True)
    with pytest.raises(QueueClosedError):
        next(results)
    assert list(results) == []


# --- failures -------------------------------------------------------------------------------------------------------


def test_failure_comes_in_its_place_and_the_iterator_goes_on() -> None:
    results = mpqueue.imap(do.only(3, do.fail), range(6), max_retries=0)
    assert outcomes(results) == [0, 1, 2, "ValueError: cannot do 3", 4, 5]


def test_many_failures_come_in_their_places() -> None:
    def fail_on_thirds(number: int) -> int:
        return number // (number % 3)

    results = mpqueue.imap(fail_on_thirds, range(2000), max_retries=0)
    error = "ZeroDivisionError: integer division or modulo by zero"
    assert outcomes(results) == [number // (number % 3) if number % 3 else error for number in range(2000)]


def test_unordered_failures_come_too() -> None:
    results = mpqueue.imap_unordered(do.only(3, do.fail), range(6), max_retries=0)
    assert sorted(map(str, outcomes(results))) == ["0", "1", "2", "4", "5", "ValueError: cannot do 3"]


def test_failure_has_the_traceback_of_the_worker() -> None:
    results: Iterator[Any] = mpqueue.imap(do.fail, "a", max_retries=0)
    with pytest.raises(ValueError, match="cannot do 'a'") as caught:
        next(results)
    assert "handlers.py" in str(caught.value.__cause__)


@both
def test_failures_can_be_collected(imap: Callable[..., Any]) -> None:
    found = list(imap(do.only(1, do.fail), range(3), max_retries=0, on_error="collect"))
    assert sorted(map(str, found)) == ["0", "2", "cannot do 1"]
    assert sum(isinstance(one, ValueError) for one in found) == 1


@both
def test_failures_can_be_left_out(imap: Callable[..., Any]) -> None:
    assert sorted(imap(do.only(1, do.fail), range(3), max_retries=0, on_error="skip")) == [0, 2]
    assert list(imap(do.fail, range(3), max_retries=0, on_error="skip")) == []


@pytest.mark.holds("error: TooManyFailuresError")
@pytest.mark.parametrize("on_error", ["raise", "collect", "skip"])
def test_one_failure_too_many_ends_the_iterator(on_error: Any, tmp_path: Path) -> None:
    numbers, handler = Counted(), do.count_calls(tmp_path, do.fail)
    results = mpqueue.imap(handler, numbers, max_retries=0, max_failures=2, on_error=on_error, buffersize=50)
    found = outcomes(results)
    assert found[-1].startswith("TooManyFailuresError: 3 items failed")
    assert len(found) == (1 if on_error == "skip" else 3)
    assert numbers.read <= 100
    assert close_shared_pool()


@both
@pytest.mark.parametrize("max_failures", [None, 2])
def test_too_many_failures_of_an_inner_call_end_nothing(imap: Callable[..., Any], max_failures: int | None) -> None:
    handler = do.only(1, do.fail_with(TooManyFailuresError("inner")))
    results = imap(handler, range(3), max_retries=0, max_failures=max_failures, concurrency=1)
    assert outcomes(results) == [0, "TooManyFailuresError: inner", 2]


def test_as_many_failures_as_allowed_end_nothing() -> None:
    handler = do.only(1, do.fail)
    assert list(mpqueue.imap(handler, range(3), max_retries=0, max_failures=1, on_error="skip")) == [0, 2]
    with pytest.raises(TooManyFailuresError) as caught:
        list(mpqueue.imap(handler, range(3), max_retries=0, max_failures=0, on_error="skip"))
    assert isinstance(caught.value.__cause__, ValueError)


def test_item_is_tried_again_and_its_result_comes_in_its_place(tmp_path: Path) -> None:
    handler = do.count_calls(tmp_path, do.only(3, do.at_first(do.fail)))
    assert list(mpqueue.imap(handler, range(6))) == list(range(6))
    assert dict(do.calls(tmp_path)) == {str(number): 2 if number == 3 else 1 for number in range(6)}


def test_function_that_raises_is_called_four_times(tmp_path: Path) -> None:
    assert outcomes(mpqueue.imap(do.count_calls(tmp_path, do.fail), "a")) == ["ValueError: cannot do 'a'"]
    assert dict(do.calls(tmp_path)) == {"a": 4}


def test_retry_policy_can_be_given(tmp_path: Path) -> None:
    results = mpqueue.imap(do.fail_until(6), range(50), retry=RetryPolicy(max_retries=5, base_delay=0.001))
    assert list(results) == list(range(50))


def test_worker_that_dies_costs_its_item_one_try() -> None:
    assert list(mpqueue.imap(do.only(30, do.at_first(do.kill_self)), range(100))) == list(range(100))


def test_items_that_always_kill_or_hang_fail_alone() -> None:
    handler = do.only(3, do.kill_self, do.only(5, do.hang_sleep))
    found = list(mpqueue.imap(handler, range(8), max_retries=0, timeout=1.0, on_error="collect"))
    assert [type(one) for one in found] == [int, int, int, WorkerCrashedError, int, ItemTimeoutError, int, int]


def test_function_that_raises_stop_iteration_ends_nothing() -> None:
    results = mpqueue.imap(do.only(1, do.fail_with(StopIteration("stop"))), range(3), max_retries=0)
    assert next(results) == 0
    with pytest.raises(RuntimeError, match="an item raised StopIteration") as caught:
        next(results)
    assert isinstance(caught.value.__cause__, StopIteration)
    assert list(results) == [2]


def test_function_that_raises_a_false_exception_raises_it_as_itself() -> None:
    results = mpqueue.imap(do.only(1, do.fail_with(do.FalseError())), range(3), max_retries=0)
    assert outcomes(results) == [0, "FalseError: ", 2]


def test_function_that_no_worker_can_load_fails_every_item(tmp_path: Path) -> None:
    script = """
        import sys, types, mpqueue
        ghost = types.ModuleType("ghost")
        exec("def f(item): return item", vars(ghost))
        sys.modules["ghost"] = ghost
        errors = list(mpqueue.imap(ghost.f, range(100), max_retries=0, on_error="collect"))
        print(len(errors), {type(error).__name__ for error in errors})
    """
    assert run_program(tmp_path, script).stdout == "100 {'SetupError'}\n"


# --- the input ------------------------------------------------------------------------------------------------------


def failing_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise LookupError("no more")


@both
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_input_that_raises_delivers_what_came_before_then_its_error(imap: Callable[..., Any], count: int) -> None:
    results = imap(do.succeed, failing_after(count))
    assert sorted(next(results) for _ in range(count)) == list(range(count))
    with pytest.raises(LookupError, match="no more"):
        next(results)
    assert list(results) == []


@both
@pytest.mark.parametrize("length", [None, -1, NotImplementedError("not known")])
def test_an_input_that_can_not_tell_its_length_works(imap: Callable[..., Any], length: object) -> None:
    assert sorted(imap(do.succeed, do.Lengthless(length), concurrency=2)) == [0, 1, 2]


def ended_by(error: BaseException) -> Iterator[int]:
    yield 0
    raise error


@both
def test_an_input_that_raises_a_false_exception_does_not_end_silently(imap: Callable[..., Any]) -> None:
    results = imap(do.succeed, ended_by(do.FalseError()))
    assert next(results) == 0
    with pytest.raises(do.FalseError):
        next(results)
    assert list(results) == []


def test_failures_before_the_error_of_the_input_come_first() -> None:
    results = mpqueue.imap(do.only(1, do.fail), failing_after(3), max_retries=0)
    assert outcomes(results) == [0, "ValueError: cannot do 1", 2, "LookupError: no more"]


def test_interruption_while_the_input_is_read_goes_on_at_once_and_costs_no_item() -> None:
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
    assert [*found, *results] == list(range(100))


@both
def test_an_interruption_at_any_moment_ends_nothing_silently(imap: Callable[..., Any]) -> None:
    expected = sorted(["cannot do 3", *(str(number) for number in range(30) if number != 3)])
    went_on = 0
    for number in range(1500 if IS_LONG else 120):
        interruption = Interruption(number)
        found = interruption.read(imap(do.only(3, do.fail), range(30), max_retries=0, concurrency=1, buffersize=8))
        assert found is None or sorted(map(str, found)) == expected, f"interrupted at moment {number}"
        went_on += interruption.came and found is not None
    assert went_on


@both
def test_threads_may_share_an_iterator_and_all_come_to_its_end(imap: Callable[..., Any]) -> None:
    results, found = (
        imap(do.only(7, do.fail), range(600), max_retries=0, concurrency=2, buffersize=16),
        list[list[Any]](),
    )

    def read() -> None:
        mine: list[Any] = []
        found.append(mine)
        while True:
            try:
                mine.append(next(results))
            except ValueError as error:
                mine.append(str(error))
            except StopIteration:
                return

    threads = [threading.Thread(target=read, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    expected = sorted(["cannot do 7", *(str(number) for number in range(600) if number != 7)])
    assert sorted(str(value) for mine in found for value in mine) == expected


# --- in coroutines --------------------------------------------------------------------------------------------------


@in_loops
@both
def test_async_for_gives_the_results(run: Run, imap: Callable[..., Any]) -> None:
    async def main() -> None:
        found = [result async for result in imap(do.double, range(1000))]
        assert sorted(found) == list(range(0, 2000, 2))

    run(main)


@in_loops
def test_loop_runs_on_while_a_result_is_awaited(run: Run, tmp_path: Path) -> None:
    gate = Gate(tmp_path)

    async def main() -> None:
        found: list[str] = []

        async def consume() -> None:
            found.extend([result async for result in mpqueue.imap(do.block_until_told(gate), "ab")])

        async def release() -> None:
            await arrive(gate, 2)
            gate.open()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            tasks.start_soon(release)
        assert found == ["a", "b"]

    run(main)


@in_loops
def test_loop_runs_on_while_results_are_plenty(run: Run) -> None:
    async def main() -> None:
        turns, over = 0, False

        async def count_turns() -> None:
            nonlocal turns
            while not over:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            async for _ in mpqueue.imap(do.succeed, range(1000), buffersize=8):
                pass
            assert turns > 100
            over = True

    run(main)


@in_loops
def test_loop_runs_on_within_a_block_of_results(run: Run) -> None:
    async def main() -> None:
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

    run(main)


@in_loops
def test_reading_stops_within_the_buffer_for_coroutines_too(run: Run) -> None:
    async def main() -> None:
        numbers, taken = Counted(), 0
        async with contextlib.aclosing(mpqueue.imap(do.succeed, numbers, buffersize=7)) as results:
            async for _ in results:
                taken += 1
                assert numbers.read <= taken + 7
                if taken == 100:
                    break
        assert [result async for result in results] == []

    run(main)


@in_loops
def test_failures_and_the_error_of_the_input_come_in_their_places(run: Run) -> None:
    async def main() -> None:
        results = mpqueue.imap(do.only(1, do.fail), failing_after(3), max_retries=0)
        assert await anext(results) == 0
        with pytest.raises(ValueError, match="cannot do 1"):
            await anext(results)
        assert await anext(results) == 2
        with pytest.raises(LookupError, match="no more"):
            await anext(results)
        with pytest.raises(StopAsyncIteration):
            await anext(results)

    run(main)


@in_loops
def test_an_error_of_the_input_that_looks_like_the_end_does_not_end_the_loop(run: Run) -> None:
    async def main() -> None:
        results = mpqueue.imap(do.succeed, ended_by(do.FalseError()))
        assert await anext(results) == 0
        with pytest.raises(do.FalseError):
            await anext(results)
        results = mpqueue.imap(do.succeed, ended_by(StopAsyncIteration("no more")))
        assert await anext(results) == 0
        with pytest.raises(RuntimeError, match="the input raised StopAsyncIteration") as caught:
            await anext(results)
        assert isinstance(caught.value.__cause__, StopAsyncIteration)

    run(main)


@in_loops
def test_aclosing_ends_the_work(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        with busy_iterator(tmp_path) as held:
            async with contextlib.aclosing(held[0]):
                pass

    run(main)


@in_loops
def test_cancelled_wait_for_a_result_loses_none(run: Run, tmp_path: Path) -> None:
    gate = Gate(tmp_path)

    async def main() -> None:
        results = mpqueue.imap(do.only("a", do.block_until_told(gate)), "abc")
        with anyio.move_on_after(0.05) as scope:
            await anext(results)
        assert scope.cancelled_caught
        gate.open()
        assert [result async for result in results] == ["a", "b", "c"]

    run(main)


@in_loops
def test_a_second_task_that_waits_for_a_result_is_refused(run: Run, tmp_path: Path) -> None:
    gate = Gate(tmp_path)

    async def main() -> None:
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

    run(main)


@in_loops
def test_results_that_come_when_the_loop_has_ended_are_not_lost(run: Run, tmp_path: Path) -> None:
    gate, held = Gate(tmp_path), list[Iterator[str]]()

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
