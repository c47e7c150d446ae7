"""Thousands of workers and one coordinator, which takes its time for each message: who waits for whom."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from mpqueue._core.commands import Capabilities
from mpqueue._core.messages import ChunkReported, ChunkSent, Message
from mpqueue._core.rules.chunking import LONG_LIMIT, SHARE
from tests.support.cluster import Cluster

pytestmark = pytest.mark.slow

#: Seconds of an item on average, and that a message takes to arrive.
ITEM, LATENCY = 0.05, 0.001
#: An engine whose chunks cost so much that few lanes show what ten thousand would.
DEAR = Capabilities(chunk_cost=6e-3)


def service(message: Message, taken: float) -> float:
    """The same each time, so that a history is."""
    return DEAR.chunk_cost / 2 if isinstance(message, ChunkReported | ChunkSent) else 1e-5


def cluster_of(lanes: int, engine: Capabilities = DEAR) -> Cluster:
    return Cluster(lanes, latency=LATENCY, service=service, engine=engine)


def even(count: int) -> list[float]:
    return [ITEM] * count


def uneven(count: int) -> list[float]:
    rng = random.Random(1)
    return [rng.lognormvariate(math.log(ITEM) - 0.5, 1.0) for _ in range(count)]


@pytest.mark.parametrize(("items", "least"), [(even, 0.95), (uneven, 0.92)])
def test_workers_are_busy_and_the_coordinator_is_not(items: Callable[[int], list[float]], least: float) -> None:
    """From the first item to the last one, of a job of 35 s."""
    lanes = 64
    cluster = cluster_of(lanes)
    job = cluster.work(items(lanes * 700))
    cluster.start(job)
    cluster.run_until_over(job)
    assert job.completed == job.total
    assert cluster.utilisation > least
    assert cluster.busy < 0.5


def test_with_chunks_as_long_as_a_few_workers_have_them_the_coordinator_would_be_the_limit() -> None:
    lanes = 128
    cluster = cluster_of(lanes, DEAR._replace(chunk_cost=0.0))
    job = cluster.work(even(lanes * 15))
    cluster.start(job)
    cluster.run_until_over(job)
    assert cluster.utilisation < 0.2
    assert cluster.busy > 0.95


def test_a_pause_ends_long_chunks_between_two_items() -> None:
    lanes = 128
    cluster = cluster_of(lanes)
    job = cluster.work(even(lanes * 250))
    cluster.start(job)
    cluster.run_until(10.0)
    assert cluster.books.aim > 2.0, "a chunk takes longer than the pause may"
    cluster.pause(job)
    cluster.run_until(11.0)
    done = job.completed
    assert not job.lanes
    cluster.run_until(20.0)
    assert job.completed == done
    cluster.resume(job)
    cluster.run_until_over(job)
    assert job.completed == job.total


def test_a_job_that_comes_later_has_half_of_the_lanes_after_one_chunk() -> None:
    lanes = 128
    cluster = cluster_of(lanes)
    first, later = cluster.work(even(lanes * 800)), cluster.work(even(lanes * 800))
    cluster.start(first)
    cluster.run_until(10.0)
    cluster.start(later)
    cluster.run_until(10.0 + 1.5 * LONG_LIMIT * cluster.books.aim)
    assert first.lanes_held == pytest.approx(lanes / 2, rel=0.05)
    assert later.lanes_held == pytest.approx(lanes / 2, rel=0.05)
    before = first.completed, later.completed
    cluster.run_until(50.0)
    gained = first.completed - before[0], later.completed - before[1]
    assert gained[0] == pytest.approx(gained[1], rel=0.1)


def test_behind_one_long_item_nothing_is_left_when_the_others_are_idle() -> None:
    lanes = 128
    items = even(lanes * 200)
    items[lanes * 100] = 60.0
    cluster = cluster_of(lanes)
    job = cluster.work(items)
    cluster.start(job)
    cluster.run_until(10.0 + 3 * cluster.books.aim)
    assert job.completed == job.total - 1
    cluster.run_until_over(job)
    assert job.completed == job.total


def test_the_coordinator_has_as_many_chunks_a_second_however_many_lanes_there_are() -> None:
    for lanes in (25, 100):
        cluster = cluster_of(lanes)
        job = cluster.work(even(lanes * 400))
        cluster.start(job)
        cluster.run_until(5.0)
        before = cluster.counts[ChunkSent]
        cluster.run_until(15.0)
        assert (cluster.counts[ChunkSent] - before) / 10 * DEAR.chunk_cost == pytest.approx(SHARE, rel=0.15)
