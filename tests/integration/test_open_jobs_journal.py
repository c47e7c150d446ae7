"""Open jobs of a queue with a journal: killed, with real workers, run again, looked at, and refused."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import JobQueue, current_item
from mpqueue.errors import JobFullError, JournalError, JournalMismatchError
from mpqueue.status import JobStatus
from tests.support import handlers as do
from tests.support.disk import Disk
from tests.support.journals import lines_of, queue_of, rows_of, values_of
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.usefixtures("forked_workers")


class Calls:
    """A handler that writes down each call: a number brings its halves along, a mapping those of its id below 16."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "calls"
        self.healed = folder / "healed"

    def __call__(self, item: Any) -> Any:
        with self.file.open("a") as file:
            file.write(f"{item['id'] if isinstance(item, dict) else item}\n")
        if isinstance(item, dict):
            number = item["id"]
            current_item().add([{"id": n} for n in (2 * number, 2 * number + 1) if n < 16])
            return number
        if item == 5 and not self.healed.exists():
            raise ValueError("five")
        if item > 1:
            current_item().add([item // 2, item - item // 2])
        return item

    def take(self) -> list[str]:
        """The calls since the last time."""
        calls = self.file.read_text().split() if self.file.exists() else []
        self.file.unlink(missing_ok=True)
        return calls


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path)


def finish(path: Path, calls: Any, items: Any, job_id: str = "j", *, workers: int = 0, **options: Any) -> Any:
    """The same program each time: half of the items at first, the others one by one."""
    with JobQueue(workers, journal=path, max_retries=0) if workers else queue_of(path) as queue:
        items = [*items]
        job = queue.open_job(job_id, items[: len(items) // 2], calls, **options)
        run = queue.start(job_id)
        for item in items[len(items) // 2 :]:
            queue.add_items(job_id, [item])
        queue.seal(job_id)
        run.result()
        assert len(job.results) == job.total
        return job


# -- run again ---------------------------------------------------------------------------------------------------------


def halves(numbers: list[int]) -> list[int]:
    """All that comes of these."""
    return [
        n for number in numbers for n in [number, *halves([number // 2, number - number // 2] if number > 1 else [])]
    ]


def test_it_counts_what_is_new(path: Path, calls: Calls) -> None:
    finish(path, calls, [4, 4])
    with JobQueue(1, journal=path) as queue:
        job = queue.open_job("j", handler=calls, max_waiting=1)
        assert (job.total, job.completed, job.status) == (14, 14, JobStatus.PENDING)
        assert queue.add_items("j", [4]) == 0
        assert queue.add_items("j", [4], wait=False) == 0
        with pytest.raises(JobFullError, match="got 3; none was added"):
            queue.add_items("j", [4, 4, 4])
        assert queue.add_items("j", [4]) == 1
        queue.seal("j")
        assert queue.start("j").result().total == 21
    assert lines_of(path)["j"] == ("completed", 21, 0, 21)


@pytest.mark.parametrize("way", ["cancel", "drain"])
def test_what_handlers_had_added_runs_although_nobody_adds_it_again(path: Path, gate: Gate, way: str) -> None:
    work = partial(add_and_wait, gate)
    with JobQueue(1, journal=path) as queue:
        job = queue.open_job("j", ["a"], work)
        queue.start("j")
        wait_until(lambda: job.total == 4)
        gate.wait_for("1")
        if way == "drain":
            queue.drain(0.0)
        else:
            queue.cancel("j", kill=True)
    gate.open()
    with JobQueue(1, journal=path) as queue:
        job = queue.open_job("j", handler=work)
        assert (job.total, job.completed) == (4, 1)
        queue.seal("j")
        assert queue.start("j").result().results == ["a", "1", "2", "3"]


def add_and_wait(gate: Gate, item: str) -> str:
    if item == "a":
        current_item().add([*"123"])
    else:
        do.block_until_told(gate)(item)
    return item


# -- odd items and results ---------------------------------------------------------------------------------------------


class Odd:
    """Of a class of its own, and equal to others by its text."""

    def __init__(self, text: str, ballast: int = 0) -> None:
        self.text, self.ballast = text, b"x" * ballast


def bring_odd_ones(calls: Calls, item: Odd) -> Any:
    with calls.file.open("a") as file:
        file.write(f"{item.text}\n")
    if item.text == "maker":
        current_item().add([Odd("small"), Odd("big", 400_000), Odd("last")])
    if item.text == "last" and not calls.healed.exists():
        raise ValueError("not yet")
    return item.text


def test_items_of_any_class_and_size_are_there_again(path: Path, calls: Calls) -> None:
    work = partial(bring_odd_ones, calls)
    first = finish(path, work, [Odd("maker"), Odd("huge", 500_000)])
    assert (first.completed, first.failed) == (4, 1)
    assert len(values_of(path)) == 2
    calls.take()
    calls.healed.touch()
    with JobQueue(1, journal=path, max_retries=0) as queue:
        assert sorted(len(item.payload.ballast) for item in queue.load_job("j").items) == [0, 0, 0, 400_000, 500_000]
        assert queue.prune().items == 0
        assert len(values_of(path)) == 2
        again = queue.retry_failed("j").result()
        assert (again.completed, calls.take()) == (5, ["last"])
        queue.clear_job("j")
        assert values_of(path) == []


def test_a_maker_whose_result_can_not_be_kept_runs_again_and_adds_again(path: Path, calls: Calls) -> None:
    work = partial(return_unkept, calls)
    first = finish(path, work, ["maker"], workers=1)
    assert Counter(calls.take()) == {"maker": 1, "child": 2}
    again = finish(path, work, ["maker"], workers=1)
    assert Counter(calls.take()) == {"maker": 1, "child": 2}
    assert first.total == again.total == 3
    with JobQueue(1, journal=path) as queue:
        assert queue.prune().items == 0
        assert queue.load_job("j").total == 3


def return_unkept(calls: Calls, item: str) -> Any:
    with calls.file.open("a") as file:
        file.write(f"{item}\n")
    if item == "maker":
        current_item().add(["child", "child"])
        return Unkept()
    return item


@pytest.mark.long(but=["unreadable"])
@pytest.mark.parametrize("why", ["discarded", "unreadable", "items-unreadable", "redo"])
def test_nothing_is_lost_if_the_program_ends_before_a_maker_runs_again(
    path: Path, tmp_path: Path, gate: Gate, why: str
) -> None:
    hidden, calls = tmp_path / "hidden", tmp_path / "calls"
    results: Any = "discard" if why == "discarded" else "keep"
    has_ids = why in ("items-unreadable", "redo")
    maker: Any = {"id": 1} if has_ids else 1
    work = partial(add_fickle_ones, calls, gate, hidden, why == "items-unreadable")
    with JobQueue(1, journal=path) as queue:
        job = queue.open_job("j", [maker], work, results=results)
        queue.start("j")
        wait_until(lambda: job.completed == 1)
        queue.cancel("j", kill=True)
    hidden.touch()
    with JobQueue(1, journal=path) as queue:
        job = queue.open_job("j", [], work, rerun=mpqueue.Rerun(redo=[1] if why == "redo" else None))
        assert (job.completed, job.total) == (0, 3 if why == "redo" else 1)
    hidden.unlink()
    gate.open()
    calls.unlink()
    with JobQueue(1, journal=path) as queue:
        job = queue.open_job("j", [], work, results=results)
        queue.seal("j")
        assert queue.start("j").result().completed == 3
    assert sorted(map(int, calls.read_text().split())) == [1, 11, 12]


def add_fickle_ones(calls: Path, gate: Gate, hidden: Path, has_fickle_items: bool, item: Any) -> Any:
    number = item["id"] if isinstance(item, dict) else item
    with calls.open("a") as file:
        file.write(f"{number}\n")
    if number > 9:
        do.block_until_told(gate)(number)
        return number
    added: list[Any] = [number * 10 + 1, number * 10 + 2]
    if isinstance(item, dict):
        added = [{"id": n, "with": Fickle(hidden) if has_fickle_items else None} for n in added]
    current_item().add(added)
    return Fickle(hidden)


class Fickle:
    """Can't be read while there is that file."""

    def __init__(self, hidden: Path) -> None:
        self.hidden = hidden

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["hidden"].exists():
            raise ImportError("not here")
        self.__dict__.update(state)


class Unkept:
    """Comes home, and can't be pickled there."""

    def __init__(self) -> None:
        self.home = os.getpid()

    def __getstate__(self) -> Any:
        if os.getpid() != self.home:
            raise TypeError("not twice")
        return self.__dict__


# -- what is asked for -------------------------------------------------------------------------------------------------


LINKS = {"/": ["/a", "/b"], "/a": ["/", "/b"], "/b": ["/"]}


def follow(page: dict[str, str]) -> str:
    current_item().add([{"id": link} for link in LINKS[page["id"]]])
    return page["id"]


@pytest.mark.parametrize("rerun", [mpqueue.Rerun(version="2"), mpqueue.Rerun(redo="all")])
def test_a_job_that_begins_anew_takes_its_ids_from_its_new_items(path: Path, rerun: mpqueue.Rerun) -> None:
    finish(path, str, ["x", "y"], rerun=mpqueue.Rerun(version="1"))
    crawl = finish(path, follow, [{"id": "/"}, {"id": "/a"}], rerun=rerun)
    assert sorted(item.id for item in crawl.items) == ["/", "/a", "/b"]
    plain = finish(path, str, ["x", "x"], rerun=mpqueue.Rerun(version="3"))
    assert [item.id for item in plain.items] == [0, 1]


def test_items_run_again_by_their_ids(path: Path, calls: Calls) -> None:
    finish(path, calls, [{"id": 1}])
    calls.take()
    assert finish(path, calls, [{"id": 1}], rerun=mpqueue.Rerun(redo=[2, 15])).completed == 15
    assert sorted(calls.take()) == ["15", "2"]
    with pytest.raises(ValueError, match="expected ids of the job's items, got 77"):
        finish(path, calls, [{"id": 1}], rerun=mpqueue.Rerun(redo=[77]))
    finish(path, calls, [3], "values")
    with pytest.raises(
        ValueError, match="expected 'failed', 'changed-code' or 'all' for an open job whose items have no"
    ):
        finish(path, calls, [3], "values", rerun=mpqueue.Rerun(redo=[0]))


def test_what_an_open_job_has_not_is_refused_and_nothing_is_changed(path: Path, calls: Calls) -> None:
    finish(path, calls, [3])
    before = path.read_bytes()
    anything: Any = None
    with queue_of(path) as queue:
        anything = queue
        for rerun in (mpqueue.Rerun(update=True), mpqueue.Rerun(key=str)):
            with pytest.raises(ValueError, match="expected none for an open job"):
                anything.open_job("j", [3], calls, rerun=rerun)
        with pytest.raises(JournalMismatchError, match="expected a job with a list of items, got an open job"):
            queue.plan_job("j", [3], calls)
        with pytest.raises(JournalMismatchError, match="has changed since 5 of these results were made"):
            queue.open_job("j", [3], do.succeed, rerun=mpqueue.Rerun(strict=True))
        with pytest.raises(TypeError, match="items\\[0\\]"):
            queue.open_job("j", [{"id": threading.Lock()}], calls)
    assert path.read_bytes() == before


def test_others_look_at_it_while_it_grows(path: Path, gate: Gate) -> None:
    with JobQueue(2, journal=path) as queue:
        job = queue.open_job("j", ["a"], partial(add_and_wait, gate))
        queue.start("j")
        wait_until(lambda: job.completed == 1)
        wait_until(lambda: len(rows_of(path, "j", "id")) == 4)
        assert lines_of(path)["j"] == ("running", 1, 0, 4)
        gate.open()
        queue.seal("j")
    assert [row["item"] for row in rows_of(path, "j", "item")] == ["a", "1", "2", "3"]


# -- damage, and a disk that fills -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("end", ["room", "close"])
def test_a_full_disk_is_told_to_who_adds(path: Path, disk: Disk, end: str) -> None:
    lost = pytest.raises(JournalError) if end == "close" else contextlib.nullcontext()
    with lost, JobQueue(1, journal=path) as queue:
        job = queue.open_job("j", ["a"], do.succeed)
        run = queue.start("j")
        wait_until(lambda: job.completed == 1)
        disk.is_full = True
        with pytest.raises(JournalError, match=r"room on the disk.*The items are added, and not on disk yet"):
            queue.add_items("j", ["b" * 100_000])
        with pytest.raises(JournalError, match="room on the disk"):
            queue.add_items("j", ["c"])
        assert job.total == 2
        if end == "room":
            disk.is_full = False
            wait_until(partial(has_added, queue, "c"), what="that it goes on")
            queue.seal("j")
            assert run.result().total == 3
    assert lines_of(path)["j"].total == (3 if end == "room" else 1)


def has_added(queue: JobQueue, item: Any) -> bool:
    """Whether it could be added by now."""
    try:
        return queue.add_items("j", [item]) == 1
    except JournalError:
        return False


def test_the_end_of_the_queue_is_told_to_who_adds(path: Path, disk: Disk) -> None:
    outcome: list[Any] = []
    queue = JobQueue(1, journal=path)
    queue.open_job("j", handler=do.succeed)
    disk.hold()
    adder = threading.Thread(target=keep_error, args=(partial(queue.add_items, "j", ["a"]), outcome))
    adder.start()
    assert disk.reached.wait(300)
    closer = threading.Thread(target=keep_error, args=(queue.close, outcome))
    closer.start()
    disk.before = refuse
    disk.release()
    for thread in (adder, closer):
        thread.join(300)
    assert [type(each) for each in outcome] == [JournalError] * 2


def refuse(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def keep_error(call: Callable[[], object], outcome: list[Any]) -> None:
    try:
        outcome.append(call())
    except Exception as error:
        outcome.append(error)
