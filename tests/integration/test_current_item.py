"""``current_item()``: what a handler can know of the item that it runs, and say about it."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from typing import Any

import pytest

from mpqueue import JobQueue, RetryPolicy, current_item
from tests.support.results import results_of
from tests.support.this_system import KILL
from tests.support.waiting import Gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


@pytest.mark.parametrize("chunksize", [1, 7, 100])
def test_current_item_is_right_for_each_of_many_tiny_items(chunksize: int) -> None:
    with JobQueue(2) as queue:
        job = queue.run(range(1000), lambda item: (current_item().id, current_item().attempt), chunksize=chunksize)
    assert job.results == [(number, 1) for number in range(1000)]


def test_worker_s_number_is_below_concurrency_and_stable_over_restarts(gate: Gate) -> None:
    def handle(item: int) -> tuple[int, int]:
        if item < 2:
            gate.pass_through(item)
        elif current_item().attempt == 1:
            os.kill(os.getpid(), KILL)
        return current_item().worker, os.getpid()

    with JobQueue(2, retry=RetryPolicy(1, base_delay=0)) as queue:
        queue.create_job("job", range(12), handle, chunksize=1)
        run = queue.start("job")
        gate.wait_for(0, 1)
        gate.open()
        results = results_of(run.result())
    assert {worker for worker, _ in results} == {0, 1}
    numbers: dict[int, set[int]] = {}
    for worker, pid in results:
        numbers.setdefault(pid, set()).add(worker)
    assert all(len(found) == 1 for found in numbers.values())
    assert len(numbers) > 2


def test_current_item_works_in_threads_and_coroutines_of_the_handler() -> None:
    def handle(item: str) -> list[Any]:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(current_item().id))
        thread.start()
        thread.join()
        return found

    async def handle_later(item: str) -> Any:
        await asyncio.sleep(0)
        return current_item().id

    with JobQueue(1) as queue:
        assert queue.run(["a", "b"], handle).results == [[0], [1]]
        assert queue.run(["a", "b"], handle_later).results == [0, 1]


def test_current_item_raises_where_no_handler_runs() -> None:
    with pytest.raises(RuntimeError, match="expected to be called inside a handler or setup"):
        current_item()


def test_report_takes_fractions_and_refuses_anything_else() -> None:
    def handle(item: Any) -> str:
        try:
            current_item().report(item)
        except (TypeError, ValueError) as error:
            return type(error).__name__
        return "taken"

    fractions = [0, 0.5, 1, True, -0.1, 1.1, math.nan, math.inf, "half", None]
    with JobQueue(1) as queue:
        results = queue.run(fractions, handle).results
    assert results[:4] == ["taken"] * 4
    assert results[4:] == ["ValueError"] * 5 + ["TypeError"]
