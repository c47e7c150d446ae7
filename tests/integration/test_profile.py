"""``job.profile`` of jobs that real workers ran: each line that took time is there, the heavier one first."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import ItemStatus, JobQueue
from tests.support.spinning import spin

pytestmark = pytest.mark.slow

BIG = bytes(1 << 20)
#: Where the worker's own code is.
PACKAGE = str(Path(mpqueue.__file__).parent)


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    """With one worker."""
    with JobQueue(1, max_retries=0) as queue:
        yield queue


def line(function: Callable[..., Any], below: int) -> tuple[str, int]:
    """So many lines below the ``def`` of a function."""
    return function.__qualname__, function.__code__.co_firstlineno + below


def of_lines(profile: Any) -> dict[tuple[str, int], float]:
    """Seconds of each line, with all that it called, the heaviest first."""
    found = {(one.frame.function, one.frame.line): one.total for one in profile.lines()}
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def two_lines(item: str) -> None:
    for _ in range(10):  # now and then yet another thread comes before the one that looks
        sum(range(3_000_000))  # holds the global lock, so that no other thread can look
    for _ in range(1000):
        hashlib.sha256(BIG)  # lets go of it
    spin(0.2)  # longer than the time between two looks, ten a second
    if item == "bad":
        raise ValueError(item)


@pytest.mark.long
def test_python_and_c_code_are_named_by_their_lines_also_of_items_that_fail(queue: JobQueue, tmp_path: Path) -> None:
    job = queue.run(["good", "bad"], two_lines, profile=True)
    assert [item.status for item in job.items] == [ItemStatus.COMPLETED, ItemStatus.FAILED]
    profile = job.profile
    assert profile is not None
    found = of_lines(profile)
    summed, hashed, spun = (line(two_lines, below) for below in (2, 4, 5))
    assert found.keys() >= {summed, hashed, spun}
    assert min(found[summed], found[hashed]) > profile.seconds / 20
    assert all(stack[0].function == "two_lines" for stack in profile.stacks if stack[0].file), "nothing of the worker"
    assert profile.seconds == pytest.approx(job.report().figures.sums.handling, rel=0.2)
    assert [*profile.workers] == [0]
    assert {*profile.items} == {0, 1}

    written = json.loads(profile.to_speedscope(tmp_path / "profile.json").read_text())
    assert [each["name"] for each in written["profiles"]][:2] == ["all workers", "worker 0"]
    assert f"two_lines (test_profile.py:{summed[1]})" in profile.to_collapsed(tmp_path / "stacks.txt").read_text()
    assert "Where the handlers were" in str(job.report())
    assert "flame-data" in job.report().to_html()


async def wait_and_work(_: int) -> None:
    await asyncio.sleep(0.4)
    await asyncio.gather(work())


async def work() -> None:
    spin(0.4)


def test_coroutines_are_where_they_wait_and_where_they_work(queue: JobQueue) -> None:
    profile = queue.run(range(2), wait_and_work, profile=True).profile
    assert profile is not None
    found = of_lines(profile)
    assert found.keys() >= {line(wait_and_work, 1), line(wait_and_work, 2), line(work, 1)}
    assert not any(frame.file.startswith(PACKAGE) for stack in profile.stacks for frame in stack), (
        "nothing of the worker"
    )
    # While a loop starts or ends it may be seen in neither of them.
    of_ours = [stack for stack in profile.stacks if __file__ in {frame.file for frame in stack}]
    assert all(stack[0].function == "wait_and_work" for stack in of_ours)


def has_sampler(_: int) -> bool:
    spin(0.05)
    return any(frame.f_code.co_filename.endswith("sampler.py") for frame in sys._current_frames().values())


def test_a_job_that_is_not_profiled_has_none() -> None:
    with JobQueue(1) as queue:
        job = queue.run([1], has_sampler)
        assert (job.results, job.profile) == ([False], None)
        page = job.report().to_html()
        assert "id='flame" not in page
        assert "<script" not in page
        job = queue.run([1], has_sampler, profile=True, id="profiled")
        assert job.results == [True]
        none: list[int] = []
        short = queue.run(none, has_sampler, profile=True).profile
        assert short is not None
        assert not short.stacks
        with pytest.raises(TypeError, match="profile: expected True or False, got 1"):
            queue.create_job("odd", [1], has_sampler, profile=1)  # type: ignore[call-overload]


def double(item: int) -> int:
    spin(0.1)
    return 2 * item


@pytest.mark.long
def test_stages_have_profiles_each_and_one_together(queue: JobQueue) -> None:
    job = queue.run_stages(range(2), [double, has_sampler], id="staged", profile=True)
    stage = queue.get_job("staged/double")
    assert stage is not None
    whole, first = job.profile, stage.profile
    assert whole is not None
    assert first is not None
    assert of_lines(whole).keys() >= {line(double, 1), line(has_sampler, 1)}
    assert line(has_sampler, 1) not in of_lines(first)
