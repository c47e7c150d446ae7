"""Arrays that travel through shared segments: whose they are, how long they live, and what is filled again."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from mpqueue import JobQueue, RetryPolicy, current_item
from tests.support.results import results_of
from tests.support.systems import LINUX_ONLY, not_on_windows
from tests.support.this_system import KILL

pytestmark = pytest.mark.usefixtures("forked_workers")

#: Numbers in an array: 800 kB, far more than goes through the pipe.
COUNT = 100_000


def array(fill: float) -> Any:
    return np.full(COUNT, fill)


def change(item: Any) -> Any:
    """Change the array and return it."""
    item += 1
    return item


@pytest.mark.holds("promise: Data does not change")
def test_arrays_arrive_writable_and_are_nobody_else_s() -> None:
    items = [array(fill) for fill in range(6)]
    with JobQueue(2) as queue:
        results = results_of(queue.run(items, change))
    assert [result.flags.writeable for result in results] == [True] * 6
    results[0] += 10
    assert [(result.min(), result.max()) for result in results] == [(11, 11), *[(n + 1, n + 1) for n in range(1, 6)]]
    assert [item[0] for item in items] == list(range(6)), "what a handler changes is its own"


def test_results_are_valid_when_the_queue_is_closed_and_more_has_been_run() -> None:
    with JobQueue(2) as queue:
        kept = results_of(queue.run([array(fill) for fill in range(8)], change))
        for _ in range(4):
            results_of(queue.run([array(-1)] * 8, change))
    assert [(result.min(), result.max()) for result in kept] == [(fill + 1, fill + 1) for fill in range(8)]


@pytest.mark.holds("promise: Data does not change")
def test_an_array_that_was_changed_in_place_arrives_as_it_is_now() -> None:
    item = array(0)
    with JobQueue(1) as queue:
        for turn in range(5):
            item[:] = turn
            assert queue.run([item], np.max).results == [turn]


def test_an_array_outlives_the_death_of_the_worker_that_had_it() -> None:
    def handle(item: Any) -> float:
        if item[0] == 3 and current_item().attempt == 1:
            item[:] = -1
            os.kill(os.getpid(), KILL)
        return float(item.sum())

    with JobQueue(2, retry=RetryPolicy(base_delay=0.0)) as queue:
        assert queue.run([array(fill) for fill in range(10)], handle).results == [COUNT * fill for fill in range(10)]


# -- a handler's own ---------------------------------------------------------------------------------------------------


def closed_over(table: Any) -> Callable[[int], float]:
    return lambda item: float(table[item])


@pytest.mark.holds("promise: Data does not change")
@not_on_windows("a segment is filled once")
def test_handlers_with_fresh_tables_find_their_own_in_what_others_were_in() -> None:
    with JobQueue(2) as queue:
        for turn in range(6):
            job = queue.run(range(20), closed_over(np.arange(COUNT) + turn))
            assert job.results == [item + turn for item in range(20)]
            queue.clear_job(job.id)
            del job


@LINUX_ONLY  # elsewhere the worker has a copy, and the segment is free
def test_a_worker_that_keeps_a_handler_s_table_keeps_what_was_in_it() -> None:
    def keep(table: Any, item: int) -> float:
        import builtins

        kept = builtins.__dict__.setdefault("kept_tables", [])
        kept.append(table)
        return float(kept[0].sum())

    with JobQueue(1) as queue:
        for turn in range(1, 5):
            job = queue.run([0], partial(keep, array(turn)))
            assert job.results == [COUNT]
            queue.clear_job(job.id)
            del job


def test_the_table_of_a_worker_that_was_killed_is_not_filled_again() -> None:
    table = array(7)

    def handle(item: int) -> float:
        if item and current_item().attempt == 1:
            os.kill(os.getpid(), KILL)
        return float(table[item])

    with JobQueue(1, retry=RetryPolicy(base_delay=0.0)) as queue:
        for turn in range(7, 10):
            table[:] = turn
            job = queue.run([0, 1], handle)
            assert job.results == [turn, turn]
            queue.clear_job(job.id)
            del job
