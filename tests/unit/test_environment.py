"""What a worker's environment says about threads."""

from __future__ import annotations

import pytest

from mpqueue._engine.environment import THREAD_VARIABLES, worker_environment
from mpqueue._engine.protocol import LaneSettings


@pytest.mark.parametrize(("cpus", "workers", "share"), [(8, 2, "4"), (8, 3, "2"), (2, 8, "1"), (1, 1, "1")])
def test_the_cpus_are_shared_by_the_workers(cpus: int, workers: int, share: str) -> None:
    found = worker_environment(LaneSettings(workers), cpus, "cookie", {})
    assert {found[name] for name in THREAD_VARIABLES} == {share}


def test_what_the_user_has_set_stands() -> None:
    found = worker_environment(LaneSettings(2), 8, "cookie", {"OMP_NUM_THREADS": "3"})
    assert "OMP_NUM_THREADS" not in found
    assert found["MKL_NUM_THREADS"] == "4"


def test_threads_per_worker_goes_before_what_the_user_has_set() -> None:
    found = worker_environment(LaneSettings(2, threads_per_worker=5), 8, "cookie", {"OMP_NUM_THREADS": "3"})
    assert {found[name] for name in THREAD_VARIABLES} == {"5"}


def test_loky_can_read_the_limit_that_it_is_given() -> None:
    found = worker_environment(LaneSettings(1), 1, "cookie", {})
    assert int(float(found["LOKY_MAX_MEMORY_LEAK_SIZE"])) == 10**18
    assert found["MPQUEUE_LANE"] == "cookie"
