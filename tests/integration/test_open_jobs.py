"""Jobs that get more items while they run: from threads, listeners and handlers, until they are sealed."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue, RetryPolicy, current_item
from mpqueue.errors import ItemPicklingError, JobFullError, JobStateError, QueueClosedError, ResultPicklingError
from mpqueue.status import JobStatus
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.usefixtures("forked_workers")

NOW = RetryPolicy(max_retries=3, base_delay=0.0)


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    with JobQueue(2, retry=NOW) as made:
        yield made


def split(number: int) -> int:
    """A number brings its halves along: from n come 2 n - 1 items in all."""
    if number > 1:
        current_item().add([number // 2])
        current_item().add([number - number // 2])
    return number


@pytest.mark.slow
def test_it_ends_when_it_is_sealed_and_nothing_is_left(queue: JobQueue) -> None:
    job = queue.open_job("j", handler=do.double)
    run = queue.start("j")
    assert queue.add_items("j", [1, 2]) == 2
    wait_until(lambda: job.completed == 2)
    assert (job.sealed, job.status, run.done()) == (False, JobStatus.RUNNING, False)
    assert queue.add_items("j", iter("ab")) == 2
    queue.seal("j")
    queue.seal("j")
    assert run.result().results == [2, 4, "aa", "bb"]
    assert (job.sealed, job.total, [item.id for item in job.items]) == (True, 4, [0, 1, 2, 3])
    with pytest.raises(JobStateError, match="expected an open job to add items to, got one that is completed"):
        queue.add_items("j", [3])


def test_items_may_come_before_it_starts_and_with_it(queue: JobQueue) -> None:
    queue.open_job("j", [1], do.double)
    queue.add_items("j", [2])
    queue.seal("j")
    with pytest.raises(JobStateError, match="got one that is sealed"):
        queue.add_items("j", [3])
    assert queue.start("j").result().results == [2, 4]
    queue.open_job("empty", handler=do.double)
    queue.seal("empty")
    assert queue.start("empty").result().status is JobStatus.COMPLETED


@pytest.mark.slow
@pytest.mark.parametrize("chunksize", [None, 1, 50])
def test_handlers_add_items_with_their_results(queue: JobQueue, chunksize: int | None) -> None:
    heard = Recorder(queue)
    queue.open_job("j", [300], split, chunksize=chunksize)
    queue.seal("j")
    job = queue.start("j").result()
    assert (job.total, job.completed, sum(number == 1 for number in job.results)) == (599, 599, 300)
    heard.check(job)
    assert [told.completed for told in heard.of("job:progress")] == [*range(1, 600)]


@pytest.mark.parametrize("fault", ["raises", "dies"])
def test_a_try_that_fails_adds_nothing(queue: JobQueue, fault: str, tmp_path: Path) -> None:
    queue.open_job("j", [2], partial(fail_first, tmp_path / "failed", fault))
    queue.seal("j")
    job = queue.start("j").result()
    assert (job.total, job.completed, job.items[0].attempts) == (3, 3, 2)


def fail_first(failed: Path, fault: str, number: int) -> Any:
    split(number)
    if number == 2 and not failed.exists():
        failed.touch()
        if fault == "raises":
            raise ValueError("no")
        do.kill_self(number)
    return number


@pytest.mark.parametrize(
    ("handler", "error", "told"),
    [
        ("add_a_lock", ItemPicklingError, r"items\[1\]: expected what can be pickled, got <unlocked .* of type lock: "),
        ("add_and_lock", ResultPicklingError, "of type lock can't be pickled"),
    ],
)
def test_an_item_that_cannot_be_pickled_fails_its_maker(
    handler: str, error: type[Exception], told: str, queue: JobQueue
) -> None:
    queue.open_job("j", [1], globals()[handler], max_retries=0)
    queue.seal("j")
    job = queue.start("j").result()
    assert job.total == 1
    assert isinstance(job.items[0].exception, error)
    assert re.search(told, str(job.items[0].error))


def add_a_lock(item: int) -> None:
    current_item().add([2, threading.Lock()])


def add_and_lock(item: int) -> threading.Lock:
    current_item().add([2])
    return threading.Lock()


@pytest.mark.slow
@pytest.mark.parametrize("results", ["keep", "discard"])
def test_items_that_are_the_same_object_each_time_are_added_as_they_were(results: Any, queue: JobQueue) -> None:
    def handler(item: Any, kept: list[Any] = [0]) -> None:  # noqa: B006 - that is the point
        if isinstance(item, int):
            kept[0] = item
            current_item().add([kept])

    job: Any = queue.open_job("j", range(500), handler, results=results)
    queue.seal("j")
    queue.start("j").result()
    assert sorted(item.payload[0] for item in job.items[500:]) == [*range(500)]


@pytest.mark.slow
@pytest.mark.parametrize("chunksize", [1, 50])
def test_items_that_are_changed_later_are_added_as_they_were(chunksize: int, queue: JobQueue) -> None:
    job = queue.open_job("j", [{"id": n} for n in range(20)], add_and_change, chunksize=chunksize)
    queue.seal("j")
    queue.start("j").result()
    added: list[dict[str, Any]] = [{"id": f"{n}-{part}", "found": [n]} for n in range(20) for part in "ab"]
    assert [job.items[item["id"]].payload for item in added] == added
    assert (job.total, job.completed) == (60, 60)


def add_and_change(item: dict[str, Any]) -> None:
    if "found" in item:
        return
    page: dict[str, Any] = {"id": f"{item['id']}-a", "found": [item["id"]]}
    current_item().add([page])
    page["id"] = f"{item['id']}-b"
    current_item().add([page])
    page["found"].append("more")
    page["id"] = "changed"


def test_items_whose_id_is_there_are_left_out(queue: JobQueue) -> None:
    job = queue.open_job("crawl", handler=links)
    run = queue.start("crawl")
    assert queue.add_items("crawl", [{"id": "/1"}, {"id": "/2"}, {"id": "/1"}]) == 2
    assert queue.add_items("crawl", [{"id": "/2"}]) == 0
    queue.seal("crawl")
    run.result()
    assert {item.id for item in job.items} == {f"/{n}" for n in range(1, 40)}
    assert all(item.result == item.id for item in job.items)


def links(page: dict[str, str]) -> Any:
    number = int(page["id"][1:])
    current_item().add([{"id": f"/{n}"} for n in (2 * number, 2 * number + 1) if n < 40])
    return current_item().id


@pytest.mark.slow
@pytest.mark.parametrize("one", ["abc", b"abc", {"id": 5, "url": "/"}])
def test_what_is_one_item_is_not_taken_apart(queue: JobQueue, one: Any) -> None:
    job = queue.open_job("j", [{"id": 1}], partial(add_to, one), max_retries=0)
    with pytest.raises(TypeError, match="expected a list of items") as refused:
        queue.add_items("j", one)
    queue.seal("j")
    (item,) = queue.start("j").result().items
    assert (type(item.exception), str(item.exception)) == (TypeError, str(refused.value))
    assert job.total == 1


def add_to(items: Any, _: Any) -> None:
    current_item().add(items)


def test_only_an_open_job_takes_items(queue: JobQueue) -> None:
    queue.create_job("j", [1], partial(add_to, [2]), max_retries=0)
    with pytest.raises(JobStateError, match="expected a job made by open_job"):
        queue.add_items("j", [1])
    item = queue.start("j").result().items[0]
    assert isinstance(item.exception, JobStateError)
    anything: Any = queue
    with pytest.raises(TypeError, match=r"'max_waiting': write open_job\(\.\.\., max_waiting=3\)"):
        anything.create_job("k", [1], do.double, max_waiting=3)
    for call in anything.create_job, anything.run, anything.plan_job:
        with pytest.raises(TypeError, match=r"has no option 'open': write open_job\(\.\.\.\)"):
            call(id="k", items=[1], handler=do.double, open=True)
    with pytest.raises(TypeError, match="expected a handler, got none"):
        anything.open_job("k", [1])


def test_threads_and_listeners_add_at_the_same_time(queue: JobQueue) -> None:
    job = queue.open_job("j", handler=do.double, max_waiting=20)
    queue.on("job:progress", lambda told: told.completed % 10 or queue.add_items("j", [0]))
    run = queue.start("j")
    threads = [threading.Thread(target=queue.add_items, args=("j", range(100))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: job.completed >= 440)
    queue.seal("j")
    run.result()
    results: list[Any] = job.results
    assert sorted(results) == sorted([*[2 * n for n in range(100)] * 4, *[0] * (job.total - 400)])


@pytest.mark.holds("error: JobFullError")
def test_backpressure_waits_or_refuses(gate: Gate) -> None:
    with JobQueue(1) as queue:
        job = queue.open_job("j", handler=do.block_until_told(gate), max_waiting=3, chunksize=1)
        with pytest.raises(JobFullError, match=r"expected at most 3 items, .* got 4; none was added; start it first"):
            queue.add_items("j", list("abcd"))
        run = queue.start("j")
        queue.add_items("j", list("abc"))
        gate.wait_for("a")
        with pytest.raises(JobFullError, match="none was added; wait=True waits for room"):
            queue.add_items("j", list("wxyz"), wait=False)
        adder = threading.Thread(target=queue.add_items, args=("j", [f"more {n}" for n in range(10)]))
        adder.start()
        wait_until(lambda: job.total > 3)
        adder.join(0.05)
        assert adder.is_alive()
        gate.open()
        adder.join()
        queue.seal("j")
        assert run.result().total == 13


@pytest.mark.parametrize("end", ["seal", "cancel", "close"])
def test_who_waits_for_room_hears_that_there_will_be_none(end: str, gate: Gate) -> None:
    raised = []
    with JobQueue(1) as queue:
        job = queue.open_job("j", handler=do.block_until_told(gate), max_waiting=1, chunksize=1)
        queue.start("j")

        def add() -> None:
            try:
                queue.add_items("j", list("abcdefgh"))
            except (JobStateError, QueueClosedError) as error:
                raised.append(error)

        adder = threading.Thread(target=add)
        adder.start()
        wait_until(lambda: job.total >= 2)
        if end == "close":
            queue.close(wait=False)
        else:
            getattr(queue, end)("j")
        adder.join(300)
        assert (len(raised), adder.is_alive()) == (1, False)
        gate.open()


def test_close_seals_it_and_waits_for_what_is_left() -> None:
    with JobQueue(2) as queue:
        job = queue.open_job("j", [64], split)
        queue.start("j")
    assert (job.status, job.sealed, job.total) == (JobStatus.COMPLETED, True, 127)
