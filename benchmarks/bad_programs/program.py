"""What a bad program is, and the ways in which programs use a queue."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from mpqueue import Job, JobQueue

#: Workers of most programs: what the smallest machine has as CPUs.
WORKERS = 2


class Ran(NamedTuple):
    """A program has run: the job that its report is of, and how long its user waited."""

    job: Job[Any, Any]
    seconds: float
    alone: Job[Any, Any] | None = None  #: a job with the same handler on one worker, to compare with


@dataclass(frozen=True, slots=True)
class Program:
    """``bad`` is slow for a ``cause``, a rule by name, whose advice has ``fix`` in it; ``good`` follows that."""

    name: str
    cause: str
    fix: str
    bad: Callable[[], Ran]
    good: Callable[[], Ran] | None = None  #: None: what the advice saves can't be shown here
    also: tuple[str, ...] = ()  #: rules that are true of it too
    supply: int | None = None  #: bytes of memory that the machine is said to have


def spin(seconds: float) -> float:
    """Use so much CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


def warm(items: Iterable[Any], handler: Callable[..., Any], **options: Any) -> Ran:
    """A job on workers that are there, as in a program that keeps its queue."""
    of_queue = {name: options.pop(name) for name in list(options) if name in OF_QUEUE}
    listener = options.pop("listener", None)
    with JobQueue(of_queue.pop("workers", WORKERS), **of_queue) as queue:
        met: set[int | None] = set()
        module = getattr(handler, "func", handler).__module__
        while len(met) < queue.concurrency:
            met.update(queue.run([module] * (2 * queue.concurrency), who_imports, chunksize=1).results)
        if listener is not None:
            queue.on("job:progress", listener)
        return run(queue, items, handler, **options)


def cold(items: Iterable[Any], handler: Callable[..., Any], *, workers: int = WORKERS, **options: Any) -> Ran:
    """A job on a queue that is opened for it, as in a script that does one thing."""
    started = time.perf_counter()
    with JobQueue(workers) as queue:
        ran = run(queue, items, handler, **options)
    return ran._replace(seconds=time.perf_counter() - started)


def run(queue: JobQueue, items: Iterable[Any], handler: Callable[..., Any], **options: Any) -> Ran:
    """A job on that queue."""
    started = time.perf_counter()
    job = queue.run(items, handler, **options)
    return Ran(job, time.perf_counter() - started)


#: Options of the queue, among those of a job.
OF_QUEUE = {"workers", "preload", "per_worker", "progress_interval"}


def who_imports(module: str) -> int:
    """The worker, once it has imported that; it takes long enough that another one gets the next item."""
    importlib.import_module(module)
    time.sleep(0.01)
    return os.getpid()
