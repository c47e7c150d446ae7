"""joblib on mpqueue's workers: `register`, then ``joblib.parallel_config(backend="mpqueue")``.

    with joblib.parallel_config(backend="mpqueue", n_jobs=4, max_retries=1):
        scores = cross_val_score(model, X, y)

Each `joblib.Parallel` call has its own stream on a warm queue; calls with the same number of workers share a queue,
which ends when it has been idle for a while. Its items are joblib's batches of calls. A batch whose worker dies is
tried again. A batch that raises is not, unless ``max_retries=`` or ``retry=`` asks for it: joblib's users expect the
first exception at once. mpqueue sends large arrays through shared memory itself, so joblib's memory mapping is not
used.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import multiprocessing
import pickle
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

try:
    from joblib import register_parallel_backend
    from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend
    from joblib.externals.loky.process_executor import TerminatedWorkerError
    from joblib.parallel import BatchedCalls, Parallel
except ImportError as error:
    raise ImportError(f"mpqueue.joblib_backend needs joblib ({error}): `pip install 'mpqueue[joblib]'`") from error

from mpqueue._call_checks import no_such_option
from mpqueue._core.state.item_table import Failure
from mpqueue._declared import At
from mpqueue._dropin.call_stream import CallStream
from mpqueue._dropin.lent_queues import SharedPool, WarmQueue
from mpqueue._dropin.process_executor import ExecutorCrashedError, error_of
from mpqueue._dropin.whole_map import DROPIN_RETRY, read_call
from mpqueue._engines.loky.loky_pool import LokyBackend
from mpqueue._options import JobOptions
from mpqueue._os.process_handle import in_each_fork
from mpqueue._parent.lane_protocol import Backend
from mpqueue._queue.arguments import choose_backend
from mpqueue._wire.pickling.packed_functions import FunctionPacker
from mpqueue._worker.handlers.called import Call, prepare_for_joblib
from mpqueue.errors import ItemPicklingError, ItemTimeoutError, MemoryLimitError, WorkerCrashedError, shown
from mpqueue.retry import RetryPolicy

__all__ = ["JoblibCrashedError", "MPQueueBackend", "close", "register"]

#: The options of `MPQueueBackend` that no backend of joblib has; those that joblib's backends have; and those that
#: joblib itself passes to `configure`.
_OURS = ("max_retries", "retry", "timeout", "backend")
_OF_BACKENDS = ("nesting_level", "inner_max_num_threads", "initializer", "initargs")
_OF_CALLS = (*inspect.signature(Parallel).parameters, "context")

#: The default: a batch whose worker ended is tried again, one that raised is not.
CRASH_RETRY = dataclasses.replace(DROPIN_RETRY, retry_on=(WorkerCrashedError, ItemTimeoutError, MemoryLimitError))


class JoblibCrashedError(ExecutorCrashedError, TerminatedWorkerError):  # type: ignore[misc]
    """The worker died while it ran a batch of calls, and so did the workers that tried it again."""


def register(*, backend: str | Backend = "loky") -> None:
    """Make ``backend="mpqueue"`` known to joblib.

    Its workers run on the engine ``backend``, one of `mpqueue.backends`, where ``n_jobs=-1`` means all workers that it
    has then. To use several engines, give joblib ``parallel_config(backend=MPQueueBackend(backend=...))``.
    """
    engine = choose_backend(backend)
    # joblib and its tests expect a class; without options this is one.
    factory: Any = MPQueueBackend if backend == "loky" else functools.partial(MPQueueBackend, backend=engine)
    register_parallel_backend("mpqueue", factory)


class MPQueueBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """The backend for `Parallel`. Own options: ``max_retries``, ``retry``, ``timeout`` (seconds per try).

    Without ``max_retries`` and ``retry`` a batch whose worker dies or is killed is tried again three times, and an
    exception ends the `Parallel` call at once. ``backend`` is the engine, one of `mpqueue.backends`. All options but
    these and joblib's own raise TypeError; so do these if they are given to `Parallel`.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    def __init__(
        self,
        *,
        max_retries: int | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        backend: str | Backend = "loky",
        **options: Any,
    ) -> None:
        for name, value in options.items():
            if name not in _OF_BACKENDS:
                raise no_such_option("parallel_config", name, (*_OURS, *_OF_BACKENDS, *_OF_CALLS), value)
        ours = {"max_retries": max_retries, "retry": retry, "timeout": timeout, "backend": backend}
        _, self._engine, given = read_call("mpqueue backend", At.POOL, ours)
        self._policy = CRASH_RETRY if max_retries is None and retry is None else given.retry
        self._timeout = given.timeout
        self._calls: CallStream | None = None  #: of the `Parallel` call, on a queue that it shares
        self._lent: WarmQueue | None = None
        self.parallel: Any = None  #: the `Parallel` of that stream
        super().__init__(**options)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(MPQueueBackend, **self._own_options), ()

    @property
    def _own_options(self) -> dict[str, Any]:
        return {
            "retry": self._policy,
            "timeout": self._timeout,
            "nesting_level": self.nesting_level,
            "inner_max_num_threads": self.inner_max_num_threads,
        }

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the number of workers that ``n_jobs`` means. Inside a worker, -1 means 1."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if multiprocessing.current_process().daemon:
            if n_jobs != 1:
                warnings.warn(
                    "mpqueue-backed parallel loops cannot be called in a multiprocessing, setting n_jobs=1",
                    stacklevel=3,
                )
            return 1
        return n_jobs if n_jobs > 0 else max(self._engine.count_workers() + 1 + n_jobs, 1)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Begin a `Parallel` call, or a ``with`` block of several."""
        _check_call(options)
        workers = self.effective_n_jobs(n_jobs)
        if workers == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if self._calls is not None and parallel is not self.parallel:
            # All calls under one `parallel_config` share this object.
            raise FallbackToBackend(MPQueueBackend(backend=self._engine, **self._own_options, **self.backend_kwargs))
        self.parallel = parallel
        self._release(kill=False)
        options = {**self.backend_kwargs, **options}
        pool = _pools.find(
            self._engine,
            workers,
            self.inner_max_num_threads,
            options.get("initializer"),
            options.get("initargs", ()),
        )
        self._lent = WarmQueue(workers, pool)
        job = JobOptions(self._policy, self._timeout, max_lanes=workers)
        self._calls = CallStream(self._lent.queue, _error_of, job)
        return workers

    def submit(self, func: Any, callback: Callable[[Future[Any]], object] | None = None) -> Future[Any]:
        """A future for a batch of calls; the callback is called on the queue's listener thread."""
        if self._calls is None:
            raise RuntimeError("the Parallel call that this belongs to has ended")
        if isinstance(func, BatchedCalls):
            functions = [function for function, _, _ in func.items]
            if all(function is functions[0] for function in functions):  # otherwise all of them would share one class
                functions = _functions.pack_all(functions)
            func.items = [(function, *rest) for function, (_, *rest) in zip(functions, func.items, strict=True)]
        future = self._calls.submit(Call(func, (), {}))
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return a batch's results, or raise its error."""
        return out.result()

    def terminate(self) -> None:
        """End a `Parallel` call; the workers stay warm."""
        self._release(kill=False)
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End a `Parallel` call that fails: batches that wait are cancelled, running ones are killed."""
        self._release(kill=True)
        if ensure_ready:
            options = self.parallel._backend_kwargs  # noqa: SLF001 - joblib's own backends do the same
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **options)

    def _release(self, *, kill: bool) -> None:
        """Give the pool back; with ``kill``, batches that wait are cancelled and running ones are killed."""
        calls, self._calls = self._calls, None
        lent, self._lent = self._lent, None
        if calls is not None:
            calls.kill() if kill else calls.seal()
        if lent is not None:
            lent.end(kill=kill)


def _check_call(options: dict[str, Any]) -> None:
    """Raise TypeError for an option of a `Parallel` call that neither `Parallel` nor a backend of joblib has."""
    for name, value in options.items():
        if name in _OURS:
            how = f"parallel_config(backend='mpqueue', {name}={shown(value)})"
            raise TypeError(f"Parallel() has no option {name!r}: write {how}")
        if name not in _OF_CALLS and name not in _OF_BACKENDS:
            raise no_such_option("Parallel", name, (*_OF_BACKENDS, *_OF_CALLS), value)


def _error_of(failure: Failure) -> BaseException:
    """Return the executor's error, or one of joblib's own kind if a worker died or a batch can't be pickled."""
    own = failure.own
    if isinstance(own, ItemPicklingError):
        unpicklable = pickle.PicklingError(f"Could not pickle the task to send to the workers: {own}")
        unpicklable.__cause__ = own.__cause__
        return unpicklable
    error = error_of(failure)
    if own is not None and isinstance(error, ExecutorCrashedError):
        return JoblibCrashedError(str(error), error.exitcode, error.signal, error.pid)
    return error


class _Pools:
    """A warm pool for each kind of workers; only the pool used last stays warm."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: dict[tuple[Any, ...], SharedPool] = {}

    def find(
        self,
        engine: Backend,
        workers: int,
        threads: int | None,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> SharedPool:
        """Return the pool with that many workers and inner threads; unused other pools are ended."""
        # references held by the pool itself do not count
        where = None if isinstance(engine, LokyBackend) else id(engine)
        key = (where, workers, threads, id(initializer), *map(id, initargs))
        call = None if initializer is None else functools.partial(initializer, *initargs)
        prepare = functools.partial(prepare_for_joblib, call)
        with self._lock:
            pool = self._pools.setdefault(key, SharedPool(threads, prepare, engine))
            for other_key, other in list(self._pools.items()):
                if other is not pool and other.end():
                    del self._pools[other_key]
        return pool

    def close(self) -> None:
        """End all workers now: idle ones in order, those of `Parallel` calls, which then fail, at once."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            if not pool.end():
                pool.end(kill=True)

    def reset_in_fork(self) -> None:
        """Forget the parent's pools in a forked child."""
        self._lock = threading.Lock()
        self._pools = {}


_pools = _Pools()
_functions = FunctionPacker()
in_each_fork(_pools.reset_in_fork)


def close() -> None:
    """End the warm workers now, instead of after a while without calls."""
    _pools.close()
