"""Programs whose workers come and go, or are too many or too few."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from benchmarks.bad_programs.program import WORKERS, Program, Ran, cold, run, spin, warm
from mpqueue import JobQueue, RetryPolicy, current_item


def spin_20_ms(number: int) -> int:
    """20 ms of work."""
    spin(0.02)
    return number


def spin_150_ms(number: int) -> int:
    """150 ms of work."""
    spin(0.15)
    return number


def import_and_work(number: int) -> int:
    """Imports at its first call what takes long to import."""
    import benchmarks.bad_programs.heavy_module  # noqa: F401

    spin(0.004)
    return number


def import_in_handler() -> Ran:
    """The handler imports a heavy library in its body."""
    return warm(range(60), import_and_work)


def imported_once() -> Ran:
    """Workers are forked from a process that has imported it."""
    return warm(range(60), import_and_work, preload=["benchmarks.bad_programs.heavy_module"])


def too_many_workers() -> Ran:
    """Twelve workers for two CPUs, for a handler that computes."""
    return cold(range(60), spin_20_ms, workers=6 * WORKERS)


def as_many_as_cpus() -> Ran:
    """One for each CPU."""
    return cold(range(60), spin_20_ms)


def queue_for_each() -> Ran:
    """Each of three small jobs opens a queue for itself."""
    started = time.perf_counter()
    for _ in range(3):
        ran = cold(range(30), spin_20_ms)
    return ran._replace(seconds=time.perf_counter() - started)


def one_queue() -> Ran:
    """One queue for all three."""
    started = time.perf_counter()
    with JobQueue(WORKERS) as queue:
        for _ in range(3):
            ran = run(queue, range(30), spin_20_ms)
    return ran._replace(seconds=time.perf_counter() - started)


def new_worker_for_each() -> Ran:
    """``per_worker={"items": 1}``, for fear of a leak."""
    return warm(range(12), spin_150_ms, per_worker={"items": 1})


def workers_stay() -> Ran:
    """Workers are replaced after more items."""
    return warm(range(12), spin_150_ms, per_worker={"items": 1000})


def crash_at_first(number: int) -> int:
    """A library ends the process, now and then."""
    spin(0.02)
    if number % 5 == 0 and current_item().attempt == 1:
        os._exit(7)
    return number


def workers_die() -> Ran:
    """Every fifth item ends its worker once."""
    return warm(range(40), crash_at_first, retry=RetryPolicy(3, base_delay=0.0))


def workers_live() -> Ran:
    """None does."""
    return warm(range(40), spin_20_ms)


def load_model() -> str:
    """What takes long, in each worker and each job."""
    spin(0.4)
    return "model"


def ask_model(number: int, model: str) -> int:
    """A little work."""
    spin(0.005)
    return number + len(model)


def setup_for_each_job() -> Ran:
    """Three small jobs with one model, each of which loads it in its setup."""
    return _three_jobs(ask_model, setup=load_model)


_loaded: list[str] = []


def ask_kept_model(number: int) -> int:
    """The model is a global of the module: loaded once in each worker."""
    if not _loaded:
        _loaded.append(load_model())
    return ask_model(number, _loaded[0])


def model_is_kept() -> Ran:
    """The worker keeps the model for all three jobs."""
    return _three_jobs(ask_kept_model)


def _three_jobs(handler: Callable[..., Any], **options: Any) -> Ran:
    with JobQueue(WORKERS) as queue:
        run(queue, range(8), spin_20_ms)
        for _ in range(3):
            ran = run(queue, range(30), handler, **options)
        return ran


def one_worker() -> Ran:
    """A queue of one worker on a machine that has more CPUs."""
    return warm(range(60), spin_20_ms, workers=1)


def all_cpus() -> Ran:
    """One for each CPU."""
    return warm(range(60), spin_20_ms, workers=None)


PROGRAMS = (
    Program("import_in_handler", "first items", "preload", import_in_handler, imported_once),
    Program(
        "too_many_workers", "too many workers", "2 workers do as much", too_many_workers, as_many_as_cpus, ("loading",)
    ),
    Program("queue_for_each", "cold start", "keep the queue open", queue_for_each, one_queue, ("loading",)),
    Program("new_worker_for_each", "replaced workers", "'items'", new_worker_for_each, workers_stay),
    Program("workers_die", "replaced workers", "item.history", workers_die, workers_live),
    Program("setup_for_each_job", "setup", "a global of a module", setup_for_each_job, model_is_kept),
    Program("one_worker", "unused CPUs", "JobQueue(2)", one_worker, all_cpus),
)
