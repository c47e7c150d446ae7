"""The results of a job whose every item has completed, and what an iterator of results gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

from mpqueue import Job

R = TypeVar("R")


def results_of(job: Job[Any, R]) -> list[R]:
    """The results, none of which is missing."""
    assert job.completed == job.total
    return cast("list[R]", job.results)


def outcomes(results: Iterator[Any]) -> list[Any]:
    """All results, and the text of what was raised in the place of one."""
    found: list[Any] = []
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            return found
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
