"""``current_item().rng``: the same numbers for any number of workers, any order and any try."""

from __future__ import annotations

import os
import random
import signal
import sys
from typing import Any

import numpy as np
import pytest

from mpqueue import Job, JobQueue, RetryPolicy, current_item
from mpqueue._worker.chance import random_numbers

SEED = 12345
NO_WAIT = RetryPolicy(2, base_delay=0)

pytestmark = pytest.mark.slow


def draw(item: Any) -> list[float]:
    return [current_item().rng.random() for _ in range(3)]


def numpy_s_own(count: int) -> list[list[float]]:
    """What NumPy's way to seed parallel streams gives."""
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(SEED).spawn(count)]
    return [[stream.random() for _ in range(3)] for stream in streams]


def run(items: Any, handler: Any, *, workers: int = 1, **options: Any) -> Job:
    with JobQueue(workers, retry=NO_WAIT) as queue:
        return queue.run(items, handler, **options)


@pytest.mark.parametrize(("workers", "chunksize"), [(1, None), (3, 1), (2, 7), (2, 100)])
def test_the_same_numbers_for_any_workers_and_chunks(workers: int, chunksize: int | None) -> None:
    job = run(range(100), draw, workers=workers, chunksize=chunksize, seed=SEED)
    assert job.results == numpy_s_own(100)


def test_a_try_after_a_failure_a_crash_or_a_reset_draws_the_same_numbers() -> None:
    def draw_and_fail(item: int) -> list[float]:
        drawn = draw(item)
        if item % 3 == 1 and current_item().attempt == 1:
            raise ValueError(item)
        if item == 5 and current_item().attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 7:
            raise ValueError(item)
        return drawn

    with JobQueue(2, retry=NO_WAIT) as queue:
        job = queue.run(range(20), draw_and_fail, seed=SEED)
    assert job.failed == 1
    expected: list[Any] = numpy_s_own(20)
    expected[7] = None
    assert job.results == expected
    assert job.retries > 5


def test_failed_items_that_are_run_again_draw_the_same_numbers(tmp_path: Any) -> None:
    def draw_if_allowed(item: int) -> list[float]:
        drawn = draw(item)
        if item == 2 and not (tmp_path / "allowed").exists():
            raise ValueError
        return drawn

    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(range(4), draw_if_allowed, id="job", seed=SEED)
        assert job.failed == 1
        (tmp_path / "allowed").touch()
        queue.retry_failed("job").result()
    assert job.results == numpy_s_own(4)


def test_without_a_seed_the_job_tells_which_it_had() -> None:
    first = run(range(5), draw)
    assert first.results != run(range(5), draw).results
    assert run(range(5), draw, seed=first.seed).results == first.results


def test_within_an_item_the_numbers_go_on_and_no_two_items_share_any() -> None:
    job = run(range(50), draw, workers=2)
    assert len({number for drawn in job.results for number in drawn or ()}) == 150


def test_setup_draws_the_same_numbers_in_every_worker_and_none_of_the_items() -> None:
    def first_number() -> float:
        return current_item().rng.random()

    def handle(item: int, state: float) -> tuple[float, float]:
        return state, current_item().rng.random()

    job = run(range(30), handle, workers=2, setup=first_number, seed=SEED, chunksize=1)
    states = {result[0] for result in job.results if result}
    assert len(states) == 1
    assert not states & {result[1] for result in job.results if result}


def test_coroutines_draw_the_numbers_of_their_item() -> None:
    async def draw_later(item: int) -> list[float]:
        return draw(item)

    def awaitable(item: int) -> Any:
        return draw_later(item)

    assert run(range(10), draw_later, seed=SEED).results == numpy_s_own(10)
    assert run(range(10), awaitable, seed=SEED).results == numpy_s_own(10)


@pytest.fixture
def no_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)


@pytest.mark.usefixtures("no_numpy")
def test_without_numpy_the_numbers_are_the_standard_library_s() -> None:
    one, again, other = (random_numbers(SEED, index) for index in (3, 3, 4))
    assert isinstance(one, random.Random)
    drawn = one.random()
    assert drawn == again.random() != other.random()
    assert random_numbers(SEED, None).random() not in (drawn, random_numbers(SEED + 1, 3).random())
