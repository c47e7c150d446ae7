"""Clusters that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed.utils import _offload_executor

from tests.support.dask_cluster import DaskCluster, dask_cluster
from tests.support.engines import WORKERS


@pytest.fixture(scope="session", autouse=True)
def _dask_s_own_threads() -> None:
    """Threads that Dask starts once in a process, and never ends."""
    _offload_executor.submit(int).result()


@pytest.fixture(autouse=True)
def _dask_s_own_files_and_haste(tmp_path: Path) -> Iterator[None]:
    """Where a cluster in this process writes. It dismisses a worker that is away 15 s after it was lost once."""
    settings = {"temporary-directory": str(tmp_path), "distributed.deploy.lost-worker-timeout": "10 minutes"}
    with dask.config.set(settings):
        yield


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A scheduler and two workers under nannies, each a process of its own."""
    with dask_cluster(tmp_path_factory.mktemp("dask"), WORKERS) as cluster:
        yield cluster
