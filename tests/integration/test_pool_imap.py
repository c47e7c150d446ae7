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

from mpqueue import Pool
from tests.support import handlers as do
from tests.support.waiting import Gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Two workers, no retries."""
    with Pool(2, max_retries=0) as made:
        yield made
    made.join()


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
            thread.join(300)
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
        assert more.wait(300)
        yield 3

    results = pool.imap(do.double, numbers())
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.01)
    more.set()
    assert list(results) == [6]


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
