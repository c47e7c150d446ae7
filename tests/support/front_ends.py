"""Each way to call a function with many items, opened and called alike: what is promised of all is tested once."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing.pool
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Self

import mpqueue
from mpqueue import Executor, ItemPicklingError, Pool, QueueClosedError, ResultPicklingError
from mpqueue.testing import close_shared_pool

#: Workers of each.
WORKERS = 2

#: Seconds until a call that waits counts as hanging.
PATIENCE = 300.0


@dataclass(frozen=True)
class Call:
    """What is called with a function and items, and how it is ended meanwhile."""

    make: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
    end: Callable[[], object] = lambda: close_shared_pool(kill=True)

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """The results, in a list or from an iterator."""
        return self.make(function, items)


@dataclass(frozen=True)
class FrontEnd:
    """One way. ``open`` takes ``retry`` or ``max_retries``, ``timeout``, and what else this one does."""

    name: str
    open: Callable[..., contextlib.AbstractContextManager[Call]]
    is_first: bool = True  #: of several that are implemented alike
    is_ours: bool = False  #: a function of mpqueue's own, with `on_error` and `max_failures`
    is_ordered: bool = True
    is_lazy: bool = False  #: results are read from an iterator, which reads its input meanwhile
    is_eager: bool = False  #: all of the input is read before anything runs
    tells_progress: bool = True  #: as one job
    goes_on: bool = True  #: what comes after a failure is there too
    tries: int = 4  #: of an item whose function raises, unless something else is said
    #: The errors of an item that can't be pickled, and of such a result.
    unpicklable: tuple[type[Exception], type[Exception]] = (ItemPicklingError, ResultPicklingError)
    ended: type[BaseException] | None = QueueClosedError  #: what a call raises that waits when it is ended

    def __str__(self) -> str:
        return self.name

    def sort(self, results: Iterable[Any]) -> list[Any]:
        """The results, those that may come in any order sorted."""
        return list(results) if self.is_ordered else sorted(results, key=repr)


class Counted:
    """0, 1, 2 and so on for ever; ``read`` is how many of them were taken."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            self.read += 1
            yield self.read - 1


class _Each:
    """Gives one result after the other, and goes on after an error."""

    def __init__(self, waits: Iterable[Callable[[float], Any]]) -> None:
        self._waits = iter(waits)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        wait = next(self._waits)
        try:
            return wait(PATIENCE)
        except StopIteration as error:
            raise RuntimeError("StopIteration") from error


Opener = Callable[..., contextlib.AbstractContextManager[Call]]


def _ours(function: Callable[..., Any]) -> Opener:
    @contextlib.contextmanager
    def open_ours(**options: Any) -> Iterator[Call]:
        yield Call(lambda called, items: function(called, items, **{"concurrency": WORKERS} | options))

    return open_ours


def _amap(*arguments: Any, **options: Any) -> Any:
    return asyncio.run(mpqueue.amap(*arguments, **options))


def _pool(call: Callable[[Pool], Callable[..., Any]]) -> Opener:
    @contextlib.contextmanager
    def open_pool(**options: Any) -> Iterator[Call]:
        with Pool(WORKERS, **options) as pool:
            yield Call(call(pool), pool.terminate)
        pool.join()

    return open_pool


def _executor(call: Callable[[Executor], Callable[..., Any]]) -> Opener:
    @contextlib.contextmanager
    def open_executor(**options: Any) -> Iterator[Call]:
        with Executor(WORKERS, **options) as executor:
            yield Call(call(executor), executor.kill_workers)

    return open_executor


def _apply_async(pool: Pool) -> Callable[..., Any]:
    return lambda function, items: _Each([pool.apply_async(function, (item,)).get for item in items])


def _submit(executor: Executor) -> Callable[..., Any]:
    return lambda function, items: _Each([executor.submit(function, item).result for item in items])


def _joblib(return_as: str) -> Opener:
    @contextlib.contextmanager
    def open_joblib(**options: Any) -> Iterator[Call]:
        from joblib import Parallel, delayed, parallel_config

        from mpqueue import joblib_backend

        joblib_backend.register()
        try:
            with parallel_config(backend="mpqueue", n_jobs=WORKERS, **options):
                yield Call(lambda called, items: Parallel(return_as=return_as)(delayed(called)(item) for item in items))
        finally:
            joblib_backend.close()

    return open_joblib


_standard: Any = multiprocessing.pool
_UNORDERED: dict[str, Any] = {"is_ordered": False, "is_first": False}
_IN_POOL: dict[str, Any] = {"unpicklable": (RuntimeError, _standard.MaybeEncodingError)}
_IN_EXECUTOR: dict[str, Any] = {"unpicklable": (RuntimeError, pickle.PicklingError), "ended": CancelledError}
_IN_JOBLIB: dict[str, Any] = {
    "unpicklable": (pickle.PicklingError, pickle.PicklingError),
    "ended": None,
    "goes_on": False,
    "tries": 1,
    "tells_progress": False,
}

FRONT_ENDS = (
    FrontEnd("map", _ours(mpqueue.map), is_ours=True, is_eager=True),
    FrontEnd("amap", _ours(_amap), is_ours=True, is_eager=True),
    FrontEnd("imap", _ours(mpqueue.imap), is_ours=True, is_lazy=True),
    FrontEnd("imap_unordered", _ours(mpqueue.imap_unordered), is_ours=True, is_lazy=True, **_UNORDERED),
    FrontEnd("Pool.map", _pool(lambda pool: pool.map), is_eager=True, goes_on=False, **_IN_POOL),
    FrontEnd("Pool.apply_async", _pool(_apply_async), tells_progress=False, **_IN_POOL),
    FrontEnd("Pool.imap", _pool(lambda pool: pool.imap), is_lazy=True, **_IN_POOL),
    FrontEnd("Pool.imap_unordered", _pool(lambda pool: pool.imap_unordered), is_lazy=True, **_UNORDERED, **_IN_POOL),
    FrontEnd("Executor.map", _executor(lambda executor: executor.map), goes_on=False, **_IN_EXECUTOR),
    FrontEnd("Executor.submit", _executor(_submit), tells_progress=False, **_IN_EXECUTOR),
    FrontEnd("joblib", _joblib("list"), **_IN_JOBLIB),
    FrontEnd("joblib's generator", _joblib("generator"), is_first=False, **_IN_JOBLIB),
)
