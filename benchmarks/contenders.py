"""What is measured: mpqueue, and what others use instead. One small class each.

Each is in the best configuration that its own documentation describes, said in ``configuration``. ``chunksize`` is
what a user who knows how many items there are would choose; those that choose for themselves ignore it.

Nothing is imported before `start`: a cold start measures imports too, and nobody's but the contender's own. So this
module must not import anything of weight, the standard library's included.
"""

# ruff: noqa: D102 - what the methods do is said once, in `Contender`
from __future__ import annotations

from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class Contender:
    """One of those that are compared. Used in one process, by one thread: start, then map as often as wanted, close."""

    name = ""
    #: What is imported, and whose version is noted.
    module = ""
    configuration = ""
    #: The import that a program starts with.
    statement = ""
    #: A name that the module may lack.
    needs = ""
    #: Only these questions concern it; empty: all.
    questions: tuple[str, ...] = ()
    #: Another one, which a quick run leaves out where this one takes part: the same library, used in another way.
    instead_of = ""
    workers = 0

    def start(self, workers: int) -> None:
        """Import the library and start its workers, as far as it starts them before the first call."""
        raise NotImplementedError

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:
        """All results, in order."""
        raise NotImplementedError

    def one(self, fn: Callable[[Any], Any], item: Any) -> Any:
        """The result of one item."""
        return self.map(fn, [item], 1)[0]

    def map_with(self, fn: Callable[[Any, Any], Any], big: Any, items: Sequence[Any], chunksize: int) -> list[Any]:
        """``fn(big, item)`` for each item: by the way that the library has for an object that all items share."""
        return self.map(partial(fn, big), items, chunksize)

    def each(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int, tell: Callable[[Any], None]) -> None:
        """Call ``tell`` here with something for each item as it ends: what a progress bar needs."""
        raise NotImplementedError(f"{self.name} has no call that tells of each item")

    def through(self, fns: Sequence[Callable[[Any], Any]], items: Sequence[Any]) -> list[Any]:
        """Each item through all of these, in order: by the way that the library has for that."""
        if len(fns) == 1:
            return self.map(fns[0], items, 1)
        raise NotImplementedError(f"{self.name} has no call for several functions")

    def map_past_crash(self, fn: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """The results that are left when workers die underway, each item sent by itself where that helps."""
        return self.map(fn, items, 1)

    def map_past_death(self, fn: Callable[[Any], Any], item: Any) -> None:
        """Call ``fn`` with what kills its worker, the first time; then again, anew where the pool is broken by that."""
        import contextlib

        with contextlib.suppress(Exception):
            self.map(fn, [item], 1)
        self.map(fn, [item], 1)

    def close(self) -> None:
        """End the workers."""


class MPQueue(Contender):
    """`JobQueue.run`: a job with retries, events and blame."""

    name = "mpqueue"
    module = "mpqueue"
    statement = "from mpqueue import JobQueue"
    configuration = "JobQueue.run, all options as they are; after a crash a retry without delay"

    def start(self, workers: int) -> None:
        import mpqueue

        self.queue = mpqueue.JobQueue(concurrency=workers)

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:  # noqa: ARG002
        job = self.queue.run(items, fn)
        if job.failed:
            job.raise_for_failures()
        results = job.results
        self.queue.clear_job(job.id)
        return results

    def through(self, fns: Sequence[Callable[[Any], Any]], items: Sequence[Any]) -> list[Any]:
        if len(fns) == 1:
            return self.map(fns[0], items, 1)
        job = self.queue.run_stages(items, fns)
        job.raise_for_failures()
        results = job.results
        self.queue.clear_job(job.id)
        return results

    def each(
        self,
        fn: Callable[[Any], Any],
        items: Sequence[Any],
        chunksize: int,
        tell: Callable[[Any], None],
    ) -> None:
        self.queue.on("job:progress", tell)
        try:
            self.map(fn, items, chunksize)
        finally:
            self.queue.remove_listener("job:progress", tell)

    def map_past_crash(self, fn: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        from mpqueue import RetryPolicy

        return self.queue.run(items, fn, retry=RetryPolicy(base_delay=0.0)).results

    def map_past_death(self, fn: Callable[[Any], Any], item: Any) -> None:
        self.map_past_crash(fn, [item])

    def close(self) -> None:
        self.queue.close()


class MPQueuePreload(MPQueue):
    """The same with workers that are forked from a process that has imported what they need."""

    name = "mpqueue, preload"
    configuration = "JobQueue(preload=[...]).run, otherwise as it is; the process that has imported is weighed too"
    questions = ("replacement",)

    def start(self, workers: int) -> None:
        import mpqueue

        self.queue = mpqueue.JobQueue(concurrency=workers, preload=list(PRELOADED))


class MPQueueMap(Contender):
    """`mpqueue.map`, on the warm pool that all its calls share."""

    name = "mpqueue.map"
    module = "mpqueue"
    statement = "from mpqueue import map"
    needs = "map"
    configuration = "mpqueue.map, chunksize left out"

    def start(self, workers: int) -> None:  # noqa: ARG002
        import mpqueue

        self.mpqueue = mpqueue

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:  # noqa: ARG002
        return self.mpqueue.map(fn, items, concurrency=self.workers)

    def each(
        self,
        fn: Callable[[Any], Any],
        items: Sequence[Any],
        chunksize: int,  # noqa: ARG002
        tell: Callable[[Any], None],
    ) -> None:
        for result in self.mpqueue.imap_unordered(fn, items, concurrency=self.workers):
            tell(result)


class MPQueuePool(Contender):
    """`mpqueue.Pool`, the one that can be put in the place of `multiprocessing.Pool`."""

    name = "mpqueue.Pool"
    module = "mpqueue"
    statement = "from mpqueue import Pool"
    needs = "Pool"
    configuration = "Pool.map, chunksize left out"
    instead_of = MPQueueMap.name

    def start(self, workers: int) -> None:
        import mpqueue

        self.pool = mpqueue.Pool(workers)

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:  # noqa: ARG002
        return self.pool.map(fn, items)

    def one(self, fn: Callable[[Any], Any], item: Any) -> Any:
        return self.pool.apply(fn, (item,))

    def each(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int, tell: Callable[[Any], None]) -> None:
        for result in self.pool.imap_unordered(fn, items, chunksize):
            tell(result)

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class MPQueueExecutor(Contender):
    """`mpqueue.Executor`: the counterpart of the executors of `concurrent.futures` and loky, call by call."""

    name = "mpqueue.Executor"
    module = "mpqueue"
    statement = "from mpqueue import Executor"
    needs = "Executor"
    configuration = "Executor.submit for one item; Executor.map"
    questions = ("one_item", "cold_start", "noop")

    def start(self, workers: int) -> None:
        import mpqueue

        self.pool = mpqueue.Executor(workers)

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:  # noqa: ARG002
        return list(self.pool.map(fn, items))

    def one(self, fn: Callable[[Any], Any], item: Any) -> Any:
        return self.pool.submit(fn, item).result()

    def close(self) -> None:
        self.pool.shutdown()


class MultiprocessingPool(Contender):
    """The standard library's pool."""

    name = "multiprocessing"
    module = "multiprocessing"
    statement = "from multiprocessing.pool import Pool"
    configuration = (
        "Pool.map with a chunksize (its default, 4 chunks a worker, for equal items); imap_unordered for each"
    )

    def start(self, workers: int) -> None:
        import multiprocessing

        self.pool = multiprocessing.Pool(workers)

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:
        return self.pool.map(fn, items, chunksize)

    def one(self, fn: Callable[[Any], Any], item: Any) -> Any:
        return self.pool.apply(fn, (item,))

    def each(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int, tell: Callable[[Any], None]) -> None:
        for result in self.pool.imap_unordered(fn, items, chunksize):
            tell(result)

    def map_past_death(self, fn: Callable[[Any], Any], item: Any) -> None:
        self.pool.apply_async(fn, (item,))  # of which nothing is heard any more
        self.pool.map(fn, [item], 1)

    def close(self) -> None:
        self.pool.terminate()
        self.pool.join()


class PreloadedPool(MultiprocessingPool):
    """The same with workers that are forked from a process that has imported what they need."""

    name = "multiprocessing, preload"
    configuration = "a Pool of the forkserver method, set_forkserver_preload([...])"
    questions = ("replacement",)

    def start(self, workers: int) -> None:
        import multiprocessing

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        self.pool = context.Pool(workers)


#: What is imported beforehand, by those that do.
PRELOADED = ("benchmarks.slow_import", "pandas", "sklearn.ensemble")

#: What the workers of `ForkedAnew` find in their memory, since they were forked when it was there.
inherited = None


def call_with_inherited(fn: Callable[[Any, Any], Any], item: Any) -> Any:
    return fn(inherited, item)


class ForkedAnew(MultiprocessingPool):
    """A pool that is forked when the big object is there already, and inherits it: new workers for each object."""

    name = "multiprocessing, forked anew"
    configuration = "the object in a global, then a new Pool with the fork method, then Pool.map"
    questions = ("closure",)

    def map_with(self, fn: Callable[[Any, Any], Any], big: Any, items: Sequence[Any], chunksize: int) -> list[Any]:
        import multiprocessing

        global inherited  # noqa: PLW0603 - a global is the way that fork has
        inherited = big
        try:
            with multiprocessing.get_context("fork").Pool(self.workers) as pool:
                return pool.map(partial(call_with_inherited, fn), items, chunksize)
        finally:
            inherited = None


class Futures(Contender):
    """The standard library's executor."""

    name = "concurrent.futures"
    module = "concurrent.futures"
    statement = "from concurrent.futures import ProcessPoolExecutor"
    configuration = "ProcessPoolExecutor.map with a chunksize; functions in a row chained by done-callbacks"

    def start(self, workers: int) -> None:
        from concurrent.futures import ProcessPoolExecutor

        self.executor = ProcessPoolExecutor(workers)

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:
        return list(self.executor.map(fn, items, chunksize=chunksize))

    def one(self, fn: Callable[[Any], Any], item: Any) -> Any:
        return self.executor.submit(fn, item).result()

    def through(self, fns: Sequence[Callable[[Any], Any]], items: Sequence[Any]) -> list[Any]:
        from concurrent.futures import Future

        results: list[Future[Any]] = [Future() for _ in items]

        def go_on(at: int, place: int, done: Future[Any]) -> None:
            if done.exception() is not None:
                results[at].set_exception(done.exception())
            elif place == len(fns):
                results[at].set_result(done.result())
            else:
                self.executor.submit(fns[place], done.result()).add_done_callback(partial(go_on, at, place + 1))

        for at, item in enumerate(items):
            self.executor.submit(fns[0], item).add_done_callback(partial(go_on, at, 1))
        return [result.result() for result in results]

    def each(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int, tell: Callable[[Any], None]) -> None:
        for result in self.executor.map(fn, items, chunksize=chunksize):
            tell(result)

    def map_past_death(self, fn: Callable[[Any], Any], item: Any) -> None:
        import contextlib
        from concurrent.futures.process import BrokenProcessPool

        with contextlib.suppress(BrokenProcessPool):
            self.map(fn, [item], 1)
        self.start(self.workers)
        self.map(fn, [item], 1)

    def close(self) -> None:
        self.executor.shutdown(cancel_futures=True)


class Loky(Futures):
    """loky's executor, on which mpqueue is built."""

    name = "loky"
    module = "loky"
    statement = "from loky import get_reusable_executor"
    configuration = "get_reusable_executor().map with a chunksize"

    def start(self, workers: int) -> None:
        import loky

        self.executor = loky.get_reusable_executor(workers)

    def close(self) -> None:
        self.executor.shutdown(kill_workers=True)


class Joblib(Contender):
    """joblib on its default backend, loky."""

    name = "joblib"
    module = "joblib"
    statement = "from joblib import Parallel, delayed"
    configuration = "with Parallel(n_jobs): batch_size='auto', arrays over 1 MB by memmap; generator_unordered for each"

    def start(self, workers: int) -> None:
        import joblib

        self.delayed = joblib.delayed
        self.parallel = joblib.Parallel(n_jobs=workers)
        self.parallel.__enter__()
        self.telling = joblib.Parallel(n_jobs=workers, return_as="generator_unordered")

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:  # noqa: ARG002
        call = self.delayed(fn)
        return self.parallel(call(item) for item in items)

    def map_with(
        self,
        fn: Callable[[Any, Any], Any],
        big: Any,
        items: Sequence[Any],
        chunksize: int,  # noqa: ARG002
    ) -> list[Any]:
        # as an argument, so that it is dumped to a memmap
        call = self.delayed(fn)
        return self.parallel(call(big, item) for item in items)

    def each(
        self,
        fn: Callable[[Any], Any],
        items: Sequence[Any],
        chunksize: int,  # noqa: ARG002
        tell: Callable[[Any], None],
    ) -> None:
        call = self.delayed(fn)
        for result in self.telling(call(item) for item in items):
            tell(result)

    def close(self) -> None:
        self.parallel.__exit__(None, None, None)
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(kill_workers=True)


class Held:
    """Something that mpire compares by identity, as an array can't be."""

    def __init__(self, value: Any) -> None:
        self.value = value


def call_with_held(fn: Callable[[Any, Any], Any], held: Held, item: Any) -> Any:
    return fn(held.value, item)


class Mpire(Contender):
    """mpire, with workers that are kept."""

    name = "mpire"
    module = "mpire"
    statement = "from mpire import WorkerPool"
    configuration = "WorkerPool(keep_alive=True).map, its own chunk size (64 chunks a worker); shared_objects"

    def start(self, workers: int) -> None:
        import mpire

        self.pool = mpire.WorkerPool(workers, keep_alive=True)
        self.shares = False

    def _share(self, held: Held | None) -> None:
        """Workers get what they share when they start."""
        self.pool.stop_and_join()
        self.pool.set_shared_objects(held)
        self.shares = held is not None

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:  # noqa: ARG002
        if self.shares:
            self._share(None)
        # Of tuples, and of all else that can be iterated over, it would make arguments.
        return self.pool.map(fn, [(item,) for item in items], concatenate_numpy_output=False)

    def one(self, fn: Callable[[Any], Any], item: Any) -> Any:
        return self.pool.apply(fn, (item,))

    def map_with(
        self,
        fn: Callable[[Any, Any], Any],
        big: Any,
        items: Sequence[Any],
        chunksize: int,  # noqa: ARG002
    ) -> list[Any]:
        self._share(Held(big))
        return self.pool.map(partial(call_with_held, fn), items, concatenate_numpy_output=False)

    def each(
        self,
        fn: Callable[[Any], Any],
        items: Sequence[Any],
        chunksize: int,  # noqa: ARG002
        tell: Callable[[Any], None],
    ) -> None:
        # In order: kept workers that have once served `map` can't serve `imap_unordered`.
        for result in self.pool.imap(fn, items):
            tell(result)

    def close(self) -> None:
        self.pool.terminate()


class Pebble(Contender):
    """pebble's process pool, which can time out items too."""

    name = "pebble"
    module = "pebble"
    statement = "from pebble import ProcessPool"
    configuration = "ProcessPool.map with a chunksize"

    def start(self, workers: int) -> None:
        import pebble

        self.pool = pebble.ProcessPool(max_workers=workers)

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:
        return list(self.pool.map(fn, items, chunksize=chunksize).result())

    def one(self, fn: Callable[[Any], Any], item: Any) -> Any:
        return self.pool.schedule(fn, args=(item,)).result()

    def each(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int, tell: Callable[[Any], None]) -> None:
        for result in self.pool.map(fn, items, chunksize=chunksize).result():
            tell(result)

    def map_past_crash(self, fn: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        import pebble

        left = self.pool.map(fn, items, chunksize=1).result()
        results = []
        while True:
            try:
                results.append(next(left))
            except StopIteration:
                return results
            except pebble.ProcessExpired:
                results.append(None)

    def close(self) -> None:
        self.pool.stop()
        self.pool.join()


class Dask(Contender):
    """Dask's local cluster of single-threaded processes."""

    name = "dask"
    module = "distributed"
    statement = "from distributed import Client, LocalCluster"
    configuration = (
        "LocalCluster of processes, Client.map and gather, maps of futures for functions in a row; arrays, and what "
        "all share, by scatter"
    )

    def start(self, workers: int) -> None:
        import dask
        import distributed

        dask.config.set({"distributed.admin.tick.limit": "1h", "distributed.comm.timeouts.connect": "60s"})
        self.distributed = distributed
        self.cluster = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        )
        self.client = distributed.Client(self.cluster)

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:  # noqa: ARG002
        if hasattr(items[0], "nbytes"):
            items = self.client.scatter(items, hash=False)
        return self.client.gather(self.client.map(fn, items, pure=False))

    def through(self, fns: Sequence[Callable[[Any], Any]], items: Sequence[Any]) -> list[Any]:
        found = self.client.scatter(items, hash=False) if hasattr(items[0], "nbytes") else items
        for fn in fns:
            found = self.client.map(fn, found, pure=False)
        return self.client.gather(found)

    def one(self, fn: Callable[[Any], Any], item: Any) -> Any:
        return self.client.submit(fn, item, pure=False).result()

    def map_with(
        self,
        fn: Callable[[Any, Any], Any],
        big: Any,
        items: Sequence[Any],
        chunksize: int,  # noqa: ARG002
    ) -> list[Any]:
        scattered = self.client.scatter(big, broadcast=True, hash=False)
        return self.client.gather(self.client.map(fn, [scattered] * len(items), items, pure=False))

    def each(
        self,
        fn: Callable[[Any], Any],
        items: Sequence[Any],
        chunksize: int,  # noqa: ARG002
        tell: Callable[[Any], None],
    ) -> None:
        for future in self.distributed.as_completed(self.client.map(fn, items, pure=False)):
            tell(future)

    def close(self) -> None:
        self.client.close()
        self.cluster.close()


class MPQueueOnDask(MPQueue):
    """A queue on the same cluster."""

    name = "mpqueue on dask"
    module = "distributed"
    configuration = "JobQueue(concurrency=None, backend=DaskBackend(cluster)).run, all options as they are"
    questions = ("backends",)

    def start(self, workers: int) -> None:
        import mpqueue
        from mpqueue.backends import DaskBackend

        self.dask = Dask()
        self.dask.start(workers)
        self.queue = mpqueue.JobQueue(concurrency=None, backend=DaskBackend(self.dask.cluster))

    def close(self) -> None:
        super().close()
        self.dask.close()


class DaskBag(Dask):
    """The same cluster with what Dask's documentation advises for many small things: a bag in a few partitions."""

    name = "dask.bag"
    module = "dask"
    statement = "import dask.bag"
    configuration = "bag.from_sequence(partition_size=chunksize).map on the same cluster"
    instead_of = Dask.name
    questions = ("noop", "item_count", "durations", "skewed", "drifting", "images", "scaling")

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:
        import dask.bag

        return list(dask.bag.from_sequence(items, partition_size=chunksize).map(fn).compute())


class Ray(Contender):
    """Ray: its drop-in pool where items are small, tasks where they are large."""

    name = "ray"
    module = "ray"
    statement = "import ray"
    configuration = (
        "ray.util.multiprocessing.Pool.map with a chunksize; a task each where chunksize is 1, one after the other for "
        "functions in a row; ray.put"
    )

    def start(self, workers: int, **options: Any) -> None:
        import os

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        import ray

        self.ray = ray
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL", **options)
        self.tasks: dict[Any, Any] = {}
        self.pool: Any = None

    def _pool(self) -> Any:
        if self.pool is None:
            from ray.util.multiprocessing import Pool

            self.pool = Pool(self.workers)
        return self.pool

    def _task(self, fn: Any) -> Any:
        if fn not in self.tasks:
            self.tasks[fn] = self.ray.remote(fn)
        return self.tasks[fn]

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:
        if chunksize > 1:
            return self._pool().map(fn, items, chunksize)
        task = self._task(fn)
        return self.ray.get([task.remote(item) for item in items])

    def through(self, fns: Sequence[Callable[[Any], Any]], items: Sequence[Any]) -> list[Any]:
        found = list(items)
        for fn in fns:
            task = self._task(fn)
            found = [task.remote(item) for item in found]
        return self.ray.get(found)

    def one(self, fn: Callable[[Any], Any], item: Any) -> Any:
        return self.ray.get(self._task(fn).remote(item))

    def map_with(self, fn: Callable[[Any, Any], Any], big: Any, items: Sequence[Any], chunksize: int) -> list[Any]:
        return self._batched((self.ray.put(big),), fn, items, chunksize)

    def _batched(self, shared: tuple[Any, ...], fn: Any, items: Sequence[Any], chunksize: int) -> list[Any]:
        task = self._task(run_batch)
        batches = [items[at : at + chunksize] for at in range(0, len(items), chunksize)]
        done = self.ray.get([task.remote(fn, batch, *shared) for batch in batches])
        return [result for batch in done for result in batch]

    def each(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int, tell: Callable[[Any], None]) -> None:
        for result in self._pool().imap_unordered(fn, items, chunksize):
            tell(result)

    def close(self) -> None:
        self.ray.shutdown()


def run_batch(fn: Any, batch: Sequence[Any], *shared: Any) -> list[Any]:
    return [fn(*shared, item) for item in batch]


class RayTasks(Ray):
    """Ray with a task for each item, however small."""

    name = "ray, a task each"
    configuration = "ray.get of a task for each item"
    questions = ("backends", "backend_arrays")

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:  # noqa: ARG002
        return super().map(fn, items, 1)


class MPQueueOnRay(MPQueue):
    """A queue on the same Ray."""

    name = "mpqueue on ray"
    module = "ray"
    configuration = (
        "JobQueue(concurrency=None, backend=RayBackend()).run, all options as they are; share for what all items use"
    )
    questions = ("backends", "backend_arrays")

    def start(self, workers: int) -> None:
        import mpqueue
        from mpqueue.backends import RayBackend

        self.engine = Ray()
        self.engine.start(workers)
        self.queue = mpqueue.JobQueue(concurrency=None, backend=RayBackend())
        self.share = mpqueue.share

    def map_with(self, fn: Callable[[Any, Any], Any], big: Any, items: Sequence[Any], chunksize: int) -> list[Any]:
        return self.map(partial(fn, self.share(big)), items, chunksize)

    def close(self) -> None:
        super().close()
        self.engine.close()


class RayBatched(Ray):
    """Ray with tasks over batches of items, batched by hand as its documentation advises."""

    name = "ray, batched by hand"
    configuration = "a task for each chunksize items, written by hand"
    instead_of = Ray.name
    questions = ("noop", "item_count", "durations", "skewed", "drifting", "tuned_chunks", "images", "scaling")

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:
        return self._batched((), fn, items, chunksize)


class BareLoop(Contender):
    """No pool at all: forked processes that each run every n-th item, and bring nothing home.

    What it says is not how long that took but the ideal: the CPU seconds that the items cost where all processes
    run at once, divided by the processes; or, where that is longer, the longest item.
    """

    name = "ideal"
    module = "multiprocessing"
    configuration = "CPU seconds of the items alone / workers, or the longest item"
    questions = ("durations", "skewed", "drifting", "images")
    #: Seconds that the last `map` would have taken.
    ideal = 0.0

    def start(self, workers: int) -> None:  # noqa: ARG002
        import multiprocessing

        self.context = multiprocessing.get_context("fork")

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any], chunksize: int) -> list[Any]:  # noqa: ARG002
        barrier = self.context.Barrier(self.workers)
        answers = self.context.SimpleQueue()
        processes = [
            self.context.Process(target=_run_bare, args=(fn, items[at :: self.workers], barrier, answers))
            for at in range(self.workers)
        ]
        for process in processes:
            process.start()
        told = [answers.get() for _ in processes]
        for process in processes:
            process.join()
        self.ideal = max(sum(cpu for cpu, _ in told) / self.workers, *(longest for _, longest in told))
        return list(items)


def _run_bare(fn: Any, items: Sequence[Any], barrier: Any, answers: Any) -> None:
    import time

    fn(items[0])
    barrier.wait()
    longest, long_at = 0.0, items.index(max(items))
    started = time.process_time()
    for item in items[:long_at]:
        fn(item)
    before = time.process_time()
    fn(items[long_at])
    longest = time.process_time() - before
    for item in items[long_at + 1 :]:
        fn(item)
    answers.put((time.process_time() - started, longest))


#: In the order in which they are shown.
ALL: tuple[type[Contender], ...] = (
    BareLoop,
    MPQueue,
    MPQueueMap,
    MPQueuePool,
    MPQueueExecutor,
    MPQueuePreload,
    MultiprocessingPool,
    PreloadedPool,
    ForkedAnew,
    Futures,
    Loky,
    Joblib,
    Mpire,
    Pebble,
    Dask,
    DaskBag,
    MPQueueOnDask,
    MPQueueOnRay,
    RayTasks,
    Ray,
    RayBatched,
)
BY_NAME = {contender.name: contender for contender in ALL}


def make(name: str, workers: int) -> Contender:
    """The contender of that name, started."""
    contender = BY_NAME[name]()
    contender.workers = workers
    contender.start(workers)
    return contender


def concerned(names: Sequence[str], question: str, *, quick: bool) -> list[str]:
    """Those of them that take part in a question; in a quick run without those that others stand in for."""
    found = [name for name in names if not (those := BY_NAME[name].questions) or question in those]
    left_out = {BY_NAME[name].instead_of for name in found} if quick else set()
    return [name for name in found if name not in left_out]


def is_here(name: str) -> bool:
    """Whether it can be imported here. Imports nothing but what it needs to be sure of."""
    import importlib.util

    contender = BY_NAME[name]
    if importlib.util.find_spec(contender.module.partition(".")[0]) is None:
        return False
    return not contender.needs or hasattr(importlib.import_module(contender.module), contender.needs)
