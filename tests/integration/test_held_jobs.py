"""One `Job` for one job, as long as its queue holds it; and nothing of it longer than somebody holds it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpqueue import JobNotFoundError, JobQueue
from mpqueue.testing import InlinePool
from tests.support.handlers import succeed
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("forked_workers")


class Result:
    """Something that can be seen to go."""


def make_result(_: object) -> Result:
    return Result()


@pytest.fixture
def no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_job_is_the_same_object_each_time() -> None:
    with JobQueue(1, backend=InlinePool()) as queue:
        job = queue.create_job("job", ["a"], succeed)
        run = queue.start("job")
        assert queue.get_job("job") is job
        assert queue.jobs() == [job] == [run.job] == [run.result(300)] == [queue.load_job("job")]
        queue.clear_job("job")
        assert queue.get_job("job") is None
        again = queue.create_job("job", ["a"], succeed)
        assert again is not job
        assert queue.get_job("job") is again
    assert queue.get_job("job") is again


def test_a_job_of_the_journal_is_the_same_object_while_somebody_holds_it(path: Path) -> None:
    with JobQueue(1, backend=InlinePool(), journal=path) as queue:
        queue.run(["a", "b"], succeed, id="job")
    with JobQueue(1, backend=InlinePool(), journal=path) as queue:
        job = queue.load_job("job")
        assert queue.get_job("job") is job
        assert queue.jobs() == [job]
        queue.clear_job("job")
        with pytest.raises(JobNotFoundError):
            queue.load_job("job")
        assert job.results == ["a", "b"], "it was read before"
        assert queue.create_job("job", ["a", "b"], succeed) is not job


@pytest.mark.slow
@pytest.mark.usefixtures("no_collections")
def test_results_go_with_the_last_who_holds_them_and_wait_for_no_collection() -> None:
    with JobQueue(1) as queue:
        run = queue.start(queue.create_job("job", ["a"], make_result).id)
        job = run.result(300)
        result = weakref.ref(job.items[0].result or run)
        queue.run(["a"], succeed)  # what the threads of the queue did last is something else
        queue.clear_job("job")
        assert isinstance(job.results[0], Result), "readable while it is held"
        del run
        assert result() is not None
        del job
        wait_until(lambda: result() is None, what="the result is gone")


@pytest.mark.usefixtures("no_collections")
def test_results_that_a_journal_gave_are_held_by_those_who_look_at_them(path: Path) -> None:
    with JobQueue(1, backend=InlinePool(), journal=path) as queue:
        queue.run(["a"], make_result, id="job")
    with JobQueue(1, backend=InlinePool(), journal=path) as queue:
        for job in (queue.load_job("job"), queue.create_job("job", ["a"], make_result)):
            results = job.results
            result = weakref.ref(results[0] or queue)
            assert result() is not None
            del results
            assert result() is None
