"""What is promised of each way to call a function with many items, held against all of them.

What only one of them has is in its own file: `tests/integration/test_map.py`, `test_imap.py`, `test_amap.py`,
`test_pool.py`, `test_executor.py`, `test_joblib_backend.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib  # noqa: F401 - so that workers, which are forked, have it
import pytest

from mpqueue import (
    HandlerPicklingError,
    ItemTimeoutError,
    RetryPolicy,
    TooManyFailuresError,
    WorkerCrashedError,
    current_item,
)
from mpqueue.testing import close_shared_pool
from tests.support import handlers as do
from tests.support.front_ends import FRONT_ENDS, Counted, FrontEnd
from tests.support.interruptions import Interruption, send_to_main_thread
from tests.support.leaks import threads_of_queues
from tests.support.length import IS_LONG, long
from tests.support.programs import is_running
from tests.support.results import errors_in_place
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_pool_ends", "forked_workers")]


def of_each(wanted: Callable[[FrontEnd], object]) -> pytest.MarkDecorator:
    """Run a test with each front end for which that is true; with those that share another's way in the long form."""
    found = [one if one.is_first else long(one) for one in FRONT_ENDS if wanted(one)]
    return pytest.mark.parametrize("front_end", found, ids=str)


every = of_each(bool)
lazy = of_each(lambda one: one.is_lazy)
ours = of_each(lambda one: one.is_ours)


def texts(results: list[Any]) -> list[Any]:
    return [f"{type(one).__name__}: {one}" if isinstance(one, Exception) else one for one in results]


# -- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front_end", FRONT_ENDS, ids=str)
def test_each_item_has_its_result_and_they_come_in_order(front_end: FrontEnd) -> None:
    offset = 10
    with front_end.open() as call:
        found = list(call(do.double, range(1000)))
        assert (found if front_end.is_ordered else sorted(found)) == list(range(0, 2000, 2))
        assert front_end.sort(call(do.double, (character for character in "ab"))) == ["aa", "bb"]
        assert list(call(do.double, [])) == []
        assert front_end.sort(call(lambda item: item + offset, [1, 2])) == [11, 12]
        odd = [{"id": 1, "n": 1}, {"id": 1, "n": 2}, {"n": 3}, None, (), [1], StopIteration(1), ValueError("a value")]
        assert sorted(map(repr, call(do.succeed, odd))) == sorted(map(repr, odd))
        if "joblib" not in front_end.name:  # which runs functions itself, in batches
            assert front_end.sort(call(do.succeed_later, [1, 2])) == [1, 2]


@every
def test_calls_from_several_threads_run_side_by_side(front_end: FrontEnd, gate: Gate) -> None:
    with front_end.open() as call, ThreadPoolExecutor(2) as threads:
        list(call(do.succeed, range(4)))  # both workers are there
        calls = [threads.submit(lambda name: list(call(do.block_until_told(gate), [name])), name) for name in "ab"]
        gate.wait_for("a", "b")
        gate.open()
        assert [each.result(300) for each in calls] == [["a"], ["b"]]


# -- failures --------------------------------------------------------------------------------------------------------


@every
def test_what_the_function_raises_comes_as_itself_with_the_workers_traceback(front_end: FrontEnd) -> None:
    errors: list[Exception] = [*do.ERRORS_OF_INNER_CALLS]
    if front_end.name not in ("Executor.submit", "joblib", "joblib's generator"):  # the standard library's futures
        errors.append(do.FalseError())  # take an error that is false for none
    with front_end.open(max_retries=0) as call:
        with pytest.raises(ValueError, match="cannot do 1") as caught:
            list(call(do.only(1, do.fail), range(2)))
        assert 'raise ValueError(f"cannot do {item!r}")' in str(caught.value.__cause__)
        for error in errors:
            with pytest.raises(type(error)) as came:
                list(call(do.only(1, do.fail_with(error)), range(2)))
            assert (came.type, str(came.value)) == (type(error), str(error))
        assert list(call(do.succeed, ["bystander"])) == ["bystander"]


@of_each(lambda one: one.goes_on)
def test_each_failure_is_its_own_item_s(front_end: FrontEnd) -> None:
    def fail_on_thirds(number: int) -> int:
        return number // (number % 3)

    bad = do.only(7, do.return_lock, do.only(8, do.fail_with(StopIteration("stop"))))
    handler = do.only(1, do.fail, do.only(3, do.kill_self, do.only(5, do.hang_sleep, bad)))
    collect: dict[str, Any] = {"on_error": "collect"} if front_end.is_ours else {}
    with front_end.open(max_retries=0, timeout=3.0, **collect) as call:
        found = errors_in_place(call(fail_on_thirds, range(300)))
        error = "ZeroDivisionError: integer division or modulo by zero"
        expected = [number // (number % 3) if number % 3 else error for number in range(300)]
        assert sorted(map(str, texts(found))) == sorted(map(str, expected))
        assert not front_end.is_ordered or texts(found) == expected
        found = errors_in_place(call(handler, [*range(6), do.Unpicklable(), *range(7, 10)]))
    item, result = front_end.unpicklable
    kinds = [int, ValueError, int, WorkerCrashedError, int, ItemTimeoutError, item, result, Exception, int]
    if not front_end.is_ordered:
        assert sorted(one for one in found if isinstance(one, int)) == [0, 2, 4, 9]
        for kind in set(kinds):
            assert any(isinstance(one, kind) for one in found), kind
        assert len(found) == len(kinds)
    else:
        assert [one for one in found if isinstance(one, int)] == [0, 2, 4, 9]
        assert all(isinstance(one, kind) for one, kind in zip(found, kinds, strict=True)), found


@of_each(lambda one: not one.goes_on)
def test_the_first_failure_ends_the_call_and_the_next_one_works(front_end: FrontEnd) -> None:
    item, result = front_end.unpicklable
    bad: dict[do.Handler, type[Exception]] = {
        do.fail: ValueError, do.kill_self: WorkerCrashedError, do.hang_sleep: TimeoutError, do.return_lock: result
    }  # fmt: skip
    with front_end.open(max_retries=0, timeout=3.0) as call:
        for handler, error in bad.items():
            with pytest.raises(error):
                list(call(do.only(1, handler), range(4)))
            assert list(call(do.succeed, range(5))) == list(range(5))
        with pytest.raises(item):
            list(call(do.succeed, [1, do.Unpicklable()]))
        assert list(call(do.succeed, ["after"])) == ["after"]


@every
def test_a_function_that_can_not_be_serialized_is_said(front_end: FrontEnd) -> None:
    lock = threading.Lock()
    with front_end.open() as call:
        with pytest.raises((TypeError, pickle.PicklingError)) as caught:
            list(call(lambda _: lock.locked(), [1]))
        assert isinstance(caught.value, HandlerPicklingError) or not front_end.is_ours
        assert "lock" in str(caught.value) + str(caught.value.__cause__)
        assert list(call(do.double, [1])) == [2]


# -- retries and limits ----------------------------------------------------------------------------------------------


@every
def test_a_function_that_raises_is_called_as_often_as_was_said(front_end: FrontEnd, tmp_path: Path) -> None:
    only_once = RetryPolicy(5, base_delay=0.0, give_up_on=(ValueError,))
    for name, options, tries in (
        ("by default", {}, front_end.tries),
        ("no retries", {"max_retries": 0}, 1),
        ("given up", {"retry": only_once}, 1),
    ):
        (tmp_path / name).mkdir()
        with front_end.open(**options) as call, pytest.raises(ValueError, match="cannot do 'a'"):
            list(call(do.count_calls(tmp_path / name, do.fail), "a"))
        assert dict(do.calls(tmp_path / name)) == {"a": tries}, name
    with front_end.open(retry=RetryPolicy(max_retries=5, base_delay=0.001)) as call:
        assert front_end.sort(call(do.at_first(do.fail), range(10))) == list(range(10))
        assert list(call(do.fail_until(6), [1])) == [1]


@every
def test_a_death_or_a_timeout_costs_one_item_one_try(front_end: FrontEnd) -> None:
    handler = do.only(3, do.at_first(do.kill_self), do.only(5, do.at_first(do.hang_sleep)))
    with front_end.open(timeout=1.5) as call:
        assert front_end.sort(call(handler, range(8))) == list(range(8))
        assert list(call(do.at_first(do.segfault), ["a"])) == ["a"]


@every
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"timeout": 0}, ValueError, "timeout"),
        ({"max_retries": -1}, ValueError, "max_retries"),
        ({"max_retries": 1, "retry": RetryPolicy()}, ValueError, "expected max_retries or retry, got both"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_starts(
    front_end: FrontEnd, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text), front_end.open(**options) as call:
        call(do.succeed, [1])
    assert not threads_of_queues()


# -- mpqueue's own functions -----------------------------------------------------------------------------------------


@ours
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"on_error": "ignore"}, "on_error: expected one of 'raise', 'collect', 'skip'"),
        ({"max_failures": -1}, "max_failures"),
        ({"max_failures": 0.5}, "max_failures"),
        ({"concurrency": 0}, "concurrency"),
        ({"chunksize": 0}, "chunksize"),
    ],
)
def test_options_of_our_own_out_of_range_are_refused(front_end: FrontEnd, options: dict[str, Any], text: str) -> None:
    with front_end.open(**options) as call, pytest.raises((ValueError, TypeError), match=text):
        call(do.succeed, [1])
    assert not threads_of_queues()


@ours
def test_failures_are_raised_collected_or_skipped(front_end: FrontEnd) -> None:
    handler = do.only("b", do.fail)
    for on_error, expected in (("collect", ["a", "ValueError: cannot do 'b'", "c"]), ("skip", ["a", "c"])):
        with front_end.open(max_retries=0, on_error=on_error) as call:
            assert front_end.sort(call(do.succeed, "ab")) == ["a", "b"]
            found = texts(errors_in_place(call(handler, "abc")))
            assert front_end.sort(found) == front_end.sort(expected)
    with front_end.open(max_retries=0) as call, pytest.raises(ValueError, match="cannot do 'b'") as caught:
        list(call(handler, "abc"))
    assert front_end.is_lazy or caught.value.__notes__ == ["mpqueue: raised by item 1 (b)"]
    if not front_end.is_lazy:
        with front_end.open(max_retries=0, on_error="group") as call:
            assert call(do.succeed, "ab") == ["a", "b"]
            with pytest.raises(ExceptionGroup, match="3 of 3 items failed") as group:
                call(do.fail, "abc")
        assert [str(each) for each in group.value.exceptions] == [f"cannot do {item!r}" for item in "abc"]


@ours
@pytest.mark.holds("error: TooManyFailuresError")
@pytest.mark.parametrize("on_error", ["raise", "collect", "skip"])
def test_one_failure_too_many_ends_the_work(front_end: FrontEnd, on_error: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_retries": 0, "on_error": on_error}
    with front_end.open(max_failures=2, chunksize=1, concurrency=1, **options) as call:
        with pytest.raises(TooManyFailuresError, match="items failed, which is more than max_failures=2") as caught:
            errors_in_place_until_the_end(call(do.count_calls(tmp_path, do.fail), range(2000)))
        assert isinstance(caught.value.__cause__, ValueError)
        assert 3 <= len(dict(do.calls(tmp_path))) < 2000
    for _ in range(10):  # the only item may have failed before the call knows its run
        with front_end.open(max_failures=0, **options) as call, pytest.raises(TooManyFailuresError):
            errors_in_place_until_the_end(call(do.fail, [1]))
    with front_end.open(max_retries=0, max_failures=1, on_error="skip") as call:
        assert front_end.sort(call(do.only(1, do.fail), range(3))) == [0, 2], "as many as are allowed"
    inner = do.only(1, do.fail_with(TooManyFailuresError("inner")))
    with front_end.open(max_retries=0, max_failures=2, on_error="collect") as call:
        assert sorted(map(str, call(inner, range(3)))) == ["0", "2", "inner"], "that of an inner call ends nothing"


def errors_in_place_until_the_end(results: Any) -> list[Any]:
    """All results and errors; raises that there were too many failures."""
    found = errors_in_place(results)
    for one in found:
        if isinstance(one, TooManyFailuresError):
            assert one is found[-1]
            raise one
    return found


# -- the input -------------------------------------------------------------------------------------------------------


def failing_after(count: int, error: BaseException) -> Iterator[int]:
    yield from range(count)
    raise error


@of_each(lambda one: one.is_eager)
def test_what_the_input_raises_comes_through_and_nothing_is_run(front_end: FrontEnd, tmp_path: Path) -> None:
    with front_end.open() as call:
        with pytest.raises(LookupError, match="no more"):
            call(do.count_calls(tmp_path), failing_after(1, LookupError("no more")))
        assert dict(do.calls(tmp_path)) == {}
        assert list(call(do.double, [1])) == [2]


@lazy
def test_an_input_that_raises_delivers_what_came_before_then_its_error(front_end: FrontEnd) -> None:
    with front_end.open(max_retries=0) as call:
        for count in (0, 1, 1000):
            for error in (LookupError("no more"), do.FalseError()):
                results = iter(call(do.succeed, failing_after(count, error)))
                assert sorted(next(results) for _ in range(count)) == list(range(count))
                with pytest.raises(type(error)):
                    next(results)
                assert list(results) == []
        found = texts(errors_in_place(call(do.only(1, do.fail), failing_after(3, LookupError("no more")))))
        assert found[-1] == "LookupError: no more", "after the failures before it"
        assert sorted(map(str, found[:-1])) == ["0", "2", "ValueError: cannot do 1"]


@lazy
@pytest.mark.parametrize("length", [None, -1, NotImplementedError("not known")])
def test_an_input_that_can_not_tell_its_length_works(front_end: FrontEnd, length: object) -> None:
    with front_end.open() as call:
        assert sorted(call(do.succeed, do.Lengthless(length))) == [0, 1, 2]


@lazy
def test_an_endless_input_is_read_as_its_results_are_taken(front_end: FrontEnd, tmp_path: Path) -> None:
    with front_end.open() as call:
        results = iter(call(do.double, itertools.count()))
        found = list(itertools.islice(results, 1000))
        assert len(set(found)) == 1000
        assert not front_end.is_ordered or found == list(range(0, 2000, 2))
        del results
        both = zip(call(do.double, range(300)), call(do.square, range(300)), strict=True)  # read in turn
        assert sorted(itertools.chain(*both)) == sorted([*range(0, 600, 2), *(number**2 for number in range(300))])
        numbers, gate = Counted(), Gate(tmp_path)
        results = iter(call(do.block_until_told(gate), numbers))
        gate.wait_for_count(2)
        assert numbers.read <= 16, "a few items for each worker, as none was taken"
        gate.open()
        for taken in range(1, 300):
            next(results)
            assert numbers.read <= taken + 100_000


# -- iterators -------------------------------------------------------------------------------------------------------


def drop(held: list[Any]) -> None:
    held.clear()
    gc.collect()


def close(held: list[Any]) -> None:
    for _ in range(2):
        held[0].close()
    assert list(held[0]) == [], "it stays at its end"


def leave_block(held: list[Any]) -> None:
    async def leave() -> None:
        async with contextlib.aclosing(held[0]):
            pass

    asyncio.run(leave())


@lazy
def test_an_iterator_that_is_dropped_ends_its_work(front_end: FrontEnd, gate: Gate) -> None:
    check_end(front_end, drop, gate)


@of_each(lambda one: one.is_lazy and one.is_ours)
@pytest.mark.parametrize("end", [close, leave_block])
def test_an_iterator_that_is_closed_ends_its_work(
    front_end: FrontEnd, end: Callable[[list[Any]], None], gate: Gate
) -> None:
    check_end(front_end, end, gate)


def check_end(front_end: FrontEnd, end: Callable[[list[Any]], None], gate: Gate) -> None:
    """An iterator that has given one result, and is ended so while its next items run, ends them and its input."""
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    with front_end.open() as call:
        held = [iter(call(do.only(0, do.succeed, do.announce_pid(gate)), items()))]
        assert next(held[0]) == 0
        pids = gate.wait_for_count(2)
        end(held)
        wait_until(lambda: not any(is_running(int(pid)) for pid in gate.arrived()), what="the running items to end")
        assert closed.is_set(), "the input was closed"
        assert gate.arrived() == pids, "no other item has begun"
        assert front_end.sort(call(do.double, [1, 2])) == [2, 4]
    assert close_shared_pool(), "no call uses it"


@lazy
def test_a_stop_iteration_out_of_a_call_is_no_end(front_end: FrontEnd) -> None:
    with front_end.open(max_retries=0) as call:
        results = iter(call(do.only(0, do.fail_with(StopIteration("stop"))), range(2)))
        found = errors_in_place(results)
        (error,) = (one for one in found if isinstance(one, RuntimeError))
        assert "StopIteration" in str(error)
        assert sorted(one for one in found if one is not error) == [1]
        for _ in range(2):
            assert list(results) == [], "it stays at its end"


@lazy
def test_an_interruption_at_any_moment_ends_nothing_silently(front_end: FrontEnd) -> None:
    expected = sorted(["cannot do 3", *(str(number) for number in range(30) if number != 3)])
    went_on = 0
    with front_end.open(max_retries=0) as call:
        for number in range(1500 if IS_LONG else 120):
            interruption = Interruption(number)
            found = interruption.read(iter(call(do.only(3, do.fail), range(30))))
            assert found is None or sorted(map(str, found)) == expected, f"interrupted at moment {number}"
            went_on += interruption.came and found is not None
    assert went_on


@lazy
def test_threads_may_share_an_iterator_and_all_come_to_its_end(front_end: FrontEnd) -> None:
    found: list[list[Any]] = [[] for _ in range(6)]
    with front_end.open(max_retries=0) as call:
        results = iter(call(do.only(7, do.fail), range(2000)))
        threads = [
            threading.Thread(target=lambda mine: mine.extend(errors_in_place(results)), args=(mine,), daemon=True)
            for mine in found
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        assert not any(thread.is_alive() for thread in threads)
    expected = sorted(["cannot do 7", *(str(number) for number in range(2000) if number != 7)])
    assert sorted(str(one) for mine in found for one in mine) == expected


@pytest.mark.parametrize("count", [1, 2, None])
@pytest.mark.parametrize("front_end", [one for one in FRONT_ENDS if one.is_lazy], ids=str)
def test_results_that_took_a_second_try_come_whether_they_are_waited_for_or_not(
    front_end: FrontEnd, count: int | None, gate: Gate
) -> None:
    def fail_at_first(number: int) -> int:
        if current_item().attempt == 1:
            raise ValueError("not yet")
        gate.announce(number)
        return number

    numbers = itertools.count() if count is None else range(count)
    with front_end.open(retry=RetryPolicy(1, base_delay=0.0)) as call:
        list(call(do.succeed, range(2)))  # the workers are there: the first tries end by themselves
        results = call(fail_at_first, numbers)
        gate.wait_for_count(min(2, count or 2))
        list(call(do.succeed, range(4)))  # meanwhile the results have come
        got = list(itertools.islice(results, 20))
        assert len(set(got)) == len(got) == (count or 20)


# -- the end ---------------------------------------------------------------------------------------------------------


@of_each(lambda one: one.ended)
def test_a_call_that_waits_is_told_that_it_was_ended(front_end: FrontEnd, gate: Gate) -> None:
    assert front_end.ended is not None
    with front_end.open() as call, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(lambda: list(call(do.block_until_told(gate), range(3))))
        gate.wait_for_count(2)
        call.end()
        assert isinstance(waiting.exception(300), front_end.ended)


@every
def test_an_interruption_ends_the_work_that_is_waited_for(front_end: FrontEnd, gate: Gate) -> None:
    def interrupt() -> None:
        gate.wait_for_count(2)
        send_to_main_thread(signal.SIGINT)

    def wait() -> None:
        with front_end.open() as call:
            list(call(do.announce_pid(gate), range(4)))

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        wait()
    thread.join()
    gc.collect()
    wait_until(lambda: not any(is_running(int(pid)) for pid in gate.arrived()), what="the running items to end")
    with front_end.open() as call:
        assert front_end.sort(call(do.double, range(4))) == [0, 2, 4, 6]
