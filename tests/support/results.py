"""The results of a job whose every item has completed, what an iterator of results gives, and what was warned of."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mpqueue import Job, JobQueue
from tests.support.handlers import succeed

if TYPE_CHECKING:
    import pytest

R = TypeVar("R")


def results_of(job: Job[Any, R]) -> list[R]:
    """The results, none of which is missing."""
    assert job.completed == job.total
    return cast("list[R]", job.results)


def errors_in_place(results: Iterable[Any]) -> list[Any]:
    """All results, and each error, whether it was raised in the place of a result or is one."""
    if not isinstance(results, Iterator):
        return [*results]
    found: list[Any] = []
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            return found
        except Exception as error:
            found.append(error)


def outcomes(results: Iterable[Any]) -> list[Any]:
    """All results, and the text of what was raised in the place of one."""
    found = errors_in_place(results)
    return [f"{type(each).__name__}: {each}" if isinstance(each, Exception) else each for each in found]


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings and errors that were logged since the last time."""
    found = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return found


def check_nothing_created(queue: JobQueue) -> None:
    """What was refused has left no job, and its id may be used."""
    assert queue.jobs() == []
    assert queue.get_job("job") is None
    assert queue.get_stats().total == 0
    assert queue.run(["a"], succeed, id="job").results == ["a"]
    queue.clear_job("job")
