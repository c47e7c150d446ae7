"""How each library is asked for single items with their own outcomes, and what it offers against each fault.

Everybody is used in the way that its own documentation describes as the most robust, said in ``configuration``: one
call an item where there is such a call, since that loses least. Dask and Ray try again after a crash by themselves,
three times; mpqueue is told to, once.
"""

# ruff: noqa: D101, D102, BLE001 - what the methods do is said once, in `Dialect`; what a pool raises is a result
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

from benchmarks import contenders


class Outcome(NamedTuple):
    """How one item ended: ``ok`` with its value, ``error`` with the error's text, ``silent`` where nothing came."""

    kind: str
    value: Any = None


class CannotError(Exception):
    """The library has no way to say that."""


Work = Callable[[Any], Any]


class Dialect:
    """One library with its workers. Used by one thread: enter, ask, leave."""

    contender: ClassVar[type[contenders.Contender]]
    configuration: ClassVar[str] = ""
    #: Whether its handles have a `cancel` at all.
    cancels: ClassVar[bool] = True

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.pool: Any = None
        #: Ctrl-C ends the asking, instead of being an outcome.
        self.interruptible = False

    def enter(self, initializer: Callable[[], None] | None = None) -> None:
        """Start the workers, as a ``with`` statement does."""
        raise NotImplementedError

    def leave(self, *error: Any) -> None:
        """End them, as the end of the ``with`` block does."""
        self.pool.__exit__(*(error or (None, None, None)))

    def outcomes(self, fn: Work, items: list[Any], patience: float, timeout: float | None = None) -> list[Outcome]:
        """How each item ended; waits ``patience`` seconds in all. ``timeout`` is for each item, where that can be."""
        handles: list[Any] = []
        for item in items:
            try:
                handles.append(self.submit(fn, item, timeout))
            except BaseException as error:
                self._let_through(error)
                handles.append(error)
        until = time.monotonic() + patience
        return [self._outcome(handle, until, timeout) for handle in handles]

    def _outcome(self, handle: Any, until: float, timeout: float | None) -> Outcome:
        if isinstance(handle, BaseException):
            return Outcome("error", describe(handle))
        try:
            return Outcome("ok", self.wait(handle, max(0.1, until - time.monotonic()), timeout))
        except BaseException as error:
            self._let_through(error)
            return Outcome("error", describe(error)) if self.is_done(handle) else Outcome("silent")

    def _let_through(self, error: BaseException) -> None:
        if self.interruptible and isinstance(error, KeyboardInterrupt):
            raise error

    def submit(self, fn: Work, item: Any, timeout: float | None) -> Any:
        """A handle for one item."""
        raise NotImplementedError

    def wait(self, handle: Any, patience: float, timeout: float | None) -> Any:  # noqa: ARG002
        """Its result, or what it raised."""
        return handle.result(timeout=patience)

    def is_done(self, handle: Any) -> bool:
        """Whether it has ended."""
        return bool(handle.done())

    def take(self, fn: Work, endless: Iterator[Any]) -> Iterator[Any]:  # noqa: ARG002
        """Results over an input without end, as they are taken."""
        raise CannotError("no lazy map")

    def end_running(self, fn: Work, item: Any, runs: Callable[[], None]) -> None:
        """Start an item, wait until it runs, and cancel it with the strongest means there is."""
        if not self.cancels:
            raise CannotError("a running item can't be cancelled")
        handle = self.submit(fn, item, None)
        runs()
        if not handle.cancel():
            raise CannotError("a running item can't be cancelled")


def describe(error: BaseException) -> str:
    """Type and text, with those of its causes, since that is where some put the reason."""
    parts, seen = [], set()
    left: list[BaseException | None] = [error]
    while left:
        this = left.pop()
        if this is None or id(this) in seen:
            continue
        seen.add(id(this))
        try:
            text = " ".join(str(this).split())[:600]
        except Exception:
            text = "(no text)"
        parts.append(f"{type(this).__name__}: {text}")
        left += [this.__context__, this.__cause__]
        if isinstance(this, BaseExceptionGroup):
            left += this.exceptions
    return " <- ".join(parts)


class MPQueue(Dialect):
    contender = contenders.MPQueue
    configuration = "JobQueue.create_job and start, one retry without delay; timeout=; mpqueue.imap; cancel(kill=True)"

    def enter(self, initializer: Callable[[], None] | None = None) -> None:
        import mpqueue

        retry = mpqueue.RetryPolicy(max_retries=1, base_delay=0.0)
        self.pool = mpqueue.JobQueue(self.workers, retry=retry, initializer=initializer).__enter__()

    def outcomes(self, fn: Work, items: list[Any], patience: float, timeout: float | None = None) -> list[Outcome]:
        name = f"job-{len(self.pool.jobs())}"
        try:
            self.pool.create_job(name, items, fn, timeout=timeout)
            run = self.pool.start(name)
        except Exception as error:
            return [Outcome("error", describe(error))] * len(items)
        with contextlib.suppress(TimeoutError):
            run.result(patience)
        return [self._ended(item) for item in run.job.items]

    def _ended(self, item: Any) -> Outcome:
        if item.status == "completed":
            return Outcome("ok", item.result)
        return Outcome("error", describe(item.exception)) if item.status == "failed" else Outcome("silent")

    def take(self, fn: Work, endless: Iterator[Any]) -> Iterator[Any]:
        import mpqueue

        return mpqueue.imap(fn, endless, concurrency=self.workers)

    def end_running(self, fn: Work, item: Any, runs: Callable[[], None]) -> None:
        self.pool.create_job("long", [item], fn)
        self.pool.start("long")
        runs()
        self.pool.cancel("long", kill=True)


class Multiprocessing(Dialect):
    contender = contenders.MultiprocessingPool
    configuration = "with Pool: apply_async for each item, get(timeout); imap"
    cancels = False

    def enter(self, initializer: Callable[[], None] | None = None) -> None:
        import multiprocessing

        self.pool = multiprocessing.Pool(self.workers, initializer)

    def submit(self, fn: Work, item: Any, timeout: float | None) -> Any:  # noqa: ARG002
        return self.pool.apply_async(fn, (item,))

    def wait(self, handle: Any, patience: float, timeout: float | None) -> Any:
        return handle.get(patience if timeout is None else min(patience, 2 * timeout))

    def is_done(self, handle: Any) -> bool:
        return bool(handle.ready())

    def take(self, fn: Work, endless: Iterator[Any]) -> Iterator[Any]:
        return iter(self.pool.imap(fn, endless))


class Futures(Dialect):
    contender = contenders.Futures
    configuration = "with ProcessPoolExecutor: submit for each item, result(timeout); map"

    def enter(self, initializer: Callable[[], None] | None = None) -> None:
        from concurrent.futures import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(self.workers, initializer=initializer)

    def submit(self, fn: Work, item: Any, timeout: float | None) -> Any:  # noqa: ARG002
        return self.pool.submit(fn, item)

    def wait(self, handle: Any, patience: float, timeout: float | None) -> Any:
        return handle.result(patience if timeout is None else min(patience, 2 * timeout))

    def take(self, fn: Work, endless: Iterator[Any]) -> Iterator[Any]:
        import sys

        bounded = {"buffersize": 4 * self.workers} if sys.version_info >= (3, 14) else {}
        return iter(self.pool.map(fn, endless, **bounded))


class Loky(Futures):
    contender = contenders.Loky
    configuration = (
        "get_reusable_executor, asked for anew each time: submit, result(timeout); shutdown(kill_workers=True)"
    )

    def enter(self, initializer: Callable[[], None] | None = None) -> None:
        self.initializer = initializer
        self._renew()

    def _renew(self) -> None:
        import loky

        self.pool = loky.get_reusable_executor(self.workers, initializer=self.initializer)

    def outcomes(self, fn: Work, items: list[Any], patience: float, timeout: float | None = None) -> list[Outcome]:
        self._renew()
        return super().outcomes(fn, items, patience, timeout)

    def leave(self, *error: Any) -> None:  # noqa: ARG002
        self.pool.shutdown(kill_workers=True)


class Joblib(Dialect):
    contender = contenders.Joblib
    configuration = "Parallel on loky, batch_size=1, return_as='generator_unordered', timeout="
    cancels = False

    def enter(self, initializer: Callable[[], None] | None = None) -> None:
        import joblib

        self.joblib = joblib
        self.options: dict[str, Any] = {} if initializer is None else {"backend": "loky", "initializer": initializer}

    def outcomes(self, fn: Work, items: list[Any], patience: float, timeout: float | None = None) -> list[Outcome]:
        call = self.joblib.delayed(fn)
        parallel = self.joblib.Parallel(
            n_jobs=self.workers,
            return_as="generator_unordered",
            batch_size=1,
            timeout=patience if timeout is None else timeout,
            **self.options,
        )
        numbers = [number_of(item) for item in items]
        found: dict[int, Outcome] = {}
        rest = Outcome("silent")
        try:
            for value in parallel(call(item) for item in items):
                found[value[0] if isinstance(value, tuple) else value] = Outcome("ok", value)
        except BaseException as error:
            self._let_through(error)
            rest = Outcome("error", describe(error))
        return [found.get(number, rest) for number in numbers]

    def take(self, fn: Work, endless: Iterator[Any]) -> Iterator[Any]:
        call = self.joblib.delayed(fn)
        parallel = self.joblib.Parallel(n_jobs=self.workers, return_as="generator")
        return iter(parallel(call(item) for item in endless))

    def leave(self, *error: Any) -> None:  # noqa: ARG002
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(kill_workers=True)


def number_of(item: Any) -> int:
    """Which item it is, as its result says it."""
    return int(getattr(item, "number", item))


class Mpire(Dialect):
    contender = contenders.Mpire
    configuration = "with WorkerPool: apply_async for each item, task_timeout=; worker_init=; imap"
    cancels = False

    def enter(self, initializer: Callable[[], None] | None = None) -> None:
        import mpire

        self.initializer = initializer
        self.pool = mpire.WorkerPool(self.workers)

    def submit(self, fn: Work, item: Any, timeout: float | None) -> Any:
        return self.pool.apply_async(fn, (item,), task_timeout=timeout, worker_init=self.initializer)

    def wait(self, handle: Any, patience: float, timeout: float | None) -> Any:  # noqa: ARG002
        return handle.get(patience)

    def is_done(self, handle: Any) -> bool:
        return bool(handle.ready())

    def take(self, fn: Work, endless: Iterator[Any]) -> Iterator[Any]:
        return iter(self.pool.imap(fn, endless))


class Pebble(Dialect):
    contender = contenders.Pebble
    configuration = "with ProcessPool: schedule for each item, timeout=; map; future.cancel()"

    def enter(self, initializer: Callable[[], None] | None = None) -> None:
        import pebble

        self.pool = pebble.ProcessPool(self.workers, initializer=initializer)

    def submit(self, fn: Work, item: Any, timeout: float | None) -> Any:
        return self.pool.schedule(fn, args=(item,), timeout=timeout)

    def take(self, fn: Work, endless: Iterator[Any]) -> Iterator[Any]:
        return iter(self.pool.map(fn, endless).result())


class Dask(Dialect):
    contender = contenders.Dask
    configuration = "LocalCluster of processes: submit for each item, result(timeout), cancel"

    def enter(self, initializer: Callable[[], None] | None = None) -> None:
        import distributed

        self.started = contenders.make("dask", self.workers)
        self.pool = self.started.client
        if initializer is not None:
            run = initializer

            class Plugin(distributed.WorkerPlugin):
                def setup(self, worker: Any) -> None:  # noqa: ARG002
                    run()

            self.pool.register_plugin(Plugin())

    def leave(self, *error: Any) -> None:  # noqa: ARG002
        self.started.close()

    def submit(self, fn: Work, item: Any, timeout: float | None) -> Any:  # noqa: ARG002
        return self.pool.submit(fn, item, pure=False)

    def wait(self, handle: Any, patience: float, timeout: float | None) -> Any:
        try:
            return handle.result(timeout=patience if timeout is None else min(patience, 2 * timeout))
        except Exception:
            if timeout is not None and not handle.done():
                handle.cancel()
            raise

    def end_running(self, fn: Work, item: Any, runs: Callable[[], None]) -> None:
        handle = self.submit(fn, item, None)
        runs()
        handle.cancel()


class Ray(Dialect):
    contender = contenders.Ray
    configuration = "a task for each item, ray.get(timeout), ray.cancel(force=True); ray's Pool.imap"

    def enter(self, initializer: Callable[[], None] | None = None) -> None:
        self.started = contenders.Ray()
        self.started.workers = self.workers
        hook = {} if initializer is None else {"runtime_env": {"worker_process_setup_hook": in_function(initializer)}}
        self.started.start(self.workers, **hook)
        self.pool = self.started.ray
        self.tasks: dict[int, Any] = {}

    def leave(self, *error: Any) -> None:  # noqa: ARG002
        self.started.close()

    def submit(self, fn: Work, item: Any, timeout: float | None) -> Any:  # noqa: ARG002
        if id(fn) not in self.tasks:
            self.tasks[id(fn)] = self.pool.remote(in_function(fn))
        return self.tasks[id(fn)].remote(item)

    def wait(self, handle: Any, patience: float, timeout: float | None) -> Any:
        try:
            return self.pool.get(handle, timeout=patience if timeout is None else min(patience, 2 * timeout))
        except self.pool.exceptions.GetTimeoutError:
            if timeout is None:
                raise
            self.pool.cancel(handle, force=True)
            return self.pool.get(handle, timeout=patience)

    def is_done(self, handle: Any) -> bool:
        return bool(self.pool.wait([handle], timeout=0)[0])

    def take(self, fn: Work, endless: Iterator[Any]) -> Iterator[Any]:
        from ray.util.multiprocessing import Pool

        return iter(Pool(self.workers).imap(fn, endless))

    def end_running(self, fn: Work, item: Any, runs: Callable[[], None]) -> None:
        handle = self.submit(fn, item, None)
        runs()
        self.pool.cancel(handle, force=True)


def in_function(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function, since Ray takes nothing else."""

    def run(*args: Any) -> Any:
        return fn(*args)

    return run


#: In the order in which they are shown.
ALL: tuple[type[Dialect], ...] = (MPQueue, Multiprocessing, Futures, Loky, Joblib, Mpire, Pebble, Dask, Ray)
BY_NAME = {dialect.contender.name: dialect for dialect in ALL}
