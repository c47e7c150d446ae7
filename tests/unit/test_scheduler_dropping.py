"""Single items of a job that are cancelled, and failed items that are run again one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mpqueue._core.commands import AnnounceItems, AnnounceStarted, Command
from mpqueue._core.messages import Message
from mpqueue._core.state.job_book import JobBook
from mpqueue.errors import ItemCancelledError, JobStateError, StageError
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.support.auditor import audited
from tests.support.fake_lanes import FakeLanes, attempts, begun, fail, statuses, succeed

NO_RETRY = RetryPolicy(max_retries=0)


def errors(job: JobBook) -> dict[int, type[BaseException]]:
    """The types of the errors, by item."""
    return {index: type(failure.error) for index, failure in job.table.failures.items()}


def test_they_are_announced_together(fleet: FakeLanes) -> None:
    told: list[AnnounceItems] = []

    def see(message: Message, commands: list[Command]) -> None:
        told.extend(one for one in commands if isinstance(one, AnnounceItems))

    job = fleet.started([succeed(1.0)] * 5)
    fleet.run_until(0.5)
    fleet.watchers.append(see)
    fleet.drop(job, 4, 2, 3)
    assert [(list(one.indices), one.failed) for one in told] == [([2, 3, 4], frozenset({2, 3, 4}))]


def test_one_behind_a_slow_one_comes_back_and_the_slow_one_runs_on(fleet: FakeLanes) -> None:
    job = fleet.started([succeed(100.0), succeed(), succeed()], chunksize=3)
    fleet.run_until(1.0)
    fleet.drop(job, 1, kill=True)
    fleet.run_until(1.1)
    assert errors(job) == {1: ItemCancelledError}
    fleet.drop(job, 0)  # it has begun, and may complete
    fleet.run_until_over(job)
    assert (statuses(job), attempts(job)) == (["completed", "failed", "completed"], [1, 0, 1])
    assert begun(fleet).count(0) == 1, "its worker was not killed for another item"


def test_without_kill_what_runs_may_complete_and_is_not_tried_again(fleet: FakeLanes) -> None:
    job = fleet.started([succeed(2.0), fail(2.0)], chunksize=1)
    fleet.run_until(1.0)
    fleet.drop(job, 0)
    fleet.run_until(3.0)
    fleet.drop(job, 1)
    fleet.run_until_over(job)
    assert (statuses(job), attempts(job)) == (["completed", "failed"], [1, 1])
    assert errors(job)[1] is not ItemCancelledError, "it failed by itself"


def test_those_of_a_job_that_has_not_started_fail_when_it_does(fleet: FakeLanes) -> None:
    order: list[str] = []

    def see(message: Message, commands: list[Command]) -> None:
        order.extend(type(one).__name__ for one in commands if isinstance(one, AnnounceStarted | AnnounceItems))

    fleet.watchers.append(see)
    job = fleet.job([succeed()] * 3)
    fleet.drop(job, 0, 2)
    assert (statuses(job), job.failed) == (["pending"] * 3, 0)
    fleet.start(job)
    assert (order[:2], job.waiting) == (["AnnounceStarted", "AnnounceItems"], 1)
    fleet.run_until_over(job)
    assert (statuses(job), job.failed, begun(fleet)) == (["failed", "completed", "failed"], 2, [1])


@pytest.mark.parametrize(("fails", "left"), [(1, "completed"), (2, "pending")])
def test_cancelled_items_count_for_no_limit_of_failures(fleet: FakeLanes, fails: int, left: str) -> None:
    items = [fail(1.0), succeed(1.0), *[fail(1.0)] * fails, succeed(1.0)]
    job = fleet.started(items, max_failures=1, retry=NO_RETRY, chunksize=1, max_lanes=1)
    fleet.run_until(0.5)
    fleet.drop(job, 0, 1)
    fleet.run_until_over(job)
    assert statuses(job) == ["failed"] * (2 + fails) + [left]
    assert (job.stopped_why is None) == (fails == 1)


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_an_input_is_cancelled_with_all_that_comes_of_it(ordered: bool, kill: bool) -> None:
    fleet = audited(2)
    given = [replace(succeed(1.0), yields=(succeed(3.0),) * 3) for _ in range(3)]
    head = fleet.stages(given, [None, None], ordered=ordered)
    first, second = head.family[1:]
    fleet.start(head)
    fleet.run_while(lambda: second.completed < 1)
    fleet.drop(head, 0, kill=kill)
    fleet.run_until_over(head)
    assert (statuses(head), errors(head)) == (["failed", "completed", "completed"], {0: ItemCancelledError})
    assert (first.completed, first.failed) == (3, 0)
    assert second.failed >= 1
    assert all(isinstance(failure.error, ItemCancelledError) for failure in second.table.failures.values())
    assert first.status is JobStatus.COMPLETED


def test_what_an_input_brings_after_it_was_cancelled_does_not_run() -> None:
    fleet = audited(1)
    head = fleet.stages([replace(succeed(5.0), returns=succeed(1.0)), replace(succeed(5.0), returns=fail())],
                        [None, None], retry=NO_RETRY)  # fmt: skip
    second = head.family[2]
    fleet.start(head)
    fleet.run_until(1.0)
    fleet.drop(head.family[1], 0)  # a stage's item stands for its input
    fleet.run_until_over(head)
    assert errors(head) == {0: ItemCancelledError, 1: StageError}
    assert len(begun(fleet, second)) == 1, "the other input's"
    assert (second.completed, second.failed) == (0, 2)


def test_a_stage_that_has_ended_says_nothing_more_when_an_input_is_cancelled() -> None:
    fleet = audited(1)
    given = [replace(succeed(1.0), returns=succeed(5.0)) for _ in range(3)]
    head = fleet.stages(given, [None, None], chunksize=1)
    first, second = head.family[1:]
    fleet.start(head)
    fleet.run_while(lambda: not second.lanes)
    fleet.advance(0.5)
    fleet.cancel(head)  # what the second stage runs may end
    assert (first.status, second.status) == (JobStatus.CANCELLED, JobStatus.RUNNING)
    fleet.drop(head, 1, 2)
    assert (first.completed, first.failed) == (1, 0)
    fleet.run_until_over(head)
    assert [job.status for job in head.family] == [JobStatus.CANCELLED] * 3


def test_only_the_named_failures_run_again(fleet: FakeLanes) -> None:
    job = fleet.run([fail(0.5)] * 3 + [succeed()], retry=NO_RETRY)
    with pytest.raises(JobStateError, match="expected failed items to retry, got item 3, which is completed"):
        fleet.retry_failed(job, [2, 3])
    assert job.status is JobStatus.COMPLETED_WITH_ERRORS
    fleet.retry_failed(job, [2, 0])
    assert (attempts(job)[:3], list(job.table.elapsed)[:3]) == ([0, 1, 0], [0.0, 0.5, 0.0])
    fleet.run_until_over(job)
    assert [len(job.table.history.get(index, ())) for index in range(4)] == [2, 1, 2, 0]
    assert (job.completed, job.failed, job.status) == (1, 3, JobStatus.COMPLETED_WITH_ERRORS)
