"""`Pool.imap` and `Pool.imap_unordered`: lazy at both ends."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from mpqueue import Pool, RetryPolicy, current_item
from tests.support import handlers as do
from tests.support.interruptions import Interruption
from tests.support.length import IS_LONG
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Two workers, no retries."""
    with Pool(2, max_retries=0) as made:
        yield made
    made.join()


class Counter:
    """An endless input that knows how much of it was read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            self.read = number + 1
            yield number


def test_an_endless_input_works(pool: Pool) -> None:
    assert list(itertools.islice(pool.imap(do.double, itertools.count()), 1000)) == [2 * n for n in range(1000)]
    some = list(itertools.islice(pool.imap_unordered(do.double, itertools.count()), 1000))
    assert len(set(some)) == 1000


def test_reading_stops_where_nobody_takes_the_results(pool: Pool, tmp_path: Path) -> None:
    numbers, gate = Counter(), Gate(tmp_path)
    results = pool.imap(do.block_until_told(gate), numbers)
    gate.wait_for_count(2)
    before = wait_until(lambda: numbers.read)
    gate.open()
    # Nothing was taken, so all that was read fits into the first window: a few items for each worker.
    assert before <= numbers.read <= 8
    assert next(results) == 0


def test_dropping_the_iterator_ends_its_work(pool: Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(tmp_path)
    results = pool.imap(do.announce(gate, do.hang_sleep), itertools.count())
    gate.wait_for_count(2)
    del results
    gc.collect()
    assert pool.map(do.double, range(4), 1) == [0, 2, 4, 6]  # both workers are free
    assert "dropped before a result was read from it" in caplog.text


def test_dropping_the_iterator_after_a_result_was_read_is_no_mistake(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    for make in (pool.imap, pool.imap_unordered):
        results = make(do.double, itertools.count())
        for _ in range(2):
            next(results)
        del results
        for _ in make(do.double, itertools.count()):
            break
    gc.collect()
    assert pool.map(do.double, range(2)) == [0, 2]
    assert caplog.text == ""


def test_an_iterator_can_be_dropped_in_the_middle_of_another_call(pool: Pool) -> None:
    """As by a garbage collection, which may begin in any function, on any thread: it waits for no lock of that call."""
    functions, left = set[CodeType](), list[Any]()

    def drop(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if left and event == "call" and "mpqueue" in code.co_filename and code not in functions:
            functions.add(code)
            thread = threading.Thread(target=left.clear)
            thread.start()
            thread.join(30)
            assert not thread.is_alive(), code

    before = -1
    while before < len(functions):
        before = len(functions)
        left.append(pool.imap(do.double, itertools.count()))
        assert next(left[0]) == 0
        sys.setprofile(drop)
        try:
            assert pool.map(do.double, [1]) == [2]
        finally:
            sys.setprofile(None)
    assert before > 20


def test_an_input_may_wait_for_results(pool: Pool) -> None:
    """A crawler: what was found by one call is the input of others."""
    to_do: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    to_do.put(1)
    seen = []
    for number in pool.imap_unordered(do.double, iter(to_do.get, None)):
        seen.append(number)
        if number < 100:
            to_do.put(number)
        else:
            to_do.put(None)
    assert seen == [2, 4, 8, 16, 32, 64, 128]


def test_a_slow_input_does_not_hold_up_results(pool: Pool) -> None:
    more = threading.Event()

    def numbers() -> Iterator[int]:
        yield from range(3)
        assert more.wait(60)
        yield 3

    results = pool.imap(do.double, numbers())
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.01)
    more.set()
    assert list(results) == [6]


def test_failures_come_in_their_place_and_it_goes_on(pool: Pool) -> None:
    results = pool.imap(do.only(2, do.fail), range(5))
    got: list[Any] = []
    while len(got) < 5:
        try:
            got.append(next(results))
        except ValueError as error:
            got.append(str(error))
    assert got == [0, 1, "cannot do 2", 3, 4]
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(results)


def test_a_failure_is_tried_again_before_it_comes() -> None:
    with Pool(2, retry=RetryPolicy(1, base_delay=0.0)) as pool:
        assert list(pool.imap(do.only(2, do.at_first(do.fail)), range(5))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [1, 2, None])
def test_results_that_took_a_second_try_come_in_any_order(count: int | None, tmp_path: Path) -> None:
    gate = Gate(tmp_path)

    def fail_at_first(number: int) -> int:
        if current_item().attempt == 1:
            raise ValueError("not yet")
        gate.announce(number)
        return number

    with Pool(2, retry=RetryPolicy(1, base_delay=0.0)) as pool:
        pool.map(do.succeed, range(2))  # the workers are there: the first tries end by themselves
        numbers = itertools.count() if count is None else range(count)
        results = pool.imap_unordered(fail_at_first, numbers)
        gate.wait_for_count(min(2, count or 2))
        pool.map(do.succeed, range(2), 1)  # meanwhile the results have come
        got = list(itertools.islice(results, 20))
        assert len(set(got)) == len(got) == (count or 20)


def test_a_stop_iteration_out_of_a_call_is_no_end(pool: Pool) -> None:
    results = pool.imap(do.only(0, do.raise_stop_iteration), range(2))
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(results)
    assert list(results) == [1]


def numbers_until_it_breaks(count: int) -> Iterator[int]:
    """Some numbers, then an error."""
    yield from range(count)
    raise ValueError("broken input")


@pytest.mark.parametrize("chunksize", [1, 2, 3])
def test_an_input_that_raises_delivers_what_came_before(pool: Pool, chunksize: int) -> None:
    whole_chunks = 5 // chunksize * chunksize  # the standard library drops the chunk that was begun
    results = pool.imap(do.double, numbers_until_it_breaks(5), chunksize)
    assert [next(results) for _ in range(whole_chunks)] == [2 * number for number in range(whole_chunks)]
    with pytest.raises(ValueError, match="broken input"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_an_input_that_can_not_tell_its_length_works(pool: Pool) -> None:
    for length in (None, NotImplementedError("not known")):
        assert list(pool.imap(do.succeed, do.Lengthless(length))) == [0, 1, 2]
        assert sorted(pool.imap_unordered(do.succeed, do.Lengthless(length))) == [0, 1, 2]


def test_an_interruption_at_any_moment_ends_nothing_silently(pool: Pool) -> None:
    went_on = 0
    for number in range(1500 if IS_LONG else 120):
        interruption = Interruption(number)
        found = interruption.read(pool.imap(do.only(3, do.fail), range(30)))
        assert found in (None, [0, 1, 2, "cannot do 3", *range(4, 30)]), f"interrupted at moment {number}"
        went_on += interruption.came and found is not None
    assert went_on


def test_many_threads_may_read(pool: Pool) -> None:
    results = pool.imap(do.double, range(2000))
    got: list[list[int]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda mine: mine.extend(results), args=(mine,)) for mine in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain(*got)) == [2 * number for number in range(2000)]
    assert all(mine == sorted(mine) for mine in got)


def test_results_can_be_taken_after_the_pool_was_closed(pool: Pool) -> None:
    results = pool.imap(do.double, range(5000))
    pool.close()
    assert list(results) == [2 * number for number in range(5000)]


def test_a_pool_that_is_joined_reads_the_rest_of_the_input(pool: Pool) -> None:
    """As programs do that take the results last."""
    results = [pool.imap(do.double, iter(range(3000))), pool.imap_unordered(do.double, range(3000), 7)]
    pool.close()
    pool.join()
    for each in results:
        assert sorted(each) == [2 * number for number in range(3000)]


def test_the_pool_lives_as_long_as_its_iterator() -> None:
    with pytest.warns(ResourceWarning):
        results = list(Pool(1).imap(do.double, range(100)))
    assert results == [2 * number for number in range(100)]


def test_memory_stays_small_however_long_the_input() -> None:
    with Pool(2) as pool:
        blocks = []
        for number, result in enumerate(pool.imap(do.succeed, range(300_000))):
            assert number == result
            if number % 1000 == 0:
                blocks.append(sys.getallocatedblocks())
    assert max(blocks[100:]) - max(blocks[:100]) < 100_000
