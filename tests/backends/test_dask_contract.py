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

pytestmark = pytest.mark.slow


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
