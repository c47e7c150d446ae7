"""`mpqueue.Executor`: the standard library's interface; a crash touches its own call; every call can be ended."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import queue
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from typing import Any, ClassVar

import pytest

from mpqueue import Executor, RemoteError, WorkerCrashedError
from tests.support import handlers as do
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

TIMEOUT = 60.0


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor(2, max_retries=0) as made:
        yield made


# --- calls ----------------------------------------------------------------------------------------------------------


class NoException(BaseException):
    """A user's own that is no `Exception`."""


def raise_it(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        *map(SystemExit, (-1, None, "3", True, (1, 2))),
        KeyboardInterrupt("a", 1),
        GeneratorExit("a"),
        asyncio.CancelledError("a"),
        NoException("a", 2),
    ],
    ids=repr,
)
def test_what_is_no_exception_comes_as_itself_too(error: BaseException, executor: Executor) -> None:
    raised = executor.submit(raise_it, error).exception(TIMEOUT)
    assert raised is not None
    assert (type(raised), raised.args) == (type(error), error.args)
    if isinstance(raised, SystemExit) and isinstance(error, SystemExit):
        assert (type(raised.code), raised.code) == (type(error.code), error.code)
    assert "raise error" in str(raised.__cause__)


def test_group_with_what_is_no_exception_comes_as_itself(executor: Executor) -> None:
    def leave() -> None:  # made there: where Dask was imported, tblib's way to pickle groups does not bring them back
        raise BaseExceptionGroup("a", [SystemExit(2), ValueError(1)])

    raised = executor.submit(leave).exception(TIMEOUT)
    assert isinstance(raised, BaseExceptionGroup)
    assert [type(each) for each in raised.exceptions] == [SystemExit, ValueError]


def test_what_is_no_exception_and_cannot_be_pickled_comes_as_its_stand_in(executor: Executor) -> None:
    def leave() -> None:
        raise SystemExit(threading.Lock())

    raised = executor.submit(leave).exception(TIMEOUT)
    assert isinstance(raised, RemoteError)
    assert raised.type_name == "builtins.SystemExit"


def test_a_big_argument_of_many_calls_is_each_call_s_own() -> None:
    np = pytest.importorskip("numpy")  # which there is none of under wine
    array = np.zeros(20_000)
    with Executor(1, max_retries=0) as executor:
        first = [executor.submit(do.count_up_array, array) for _ in range(40)]
        assert [future.result(TIMEOUT) for future in first] == [1.0] * 40
        assert [*executor.map(do.count_up_array, [array] * 40)] == [1.0] * 40
    assert not array.any()


def test_asyncio_can_await_calls(executor: Executor) -> None:
    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        wrapped = asyncio.wrap_future(executor.submit(pow, 2, 3))
        return await wrapped, await loop.run_in_executor(executor, do.square, 4)

    assert asyncio.run(main()) == (8, 16)


# --- crashes and timeouts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "cause"), [(do.fail, ValueError), (do.raise_reprless, do.ReprlessError), (do.kill_self, WorkerCrashedError)]
)
def test_initializer_that_fails_everywhere_fails_the_calls(bad: Any, cause: type[Exception]) -> None:
    with Executor(1, initializer=bad, initargs=("here",)) as executor:
        with pytest.raises(BrokenProcessPool, match="the initializer failed") as raised:
            executor.submit(do.succeed, "a").result(TIMEOUT)
        assert isinstance(raised.value.__cause__, cause)


# --- cancelling -----------------------------------------------------------------------------------------------------


def test_waiting_call_can_be_cancelled_and_those_behind_it_run(gate: Gate) -> None:
    with Executor(1, max_retries=0) as executor:
        first = executor.submit(do.block_until_told(gate), "first")
        gate.wait_for("first")
        second, third = executor.submit(do.succeed, "second"), executor.submit(do.succeed, "third")
        assert (first.running(), second.running()) == (True, False)
        assert not first.cancel()
        assert second.cancel()
        assert second.cancel()
        assert second.cancelled()
        gate.open()
        assert (first.result(TIMEOUT), third.result(TIMEOUT)) == ("first", "third")
    with pytest.raises(CancelledError):
        second.result()
    assert concurrent.futures.wait([first, second, third]).not_done == set()


def test_running_call_is_ended_with_kill_and_its_neighbour_goes_on(gate: Gate) -> None:
    with Executor(2) as executor:
        bad = executor.submit(do.hang_holding_gil, "bad")
        good = executor.submit(do.block_until_told(gate), "good")
        gate.wait_for("good")
        wait_until(bad.running)
        assert bad.cancel(kill=True)
        assert bad.cancelled()
        gate.open()
        assert good.result(TIMEOUT) == "good"
        assert executor.submit(do.succeed, "after").result(TIMEOUT) == "after"


def test_all_running_calls_can_be_killed_one_after_another(executor: Executor) -> None:
    futures = [executor.submit(do.hang_sleep, number) for number in range(6)]
    wait_until(futures[0].running)
    assert all(future.cancel(kill=True) for future in futures)
    assert executor.submit(do.succeed, "after").result(TIMEOUT) == "after"


# --- callbacks ------------------------------------------------------------------------------------------------------


def test_callback_may_submit_and_may_not_wait(executor: Executor) -> None:
    told: list[Any] = []
    heard = threading.Event()

    def hear(future: Any) -> None:
        told.append(future.result())
        heard.set()

    def callback(_future: Any) -> None:
        more = executor.submit(do.succeed, "more")
        try:
            more.result()
        except RuntimeError as error:
            told.append(str(error))
        more.add_done_callback(hear)

    executor.submit(do.succeed, "a").add_done_callback(callback)
    assert heard.wait(TIMEOUT)
    assert told[1] == "more"
    assert "it would never return" in told[0]


# --- map ------------------------------------------------------------------------------------------------------------


def test_maps_and_single_calls_share_the_workers(executor: Executor) -> None:
    squares = executor.map(do.square, range(5_000))
    single = [executor.submit(do.square, number) for number in range(20)]
    sums = executor.map(pow, range(3_000), itertools.repeat(3))
    assert list(sums) == [number**3 for number in range(3_000)]
    assert [future.result(TIMEOUT) for future in single] == [number**2 for number in range(20)]
    assert list(squares) == [number**2 for number in range(5_000)]
    assert list(executor.map(do.square, [])) == []


@pytest.mark.parametrize("buffersize", [None, 3])
def test_map_may_read_an_input_that_waits_for_other_calls(executor: Executor, buffersize: int | None) -> None:
    results: queue.Queue[int] = queue.Queue()

    def submit_more(future: Any) -> None:
        executor.submit(do.square, future.result()).add_done_callback(lambda more: results.put(more.result()))

    def submit_all() -> None:
        for number in range(3):
            executor.submit(do.square, number).add_done_callback(submit_more)

    def items() -> Iterator[int]:
        thread = threading.Thread(target=submit_all)
        thread.start()
        for _ in range(3):
            yield results.get(timeout=TIMEOUT)
        thread.join()

    assert sorted(executor.map(do.square, items(), buffersize=buffersize)) == [0, 1, 2**8]


def test_map_reads_no_further_once_the_executor_is_shut_down() -> None:
    def items() -> Iterator[int]:
        for number in itertools.count():
            if number == 3:
                executor.shutdown()
            read.append(number)
            yield number

    executor = Executor(1)
    read: list[int] = []
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(do.square, items())
    assert read == [0, 1, 2, 3]


class HeldUp:
    """An item that waits, while it is pickled, until the gate is open."""

    def __init__(self, number: int, gate: threading.Event) -> None:
        self.number = number
        self.gate = gate

    def __reduce__(self) -> tuple[type[set[int]], tuple[list[int]]]:
        assert self.gate.wait(TIMEOUT), "nobody opened the gate"
        return set, ([self.number],)


def test_result_that_was_taken_is_nowhere_else_while_the_next_item_is_pickled() -> None:
    # The worker has two items; the third one goes out once the first one is home.
    opened, gate = threading.Event(), threading.Event()
    opened.set()
    items = [HeldUp(number, gate if number == 2 else opened) for number in range(4)]
    with Executor(1) as executor:
        results: Iterator[set[int]] = executor.map(set, items, chunksize=1)
        alive = weakref.ref(next(results))
        gc.collect()
        left = alive()
        gate.set()
        assert left is None
        assert list(results) == [{1}, {2}, {3}]


def test_map_that_is_closed_cancels_what_has_not_started(executor: Executor, gate: Gate) -> None:
    def stop_after_ten(number: int) -> int:
        gate.announce(number) if number < 10 else gate.pass_through(number)
        return number

    results = executor.map(stop_after_ten, range(2_000))
    assert next(results) == 0
    # Which comes there first is chance: what waits behind a slow item may be handed back.
    wait_until(lambda: any(int(number) >= 10 for number in gate.arrived()))
    results.close()  # type: ignore[attr-defined]
    gate.open()
    assert executor.submit(do.succeed, "bystander").result(TIMEOUT) == "bystander"
    executor.shutdown()
    assert len(gate.arrived()) < 2_000


class Kept:
    """A result that knows how many of them are in this process."""

    alive: ClassVar[weakref.WeakSet[Kept]] = weakref.WeakSet()
    made = 0

    def __init__(self, number: int) -> None:
        self.number = number
        Kept.made += 1
        Kept.alive.add(self)

    def __reduce__(self) -> tuple[type[Kept], tuple[int]]:
        return Kept, (self.number,)


@pytest.mark.parametrize("taken", [0, 1])
def test_results_of_a_map_that_are_not_taken_are_freed(executor: Executor, taken: int) -> None:
    before = Kept.made
    results = executor.map(Kept, range(40))
    for _ in range(taken):
        next(results)
    if not taken:
        wait_until(lambda: Kept.made == before + 40, what="the results to come")
    del results
    assert executor.submit(do.succeed, "bystander").result(TIMEOUT) == "bystander"
    wait_until(lambda: not Kept.alive, what="the results to be freed")


@pytest.mark.parametrize("buffersize", [None, 4])
def test_map_calls_the_submit_of_a_subclass(buffersize: int | None) -> None:
    class Counting(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            submitted.append(args)
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()  # which is no CallFuture
            super().submit(fn, *args, **kwargs).add_done_callback(lambda done: future.set_result(done.result()))
            return future

    submitted: list[tuple[Any, ...]] = []
    with Counting(2) as executor:
        assert list(executor.map(pow, range(10), itertools.repeat(2), buffersize=buffersize)) == [
            number**2 for number in range(10)
        ]
        results = executor.map(pow, range(10), range(10), buffersize=buffersize)
        assert next(results) == 1
        results.close()  # type: ignore[attr-defined]
    assert submitted[:10] == [(number, 2) for number in range(10)]


def test_map_raises_that_it_was_cancelled_where_the_executor_ends(gate: Gate) -> None:
    def stop_at_one(number: int) -> int:
        if number == 1:
            gate.pass_through(number)
        return number

    executor = Executor(1, max_retries=0)
    results = executor.map(stop_at_one, range(2_000))
    assert next(results) == 0
    gate.wait_for(1)
    executor.shutdown(wait=False, cancel_futures=True)
    gate.open()
    assert next(results) == 1
    with pytest.raises(CancelledError):
        list(results)
    executor.shutdown()


def test_map_reads_no_further_ahead_than_its_buffer(executor: Executor) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    results = executor.map(do.square, numbers(), buffersize=5)
    assert len(read) == 5
    assert [next(results) for _ in range(100)] == [number**2 for number in range(100)]
    assert len(read) == 104
    results.close()  # type: ignore[attr-defined]
    for wrong in (0, "1"):
        with pytest.raises((TypeError, ValueError), match="buffersize"):
            executor.map(abs, [1], buffersize=wrong)  # type: ignore[arg-type]


def test_map_with_a_buffer_keeps_its_executor() -> None:
    assert sum(Executor(1).map(abs, range(20), buffersize=2)) == 190
    gc.collect()


# --- closures -------------------------------------------------------------------------------------------------------


def test_changed_closure_runs_as_it_is_now(executor: Executor) -> None:
    number, parts = 1, [1]

    def read() -> tuple[int, list[int]]:
        return number, parts

    assert executor.submit(read).result(TIMEOUT) == (1, [1])
    number = 2
    assert executor.submit(read).result(TIMEOUT) == (2, [1])
    parts.append(2)
    assert executor.submit(read).result(TIMEOUT) == (2, [1, 2])


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, asyncio.CancelledError])
def test_calls_end_where_the_block_is_left_otherwise(kind: type[BaseException]) -> None:
    def left() -> None:
        with Executor(1) as executor:
            futures.extend(executor.submit(do.square, number) for number in range(20))
            raise kind

    futures: list[Any] = []
    with pytest.raises(kind):
        left()
    assert [future.result(TIMEOUT) for future in futures] == [number**2 for number in range(20)]


def test_shutdown_in_a_callback_does_not_wait_for_itself() -> None:
    executor = Executor(1)
    done = threading.Event()

    def callback(_future: Any) -> None:
        executor.shutdown()
        done.set()

    executor.submit(do.succeed, "a").add_done_callback(callback)
    assert done.wait(TIMEOUT)
    executor.shutdown()
