"""The contract of all engines, held against Dask: a scheduler, nannies and workers, each a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed import Client

from mpqueue._engines.dask.dask_backend import DaskBackend
from tests.contract.test_engines import *  # noqa: F403 - the tests themselves
from tests.support.dask_cluster import DaskCluster
from tests.support.engines import WORKERS, Engine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def watcher(cluster: DaskCluster) -> Iterator[Client]:
    """Somebody else's connection."""
    with Client(cluster.address, set_as_default=False) as client:
        yield client


@pytest.fixture
def engine(cluster: DaskCluster, watcher: Client) -> Iterator[Engine]:
    """The cluster, with all its workers there: a test before may have killed some. Nothing is left on it."""
    cluster.await_slots(WORKERS, watcher)
    yield Engine("dask", DaskBackend(cluster.address))
    cluster.check_is_clean(watcher)
