"""Clusters that the tests of a session share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed.utils import _offload_executor

from tests.support.dask_cluster import DaskCluster, dask_cluster
from tests.support.engines import WORKERS
from tests.support.waiting import wait_until


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


@pytest.fixture(scope="session")
def far_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """One Dask worker of as many threads, which has no memory in common with this program."""
    with dask_cluster(tmp_path_factory.mktemp("far"), 1, threads=WORKERS, is_far=True) as cluster:
        yield cluster


@pytest.fixture(params=["here", "elsewhere"])
def either_cluster(request: pytest.FixtureRequest) -> DaskCluster:
    """Each of the two: on the program's machine, or as on another one."""
    cluster: DaskCluster = request.getfixturevalue("cluster" if request.param == "here" else "far_cluster")
    return cluster


@pytest.fixture(scope="package")
def _ray() -> Iterator[None]:
    """Not for longer than these tests: what is forked after it would have Ray's threads, and connections are kept."""
    from tests.support.ray_local import local_ray  # slow to import

    with local_ray(WORKERS):
        yield


@pytest.fixture
def ray_node(_ray: None) -> Iterator[None]:
    """A Ray that this process is connected to, with as many CPUs; after the test no actor of ours may be left."""
    from tests.support.ray_local import actors_here

    yield
    wait_until(lambda: not actors_here(), what="all actors to be gone")


@pytest.fixture
def short_folder() -> Iterator[str]:
    """A folder for Ray, with a name so short that sockets can be in it."""
    folder = tempfile.mkdtemp(prefix="r-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
