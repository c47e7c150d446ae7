"""`mpqueue.Pool` where CPython's own tests (tests/contract/test_cpython_pool.py) don't look."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import multiprocessing
import multiprocessing.pool
import pickle
import queue
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import mpqueue
from mpqueue import Pool
from tests.support import handlers as do
from tests.support.leaks import processes
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

standard: Any = multiprocessing.pool


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Two workers, no retries."""
    with Pool(2, max_retries=0) as made:
        yield made
    made.join()


def test_it_counts_as_the_standard_librarys(pool: Pool) -> None:
    assert isinstance(pool, multiprocessing.pool.Pool)
    assert isinstance(pool.apply_async(do.double, (1,)), multiprocessing.pool.AsyncResult)
    assert isinstance(pool.map_async(do.double, [1]), multiprocessing.pool.MapResult)
    assert isinstance(pool.imap(do.double, [1]), multiprocessing.pool.IMapIterator)


def _gone(_: object) -> type:
    raise ReferenceError("gone")


def test_a_call_that_can_t_be_made_takes_no_other_call_s_place(pool: Pool) -> None:
    lazy = type("Lazy", (), {"__class__": property(_gone)})()  # as a proxy of what is gone

    def refers(_: int) -> str:
        return str(lazy)

    with contextlib.suppress(ReferenceError):
        pool.apply_async(refers, (1,))
    results = [pool.apply_async(do.double, (n,)) for n in range(5)]
    assert [result.get(300) for result in results] == [0, 2, 4, 6, 8]


def test_workers_start_at_once_and_their_number_is_what_was_asked_for() -> None:
    before = processes()
    with Pool(2) as pool:
        wait_until(lambda: len(processes() - before) == 2, what="both workers to start")
        assert set(pool.map(do.return_pid, range(20), 1)) <= processes() - before
        assert len(processes() - before) == 2
    pool.join()


def test_numbers_of_other_libraries_are_numbers() -> None:
    np = pytest.importorskip("numpy")  # which there is none of under wine
    count: Any = np.int64(1)
    with Pool(count) as pool:
        assert pool.map(do.double, np.arange(3), count) == [0, 2, 4]


# -- what fails ----------------------------------------------------------------------------------------------------


def test_an_exception_that_cannot_be_pickled_raises_what_it_always_did(pool: Pool) -> None:
    with pytest.raises(standard.MaybeEncodingError, match="held") as caught:
        pool.apply(do.raise_lock_holder, (1,))
    assert "raise LockHolderError" in caught.value.__cause__.tb


def test_a_function_that_cannot_be_pickled_raises_its_own_error_where_the_result_is_asked_for(pool: Pool) -> None:
    errors: list[BaseException] = []
    result = pool.map_async(functools.partial(do.double, do.Unpicklable()), [1], error_callback=errors.append)
    with pytest.raises(RuntimeError, match="refuses to be pickled") as caught:
        result.get()
    assert errors == [caught.value]
    assert any("argument" in note for note in caught.value.__notes__)


def test_an_initializer_that_cannot_be_pickled_raises_its_own_error() -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        Pool(1, print, (threading.Lock(),))


@pytest.mark.parametrize("size", [0, -1])
def test_chunks_of_nothing_are_refused(pool: Pool, size: int) -> None:
    for method in (pool.map, pool.map_async, pool.imap, pool.imap_unordered):
        with pytest.raises(ValueError, match=r"Chunksize must be 1\+"):
            method(do.double, [1], size)


# -- what is tried again -------------------------------------------------------------------------------------------


def test_wrong_arguments_are_named_as_the_caller_wrote_them() -> None:
    with pytest.raises(TypeError, match=r"^processes: expected a number of workers, .* got '2' of type str"):
        Pool("2")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="through inheritance") as refused:
        Pool(1, initializer=do.succeed, initargs=(multiprocessing.Lock(),))
    (note,) = refused.value.__notes__
    assert note.startswith("mpqueue: initializer: expected a callable that can be serialized")
    assert "use the locks and queues of a multiprocessing.Manager() instead" in note
    wrong: Any = 3
    with Pool(1) as pool:
        with pytest.raises(TypeError, match=r"^iterable: expected an iterable, got 3 of type int"):
            pool.map(do.succeed, wrong)
        for call in (pool.map, pool.starmap, pool.map_async, pool.imap, pool.imap_unordered):
            with pytest.raises(TypeError, match=r"^func: expected a callable, got 3 of type int"):
                call(wrong, [(1,)])
        assert pool.map(do.succeed, ["bystander"]) == ["bystander"]


def test_sys_exit_fails_the_call_and_not_the_worker(pool: Pool) -> None:
    with pytest.raises(mpqueue.RemoteError, match="SystemExit"):
        pool.apply(do.sys_exit, (1,))


# -- results that come later ---------------------------------------------------------------------------------------


def test_callbacks_may_use_the_pool(pool: Pool) -> None:
    last: list[Any] = []
    done = threading.Event()

    def again(value: int) -> None:
        last.append(value)
        if value < 64:
            pool.apply_async(do.double, (value,), callback=again)
        else:
            done.set()

    pool.apply_async(do.double, (1,), callback=again)
    assert done.wait(300)
    assert last == [2, 4, 8, 16, 32, 64]


def test_a_callback_that_raises_is_logged_and_the_pool_goes_on(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    assert pool.apply_async(do.double, (1,), callback=do.fail).get() == 2
    assert "a callback raised" in caplog.text
    assert pool.apply(do.double, (2,)) == 4


# -- the workers ---------------------------------------------------------------------------------------------------

_prepared: list[Any] = []


def prepare(value: Any) -> None:
    """Remember the value, and whether this is the main thread."""
    _prepared.append((value, threading.current_thread() is threading.main_thread()))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def what_was_prepared(_: Any) -> list[Any]:
    """What `prepare` has done in this worker."""
    return _prepared


def test_the_initializer_runs_once_in_each_worker_in_its_main_thread() -> None:
    with Pool(2, prepare, ["a"]) as pool:
        assert pool.map(what_was_prepared, range(6), 1) == [[("a", True)]] * 6


def test_the_initializer_has_run_when_a_pool_that_did_nothing_is_joined(tmp_path: Path) -> None:
    pool = Pool(2, do.count_calls(tmp_path), ("a",))
    pool.close()
    pool.join()
    assert dict(do.calls(tmp_path)) == {"a": 2}


def test_a_pool_inside_a_call_has_one_worker(pool: Pool) -> None:
    def inside(item: int) -> tuple[str, list[int]]:
        with Pool() as inner:
            return repr(inner), inner.map(do.double, [item])

    text, results = pool.apply(inside, (2,))
    assert text.endswith(" pool_size=1>")
    assert results == [4]


# -- the end -------------------------------------------------------------------------------------------------------


def test_a_callback_cannot_wait_for_the_pool_or_a_result(pool: Pool, gate: Gate) -> None:
    errors = list[BaseException]()

    def wait(_: Any) -> None:
        result = pool.map_async(do.block_until_told(gate), [1])
        pool.close()
        for wait_here in (result.get, pool.join):
            try:
                wait_here()
            except RuntimeError as error:
                errors.append(error)
        gate.open()

    pool.apply_async(do.double, (1,), callback=wait).wait()
    assert "waiting for a call" in str(errors[0])
    assert "pool.join()" in str(errors[1])


def test_a_pool_that_nobody_holds_is_ended_with_a_warning() -> None:
    before, holder = processes(), [Pool(2)]
    assert holder[0].map(do.double, [1]) == [2]
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool <mpqueue"):
        holder.clear()
    wait_until(lambda: processes() == before, what="the workers to end")


def test_a_pool_stays_in_its_process(pool: Pool) -> None:
    with pytest.raises(NotImplementedError, match="cannot be passed between processes"):
        pickle.dumps(pool)
    with pytest.raises(NotImplementedError, match="cannot be passed between processes"):
        pool.apply(do.succeed, (pool,))


def test_its_text_tells_its_state(pool: Pool) -> None:
    assert re.fullmatch(r"<mpqueue\..*\bPool state=RUN pool_size=2>", repr(pool))
    pool.terminate()
    assert "state=TERMINATE" in repr(pool)


# -- iterators -------------------------------------------------------------------------------------------------------


def test_dropping_the_iterator_before_a_result_was_read_is_said(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
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
    pool.imap(do.double, itertools.count())
    gc.collect()
    assert "dropped before a result was read from it" in caplog.text


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
