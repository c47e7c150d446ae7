"""Failed tries: when the next one comes, what it counts, and what is written down."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from mpqueue._core.state.job_book import JobBook
from mpqueue.errors import SetupError
from mpqueue.retry import RetryPolicy
from tests.support.fake_lanes import FakeLanes, attempts, errors, fail, statuses, succeed
from tests.support.fake_worker import Outcome, Try


def begins(fleet: FakeLanes, job: JobBook, index: int = 0) -> list[float]:
    """When the item's tries begin, from now on."""
    moments: list[float] = []
    fleet.item_watchers.append(
        lambda chunk, lo, hi: moments.append(fleet.now) if index in chunk.indices[lo:hi] else None
    )
    return moments


def gaps(moments: list[float]) -> list[float]:
    return [round(later - earlier, 6) for earlier, later in pairwise(moments)]


@pytest.mark.holds(
    "seed: start: failed items are retried with exponential backoff",
    "seed: retries: after max_retries the item has failed",
)
def test_an_item_is_tried_again_after_two_four_and_eight_seconds(fleet: FakeLanes) -> None:
    job = fleet.job([fail()])
    moments = begins(fleet, job)
    fleet.run_all(job)
    assert gaps(moments) == [2.0, 4.0, 8.0]
    assert (statuses(job), attempts(job), job.retries) == (["failed"], [4], 3)
    assert [(event.name, event.item) for event in job.timings.events][-3:] == [("retry", 0)] * 3


def test_a_retry_that_is_due_goes_before_fresh_items(fleet: FakeLanes) -> None:
    job = fleet.started([fail(times=1), *[succeed(0.5)] * 10])
    fleet.run_until(2.5)
    assert statuses(job)[0] == "completed"
    assert job.completed == 5


class _NeverPolicy(RetryPolicy):
    """A user's policy with a mistake."""

    def delay(self, retry: int, rng: random.Random) -> float:
        return math.nan


def test_a_policy_that_gives_no_delay_fails_the_item_with_an_error_that_says_so(fleet: FakeLanes) -> None:
    job = fleet.run([fail(), succeed()], retry=_NeverPolicy())
    assert statuses(job) == ["failed", "completed"]
    assert attempts(job) == [1, 1]
    failure = job.table.failures[0]
    assert failure.shown.startswith("RuntimeError: retry policy _NeverPolicy: expected a delay")
    assert failure.error.__cause__ is job.table.history[0][0].exception


def test_a_policy_that_gives_no_delay_for_a_setup_fails_the_job_with_an_error_that_says_so(fleet: FakeLanes) -> None:
    job = fleet.run([succeed()], load=lambda lane, attempt: Try(0.0, Outcome.FAILURE), retry=_NeverPolicy())
    assert errors(job) == [SetupError]
    assert "retry policy _NeverPolicy" in str(job.table.failures[0].error)
