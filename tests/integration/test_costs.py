"""What an item costs: CPU seconds and the peak of memory, where they can be known."""

from __future__ import annotations

import os
import platform
import resource
import threading
from typing import Any

import pytest

from mpqueue import JobQueue, RetryPolicy, current_item
from tests.support import handlers as do
from tests.support import hogs
from tests.support.hogs import MB
from tests.support.results import results_of
from tests.support.spinning import spin

pytestmark = pytest.mark.slow

AT_ONCE = RetryPolicy(max_retries=1, base_delay=0.0)


def test_an_item_tells_its_cpu_seconds_and_not_those_that_it_slept() -> None:
    def handle(item: float) -> float:
        threading.Event().wait(0.1)
        return spin(item)

    with JobQueue(1) as queue:
        job = queue.run([0.05, 0.0], handle)
    busy, idle = job.items
    assert busy.cpu_seconds is not None
    assert busy.cpu_seconds >= 0.999 * results_of(job)[0]
    assert idle.cpu_seconds is not None
    assert idle.cpu_seconds < idle.elapsed


def spin_longer(_: Any) -> None:
    spin(0.05)


def test_the_pickling_of_what_an_item_leaves_is_not_its_time() -> None:
    """Neither of an error nor of a result; and a traceback is made of the error, too."""

    def handle(item: str) -> Any:
        spin(0.01)
        if item == "fails":
            raise do.ErrorWhenPickled(spin_longer)
        return do.WhenPickled(spin_longer)

    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(["fails", "fails", "is well", "is well"], handle)
    assert job.failed == 2
    for item in job.items:
        assert item.cpu_seconds is not None
        assert 0.0099 <= item.cpu_seconds < 0.05
        assert item.cpu_seconds <= item.elapsed + 0.0001
    assert job.report().figures.sums.packing > 4 * 0.05


def test_the_peak_is_that_of_the_item_and_not_of_what_ran_before() -> None:
    with JobQueue(1) as queue:
        job = queue.run([150, 1, 50], hogs.spin_then_use)
    large, small, middle = (item.peak_memory for item in job.items)
    assert large is not None
    assert small is not None
    assert middle is not None
    assert large >= small + 100 * MB
    assert middle >= small + 25 * MB
    assert large >= middle + 75 * MB


def test_the_peak_of_tiny_items_is_not_known_their_cpu_seconds_are() -> None:
    with JobQueue(1) as queue:
        job = queue.run(range(2000), do.double)
    assert all(item.peak_memory is None for item in job.items if item.elapsed < 0.005)
    assert all(item.cpu_seconds is not None and item.cpu_seconds >= 0 for item in job.items)


def test_costs_are_those_of_the_last_try_and_of_none_that_crashed() -> None:
    def handle(item: str) -> None:
        hogs.spin_then_use(50)
        if item == "crashes" and current_item().attempt == 2:
            os._exit(1)
        if item != "good":
            raise ValueError(item)

    with JobQueue(1, retry=AT_ONCE) as queue:
        job = queue.run(["good", "crashes", "fails"], handle)
    good, crashes, fails = job.items
    assert good.peak_memory is not None
    assert fails.peak_memory is not None
    assert (crashes.cpu_seconds, crashes.peak_memory) == (None, None)


def test_an_item_that_keeps_the_interpreter_until_it_ends_has_costs_too() -> None:
    """The chunk timer, whose turn it has long been, comes to run in the moment when the item has just ended."""

    def handle(exponent: int) -> Any:
        return 3**exponent > 0  # no point in it where another thread could go on

    with JobQueue(1) as queue:
        job = queue.run([2_000_000] * 2, handle)
    assert all(item.peak_memory is not None for item in job.items)
    assert all(item.cpu_seconds is not None and item.cpu_seconds > 0 for item in job.items)


def test_items_that_did_not_run_cost_nothing_that_is_known() -> None:
    with JobQueue(1) as queue:
        job = queue.create_job("job", [1, 2], do.succeed)
        assert [(item.cpu_seconds, item.peak_memory) for item in job.items] == [(None, None)] * 2
        queue.start("job").result(300)
        (record, _) = job.to_records(["id", "cpu_seconds", "peak_memory"])
        assert record["cpu_seconds"] >= 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep what they like")
def test_the_next_item_finds_the_memory_of_the_one_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Dask's nannies tune the allocator of their own process too, and what is tuned is left alone.
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)

    def use(_: int) -> int:
        """New pages that three buffers of 10 MB took: half of what a worker keeps, as there may be more to keep."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        [bytearray(10 * MB) for _ in range(3)].clear()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with JobQueue(1) as queue:
        first, *others = results_of(queue.run(range(5), use))
    assert first > 7_000
    assert min(others) < 1_000
