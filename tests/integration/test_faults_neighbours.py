"""The neighbours in the same chunk: whatever one item does, the others end as if nothing had happened."""

from __future__ import annotations

import sys
from types import FrameType
from typing import NoReturn

import pytest

from mpqueue import (
    ItemStatus,
    JobQueue,
    RemoteError,
    ResultPicklingError,
    RetryPolicy,
    WorkerCrashedError,
)
from tests.support import handlers as do
from tests.support.length import long
from tests.support.recorder import Recorder
from tests.support.strength import workers_of

pytestmark = pytest.mark.slow

COUNT = 400
CULPRIT = 217

CULPRITS: dict[str, tuple[do.Handler, type[BaseException], int]] = {
    "raises": (do.fail, ValueError, 2),
    "raises what can't travel": (do.raise_lock_holder, RemoteError, 2),
    "raises SystemExit": (do.sys_exit, RemoteError, 2),
    "raises StopIteration": (do.raise_stop_iteration, StopIteration, 2),
    "segfaults": (do.segfault, WorkerCrashedError, 2),
    "exits with 0": (do.exit_zero, WorkerCrashedError, 2),
    "is killed": (do.kill_self, WorkerCrashedError, 2),
    "returns a lock": (do.return_lock, ResultPicklingError, 1),
    "returns what can't be unpickled": (do.return_ununpicklable, ResultPicklingError, 1),
}

#: One of each kind of end, in each kind of chunk: what it does otherwise, the crash table tells in small.
EACH_KIND = ("raises", "segfaults", "returns what can't be unpickled")
#: None: as large as the queue likes them, growing from single items.
WAYS = [(1, COUNT), (2, None), (1, 1), (1, None), (2, 1), (2, COUNT)]
CASES = [
    pytest.param(how, *way, id=f"{how}-{way}", marks=pytest.mark.long if is_long else ())
    for how in CULPRITS
    for way in WAYS
    for is_long in [how not in EACH_KIND or way not in WAYS[:2]]
]


@pytest.mark.long(but=["segfaults-(1, 400)", "raises-(2, None)"])
@pytest.mark.parametrize(("how", "workers", "chunksize"), CASES)
def test_neighbours_of_an_item_that(how: str, workers: int, chunksize: int | None) -> None:
    bad, error, attempts = CULPRITS[how]
    with JobQueue(workers, retry=RetryPolicy(1, base_delay=0.01)) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(COUNT), do.only(CULPRIT, bad), chunksize=chunksize)
        recorder.check(job)
        assert len(workers_of(queue)) == workers
    culprit = job.items[CULPRIT]
    assert (culprit.status, type(culprit.exception), culprit.attempts) == ("failed", error, attempts)
    assert job.results == [None if item == CULPRIT else item for item in range(COUNT)]
    assert {item.attempts for item in job.items if item != culprit} == {1}
    assert all(item.history == [] for item in job.items if item != culprit)


def refuse_all(_frame: FrameType, _event: str, _argument: object) -> NoReturn:
    raise RuntimeError("nothing more may be called")


def leave_tracing(item: int) -> int:
    sys.settrace(refuse_all)
    return item


@pytest.mark.long(but=["400"])
@pytest.mark.parametrize("chunksize", [1, COUNT, None], ids=str)
def test_neighbours_of_an_item_that_leaves_a_function_that_traces(chunksize: int | None) -> None:
    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(range(COUNT), do.only(CULPRIT, leave_tracing), chunksize=chunksize)
    assert job.results == [*range(COUNT)]
    assert {item.attempts for item in job.items} == {1}


#: None: it may also end well, since it has broken nothing that its own result needs.
BREAK_PACKING: dict[str, tuple[do.Handler, type[BaseException]]] = {
    "returns what can't even be shown": (do.return_oddly_shown, ResultPicklingError),
    "raises what can't even be shown": (do.raise_odd_text, do.OddTextError),
    "lowers the recursion limit": (do.lower_recursion_limit, WorkerCrashedError),
    "takes the address space": (do.take_address_space, WorkerCrashedError),
    "replaces the picklers": (do.replace_picklers, WorkerCrashedError),
    "lowers the recursion limit when pickled": (
        do.return_made(do.WhenPickled, do.lower_recursion_limit),
        WorkerCrashedError,
    ),
    "replaces the picklers when pickled": (do.return_made(do.WhenPickled, do.replace_picklers), WorkerCrashedError),
}


@pytest.mark.long(
    but=["raises what can't even be shown", "takes the address space", "replaces the picklers when pickled"]
)
@pytest.mark.parametrize("how", BREAK_PACKING)
def test_finished_neighbours_of_an_item_that(how: str) -> None:
    bad, error = BREAK_PACKING[how]
    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(12), do.only(5, bad, do.return_parcel), chunksize=12)
        recorder.check(job)
        assert len(workers_of(queue)) == 1
    culprit = job.items[5]
    assert culprit.status is ItemStatus.COMPLETED or type(culprit.exception) is error
    assert [item.result for item in job.items if item != culprit] == [do.Parcel(at) for at in range(12) if at != 5]
    assert [item.attempts for item in job.items] == [1] * 12


@pytest.mark.long
@pytest.mark.parametrize("good", [do.succeed, long(do.return_parcel)], ids=lambda good: good.__name__)
def test_an_item_that_leaves_hardly_any_recursion_costs_no_other_item_or_job_anything(good: do.Handler) -> None:
    culprits = []
    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        for frames in range(2, 10):  # with each of them something else is the first that can't be done
            job = queue.run(range(60), do.only(30, do.leave_recursion(frames), good))
            later = queue.run(range(5), do.return_parcel)
            recorder.check(job)
            assert {item.id for item in job.items if item.error is not None} <= {30}
            assert later.results == [do.Parcel(at) for at in range(5)]
            culprits.append(type(job.items[30].exception))
            assert {item.attempts for item in job.items} == {1}
        assert len(workers_of(queue)) == 1
    # Where it is too low for where the item is, Python refuses the limit.
    assert set(culprits) <= {RecursionError, WorkerCrashedError, type(None)}
    assert WorkerCrashedError in culprits


@pytest.mark.long
def test_every_second_item_a_culprit_of_another_kind() -> None:
    kinds = list(CULPRITS.values())

    def handle(item: int) -> int:
        if item % 2:
            result: int = kinds[item % len(kinds)][0](item)
            return result
        return item

    with JobQueue(2, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(60), handle, chunksize=20)
        recorder.check(job)
        assert len(workers_of(queue)) == 2
    assert job.results[::2] == list(range(0, 60, 2))
    assert [type(item.exception) for item in job.items[1::2]] == [
        kinds[number % len(kinds)][1] for number in range(1, 60, 2)
    ]


def test_all_items_kill_their_worker() -> None:
    with JobQueue(2, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(6), do.kill_self)
        recorder.check(job)
        assert len(workers_of(queue)) == 2
    assert (job.failed, {item.attempts for item in job.items}) == (6, {1})
