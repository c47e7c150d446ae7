"""What a type checker says of whole programs: of names, sinks, policies, callbacks. Checked by mypy, never run."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping, Sequence
from typing import Any, assert_type

import mpqueue
import mpqueue.sinks
from mpqueue import (
    Executor,
    InternalError,
    ItemError,
    Job,
    JobItem,
    JobProgress,
    JobQueue,
    JobRun,
    RetryPolicy,
)
from mpqueue.backends import LokyBackend


def measure(text: str) -> int:
    return len(text)


class Table:
    """A sink that names its rows as the guide does."""

    def write(self, rows: list[dict[str, object]]) -> None: ...
    def close(self) -> None: ...


class Wide:
    """One that takes more kinds of rows, by another name."""

    def write(self, batch: Sequence[Mapping[str, Any]]) -> None: ...
    def close(self) -> None: ...


class Wrong:
    """No sink."""

    def write(self, rows: list[str]) -> None: ...
    def close(self) -> None: ...


def names_are_known(error: InternalError) -> None:
    assert_type(error.traceback, str)
    mpqueue.Jobqueue(3)  # type: ignore[attr-defined]
    assert_type(mpqueue.backends.LokyBackend, type[LokyBackend])
    mpqueue.errors.JobNotFoundError("text")
    mpqueue.otel.instrumnt()  # type: ignore[attr-defined]


def sinks_are_any_objects_with_the_two_methods(queue: JobQueue) -> None:
    queue.create_job("a", ["a"], measure, results=Table())
    queue.create_job("b", ["a"], measure, results=Wide())
    queue.create_job("c", ["a"], measure, results=mpqueue.sinks.jsonl("c.jsonl"))
    queue.create_job("d", ["a"], measure, results=Wrong())  # type: ignore[call-overload]


def policies_take_one_type_or_several() -> None:
    RetryPolicy(retry_on=OSError, give_up_on=(FileNotFoundError, KeyError))
    RetryPolicy(retry_on="OSError")  # type: ignore[arg-type]


def on_run(run: JobRun[str, int]) -> None:
    assert_type(run.job, Job[str, int])


def on_future(future: concurrent.futures.Future[Job[str, int]]) -> None:
    assert_type(future.result(), Job[str, int])


def on_other(run: JobRun[bytes, int]) -> None: ...


def callbacks_get_the_run(run: JobRun[str, int]) -> None:
    run.add_done_callback(on_run)
    run.add_done_callback(on_future)
    run.add_done_callback(lambda run: print(run.job.failures))
    run.add_done_callback(on_other)  # type: ignore[arg-type]


def futures_are_like_others(executor: Executor, runs: list[JobRun[str, int]]) -> None:
    for future in concurrent.futures.as_completed([executor.submit(measure, "a")]):
        assert_type(future.result(), int)
    for run in concurrent.futures.as_completed(runs):
        assert_type(run.result(), Job[str, int])
    concurrent.futures.wait(runs)


def items_of_events_and_errors_are_items(event: JobProgress, error: ItemError) -> None:
    assert_type(event.items["a.jpg"], JobItem)
    assert_type(event.items[0], JobItem)
    assert_type(event.items[:2], list[JobItem])
    print(error.item.label)
    print(error.item.lable)  # type: ignore[union-attr]


def last(job: Job[str], item: JobItem[str]) -> int | None:
    assert_type(job, Job[str, Any])
    assert_type(item.payload, str)
    return job.total
