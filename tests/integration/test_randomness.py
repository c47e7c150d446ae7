"""``current_item().rng``: the same numbers for any number of workers, any order and any try."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from typing import Any

import numpy as np
import pytest

import mpqueue
from mpqueue import Job, JobQueue, RetryPolicy, current_item
from mpqueue.testing import InlinePool
from tests.support.results import results_of

SEED = 12345
Drawn = list[list[float]]
NO_WAIT = RetryPolicy(2, base_delay=0)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_pool_ends", "forked_workers")]


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


# --- map and its kin, Pool, Executor --------------------------------------------------------------------------------


def fails_at_first(item: int) -> list[float]:
    """Draws in every try; one item raises at its first, and one kills its worker."""
    drawn = draw(item)
    if current_item().attempt == 1 and item == 3:
        raise ValueError(item)
    if current_item().attempt == 1 and item == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return drawn


async def awaited(*args: Any, **options: Any) -> list[Any]:
    found: list[Any] = await mpqueue.amap(*args, **options)
    return found


CALLS: dict[str, Any] = {
    "map": mpqueue.map,
    "starmap": lambda fn, items, **options: mpqueue.starmap(fn, zip(items, strict=True), **options),
    "imap": lambda *args, **options: list(mpqueue.imap(*args, **options)),
    "imap_unordered": lambda *args, **options: list(mpqueue.imap_unordered(*args, **options)),
    "amap": lambda *args, **options: asyncio.run(awaited(*args, **options)),
}


def test_map_and_its_kin_draw_what_a_job_with_that_seed_draws() -> None:
    assert mpqueue.map(draw, range(50), seed=SEED, concurrency=1, chunksize=50) == numpy_s_own(50)
    assert mpqueue.map(fails_at_first, range(50), seed=SEED, concurrency=2, chunksize=1) == numpy_s_own(50)
    for name, call in CALLS.items():
        found = call(draw, range(50), seed=SEED, concurrency=2)
        assert (found if name != "imap_unordered" else sorted(found)) == (
            numpy_s_own(50) if name != "imap_unordered" else sorted(numpy_s_own(50))
        )


def test_a_map_without_a_seed_draws_others_each_time() -> None:
    assert mpqueue.map(draw, range(5)) != mpqueue.map(draw, range(5))


@pytest.mark.parametrize("seed", [-1, 1.5, "one", True])
def test_a_seed_that_is_no_whole_number_from_zero_up_is_refused(seed: Any) -> None:
    for call in CALLS.values():
        with pytest.raises((TypeError, ValueError), match="seed"):
            call(draw, [1, 2], seed=seed)
    for pool in (mpqueue.Pool, mpqueue.Executor):
        with pytest.raises((TypeError, ValueError), match="seed"):
            pool(1, seed=seed)


def draw_in_pool(pool: mpqueue.Pool) -> list[Drawn]:
    """Four calls of four kinds, and single calls between them."""
    first = pool.apply(draw, (0,))
    mapped, iterated = pool.map(draw, range(20)), list(pool.imap(draw, range(20), chunksize=3))
    second = pool.apply(draw, (0,))
    return [mapped, iterated, pool.starmap(draw, zip(range(20), strict=True)), [first, second]]


def test_calls_of_a_pool_draw_the_same_each_time_and_no_two_share_any() -> None:
    with mpqueue.Pool(1, seed=SEED) as pool:
        found = draw_in_pool(pool)
    with mpqueue.Pool(3, seed=SEED) as pool:
        assert draw_in_pool(pool) == found
    assert found[0] == numpy_s_own(20), "the first map draws what mpqueue.map draws"
    assert len({number for call in found for drawn in call for number in drawn}) == 3 * 62


def test_calls_of_an_executor_draw_by_their_place() -> None:
    with mpqueue.Executor(2, seed=SEED) as executor:
        futures = [executor.submit(draw, number) for number in range(5)]
        mapped = list(executor.map(draw, range(15)))
    assert [future.result() for future in futures] + mapped == numpy_s_own(20)


# --- without NumPy --------------------------------------------------------------------------------------------------


@pytest.fixture
def no_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)


@pytest.mark.usefixtures("no_numpy")
def test_without_numpy_the_numbers_are_the_standard_library_s() -> None:
    def draw_one(_: int) -> tuple[bool, float]:
        numbers: Any = current_item().rng
        return isinstance(numbers, random.Random), numbers.random()

    with JobQueue(1, backend=InlinePool()) as queue:
        drawn, again, other = (results_of(queue.run(range(4), draw_one, seed=seed)) for seed in (SEED, SEED, SEED + 1))
    assert drawn == again
    assert all(is_a_random for is_a_random, _ in drawn)
    assert len({number for _, number in drawn + other}) == 8
