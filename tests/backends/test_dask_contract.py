"""The contract of all engines, held against Dask: a scheduler, nannies and workers, each a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import dask
import pytest
from distributed import Client

from mpqueue.backends import DaskBackend
from tests.contract.test_engines import *  # noqa: F403 - the tests themselves
from tests.support.dask_cluster import DaskCluster
from tests.support.engines import WORKERS, Engine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long(
        but=[
            "test_results_come_in_item_order_and_events_are_right",
            "test_big_items_handlers_and_results_travel",
            "test_what_is_shared_arrives",
            "test_a_result_that_takes_long_to_unpickle_holds_up_no_other_job",
            "test_an_item_that_always_kills_its_worker_fails_in_the_end",
            "test_a_time_limit_ends_the_item_or_is_refused",
            "test_setup_runs_once_a_worker_and_is_finished",
            "test_pause_reaches_a_chunk_that_runs_and_resume_goes_on",
            "test_cancel_with_kill_ends_what_runs_or_waits_for_it",
            "test_closing_at_once_leaves_nothing",
            "test_capture_output_works_or_is_refused",
            "test_it_refuses_what_its_page_says",
        ]
    ),
]


@pytest.fixture(scope="session")
def watcher(cluster: DaskCluster) -> Iterator[Client]:
    """Somebody else's connection. It asks nothing by itself: what it opened for that would stay open."""
    quiet = {"distributed.client.scheduler-info-interval": "10 hours"}
    with dask.config.set(quiet), Client(cluster.address, set_as_default=False) as client:
        yield client


@pytest.fixture
def engine(cluster: DaskCluster, watcher: Client) -> Iterator[Engine]:
    """The cluster, with all its workers there: a test before may have killed some. Nothing is left on it."""
    cluster.await_slots(WORKERS, watcher)
    yield Engine("dask", DaskBackend(cluster.address))
    cluster.check_is_clean(watcher)
    watcher.sync(_close_unused, watcher)


async def _close_unused(watcher: Client) -> None:
    """Close the connections that are kept for further questions: two at once have opened a second one."""
    watcher.rpc.collect()
