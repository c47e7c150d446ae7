"""What listeners get, and how it looks on the wire: camelCase, whole milliseconds, nothing that is unset."""

from __future__ import annotations

import json

import pytest

from mpqueue._core.state.item_table import Failure, make_table
from mpqueue._queue.job_items import Items, JobItem
from mpqueue.events import EVENT_NAMES, ItemRetry, JobFinished, JobProgress, JobStarted, milliseconds
from mpqueue.status import RETRY, JobStatus


def test_the_events_are_these() -> None:
    assert (
        frozenset({"job:started", "job:progress", "job:finished", "job:paused", "job:resumed", "item:retry"})
        == EVENT_NAMES
    )


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 0), (1.0, 1000), (0.0014, 1), (0.0016, 2), (1e9, 10**12)])
def test_the_wire_counts_whole_milliseconds(seconds: float, expected: int) -> None:
    assert milliseconds(seconds) == expected


def test_started_names_the_job() -> None:
    assert JobStarted("a").to_dict() == {"jobId": "a"}


def test_finished_carries_the_outcome() -> None:
    event = JobFinished("a", JobStatus.COMPLETED_WITH_ERRORS, 7, 2, 1.2345)
    assert event.to_dict() == {
        "jobId": "a",
        "status": "completed_with_errors",
        "completed": 7,
        "failed": 2,
        "duration": 1234,
    }


def test_progress_carries_the_counters_and_all_items() -> None:
    table = make_table([{"id": "x"}, {"id": "y"}, {"id": "z"}])
    table.complete([0], [{"alt_text": "a cat"}])
    table.fail_try(1, Failure(ValueError("no")), 1)
    table.fail(1, Failure(ValueError("no")))
    items = Items(table)
    event = JobProgress("a", JobStatus.PAUSED, 3, 1, 1, True, items, items[1])
    assert event.to_dict() == {
        "jobId": "a",
        "status": "paused",
        "total": 3,
        "completed": 1,
        "failed": 1,
        "paused": True,
        "items": [
            {"id": "x", "status": "completed", "result": {"alt_text": "a cat"}, "proposedAlt": "a cat"},
            {"id": "y", "status": "failed", "error": "no", "errorType": "ValueError"},
            {"id": "z", "status": "pending"},
        ],
    }
    json.dumps(event.to_dict())


def test_an_item_s_retry_says_when_and_why() -> None:
    table = make_table(["x"])
    table.fail_try(0, Failure(ValueError("no")), 1)
    table.status[0] = RETRY
    event = ItemRetry("a", JobItem(table, 0), 1, 2.0, "no", "ValueError")
    assert event.to_dict() == {
        "jobId": "a",
        "item": {"id": 0, "status": "retry", "error": "no", "errorType": "ValueError"},
        "attempt": 1,
        "delay": 2000,
        "error": "no",
        "errorType": "ValueError",
    }
