"""The results of a job whose every item has completed."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from mpqueue import Job

R = TypeVar("R")


def results_of(job: Job[Any, R]) -> list[R]:
    """The results, none of which is missing."""
    assert job.completed == job.total
    return cast("list[R]", job.results)
