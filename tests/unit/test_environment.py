"""What a worker's environment says about threads and memory."""

from __future__ import annotations

import pytest

from mpqueue._engines.loky.environment import KEPT_MEMORY, KEPT_PART, worker_environment
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._wire.means import THREAD_VARIABLES


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


def malloc_variables(settings: LaneSettings, inherited: dict[str, str]) -> dict[str, int]:
    found = worker_environment(settings, 1, "cookie", inherited)
    return {name: int(value) for name, value in found.items() if name.startswith("MALLOC_")}


def test_freed_memory_is_kept_for_the_next_item() -> None:
    assert malloc_variables(LaneSettings(1), {}) == {
        "MALLOC_TRIM_THRESHOLD_": 64 << 20,
        "MALLOC_MMAP_THRESHOLD_": 32 << 20,
    }


@pytest.mark.parametrize(
    "inherited", [{"MALLOC_ARENA_MAX": "1"}, {"GLIBC_TUNABLES": "glibc.pthread.rseq=0:glibc.malloc.trim_threshold=1"}]
)
def test_a_malloc_that_the_user_has_tuned_is_left_alone(inherited: dict[str, str]) -> None:
    assert not malloc_variables(LaneSettings(1), inherited)


def test_other_tunables_have_nothing_to_do_with_it() -> None:
    assert malloc_variables(LaneSettings(1), {"GLIBC_TUNABLES": "glibc.pthread.rseq=0"})


def test_workers_with_a_low_limit_keep_nothing() -> None:
    least = KEPT_PART * KEPT_MEMORY
    assert not malloc_variables(LaneSettings(1, max_memory=least - 1), {})
    assert malloc_variables(LaneSettings(1, max_memory=least), {})
