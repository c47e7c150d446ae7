"""The results of a job whose every item has completed, and what an iterator of results gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

from mpqueue import Job

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
