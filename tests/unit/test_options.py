"""The options of a queue and of a job, and which of two levels wins."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest

import mpqueue
from mpqueue._declared import At, read
from mpqueue._options import (
    Concurrency,
    GivenOptions,
    JobOptions,
    QueueOptions,
    check_interpreter,
    check_platform,
    check_text,
    job_options,
    memory_limit,
    queue_options,
)
from mpqueue._os import process_facts
from mpqueue._os.process_handle import CAN_FORK, bury, end_at_once, fork_here
from mpqueue.retry import RetryPolicy
from tests.support.systems import LINUX_ONLY


def queue(
    concurrency: Concurrency = 3,
    max_retries: int | None = None,
    count_cpus: Callable[[], int] = lambda: 5,
    count_cores: Callable[[], int] | None = None,
    **given: Any,
) -> QueueOptions:
    asked = read(GivenOptions, At.QUEUE, "JobQueue", {"concurrency": concurrency, "max_retries": max_retries, **given})
    return queue_options(asked, count_cpus=count_cpus, count_cores=count_cores)


def job(of: QueueOptions, **given: Any) -> JobOptions:
    return job_options(of, read(GivenOptions, At.JOB, "create_job", given))


# -- what holds --------------------------------------------------------------------------------------------------------


def test_without_a_concurrency_the_cpus_are_counted() -> None:
    assert queue(None).concurrency == 5


def test_with_a_concurrency_nobody_counts_cpus() -> None:
    assert queue(2, count_cpus=lambda: pytest.fail("counted")).concurrency == 2


def test_the_cores_are_counted_where_that_is_asked_for() -> None:
    assert queue("physical", count_cores=lambda: 2).concurrency == 2
    assert not queue("physical", count_cores=lambda: 2).may_grow
    with pytest.raises(ValueError, match="expected a number of workers, or None for all that the engine has"):
        queue("physical")
    with pytest.raises(TypeError, match="expected a number of workers, 'physical' or None, got 'auto'"):
        queue("auto", count_cores=lambda: 2)  # type: ignore[arg-type]


def test_a_bare_max_retries_keeps_the_delays_of_the_level_above() -> None:
    patient = RetryPolicy(max_retries=2, base_delay=60, jitter=0.1, give_up_on=(KeyError,))
    kept = job(queue(retry=patient), max_retries=9).retry
    assert kept == RetryPolicy(max_retries=9, base_delay=60, jitter=0.1, give_up_on=(KeyError,))


def test_a_job_s_policy_replaces_the_queue_s_as_a_whole() -> None:
    assert job(queue(max_retries=9), retry=RetryPolicy(base_delay=1)).retry == RetryPolicy(base_delay=1)


class Sized(int, Enum):
    """Its text is not its number."""

    TWO = 2


class Shouted(str):
    """Its methods say something else."""

    __slots__ = ()

    def __str__(self) -> str:
        return "loud"

    __format__ = __repr__ = lambda self, *_: "loud"  # type: ignore[assignment]


def test_options_are_plain_whatever_class_a_program_gives_them() -> None:
    two: Any = Sized.TWO
    made = queue(
        two, two, per_worker={"items": two}, resources={Shouted("gpu"): two}, timeout=type("F", (float,), {})(2)
    )
    assert {type(value) for value in (made.concurrency, made.per_worker.items, *made.resources.values())} == {int}
    assert ([*map(type, made.resources)], type(made.timeout)) == ([str], float)
    options = job(made, seed=two, chunksize=two, concurrency=two)
    assert {type(value) for value in (options.seed, options.chunksize, options.max_lanes)} == {int}
    text = check_text("id", Shouted("a"))
    assert (type(text), text) == (str, "a")


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_cygwin_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="WSL"):
        check_platform("cygwin")


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_other_systems_are_not_refused(platform: str) -> None:
    check_platform(platform)


@pytest.mark.parametrize(
    "version",
    [
        "3.13.5 experimental free-threading build (main, Jun 11 2025, 15:36:57) [GCC 14.2.0]",
        "3.14.0 free-threading build (main, Oct  7 2025, 15:34:01) [GCC 14.2.0]",
    ],
)
def test_a_free_threaded_python_is_refused_and_the_one_to_use_is_named(version: str) -> None:
    with pytest.raises(NotImplementedError, match=r"python3\.14 instead of python3\.14t"):
        check_interpreter(version)


def test_a_queue_asks_which_python_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_interpreter, "__defaults__", ("3.14.0 free-threading build",))
    with pytest.raises(NotImplementedError, match="the GIL"):
        mpqueue.JobQueue()


# -- seeds -------------------------------------------------------------------------------------------------------------


def test_a_seed_is_kept_and_without_one_each_job_has_its_own() -> None:
    assert job(queue(), seed=0).seed == 0
    assert job(queue(), seed=2**200).seed == 2**200
    assert job(queue()).seed != job(queue()).seed


@pytest.mark.skipif(not CAN_FORK, reason="there are no forks")
def test_a_fork_draws_other_seeds() -> None:
    mine, its = os.pipe()
    if (child := fork_here()) == 0:
        os.write(its, str(job(queue()).seed).encode())
        end_at_once()
    bury(child)
    assert int(os.read(mine, 100)) != job(queue()).seed
    for end in (mine, its):
        os.close(end)


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (1_000_000, 1_000_000),
        (3_000_000_000, 3_000_000_000),
        ("123", 123),
        ("2GB", 2_000_000_000),
        ("2 gb", 2_000_000_000),
        ("2g", 2_000_000_000),
        ("1.5GiB", 3 << 29),
        ("512 MiB", 512 << 20),
        (" 10kB ", 10_000),
        ("7B", 7),
        ("1TiB", 1 << 40),
    ],
)
def test_a_limit_on_memory_is_bytes_or_a_text(given: Any, size: int) -> None:
    assert memory_limit("memory", given, "linux") == size


@pytest.mark.parametrize(
    "bad", ["", "GB", "2XB", "-2GB", "2 G B", "1e9", "nan", "inf", "2iB", "1.GB", "9" * 50, "٣GB", "0", "0.2B"]
)
def test_a_text_that_is_no_size_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="memory: expected"):
        memory_limit("memory", bad, "linux")


@pytest.mark.parametrize(("bad", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_a_number_that_is_no_size_is_refused(bad: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="memory: expected"):
        memory_limit("memory", bad, "linux")


def test_a_limit_on_memory_is_refused_where_nobody_can_look() -> None:
    with pytest.raises(NotImplementedError, match="darwin"):
        memory_limit("memory", "2GB", "darwin")


@LINUX_ONLY
def test_a_limit_on_memory_is_refused_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def tell_nothing(pid: int) -> Any:
        raise FileNotFoundError(pid)

    monkeypatch.setattr(process_facts, "MemoryGauge", tell_nothing)
    with pytest.raises(NotImplementedError, match=r"mount it .* or leave it out"):
        memory_limit("memory", "2GB")
