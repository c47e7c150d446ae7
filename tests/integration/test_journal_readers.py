"""What is read of a journal is of one moment, whatever a program writes there meanwhile."""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue, Rerun
from mpqueue.errors import JournalError, RemoteError
from tests.support.disk import Disk
from tests.support.journals import queue_of, recorded, rows_of, values_of

pytestmark = pytest.mark.usefixtures("forked_workers")

COUNT = 600  # more than are kept together
MANY = 400_000


def times_ten(item: dict[str, Any]) -> int:
    return int(item["v"]) * 10


def times_hundred(item: dict[str, Any]) -> int:
    return int(item["v"]) * 100


def big_error(_: object) -> int:
    raise ValueError(b"x" * MANY)


def big_result(_: object) -> bytes:
    return b"x" * MANY


def in_order(order: Any) -> list[dict[str, Any]]:
    return [{"id": f"k{v}", "v": v} for v in order]


AGAIN: dict[str, Any] = {"id": "job", "replace": True}


def turn_round(queue: JobQueue) -> None:
    queue.create_job(items=in_order(range(COUNT)[::-1]), handler=times_ten, rerun=Rerun(update=True), **AGAIN)


def add_items(queue: JobQueue) -> None:
    queue.run(in_order(range(COUNT + 20)), times_ten, rerun=Rerun(update=True), **AGAIN)


def run_again_and_prune(queue: JobQueue) -> None:
    queue.run(in_order(range(3)), times_ten, rerun=Rerun(update=True, redo="all"), **AGAIN)
    queue.prune("job")


def clear(queue: JobQueue) -> None:
    queue.clear_job("job")


@pytest.mark.slow
@pytest.mark.long(but=["big_error-3-run_again_and_prune"])
@pytest.mark.parametrize(
    ("handler", "count", "change"),
    [
        (times_ten, COUNT, turn_round),
        (times_ten, COUNT, add_items),
        (big_error, 3, run_again_and_prune),
        (big_result, 3, clear),
    ],
)
def test_what_is_read_while_it_changes_is_what_was_before_or_after(
    tmp_path: Path,
    disk: Disk,
    caplog: pytest.LogCaptureFixture,
    handler: Callable[[Any], Any],
    count: int,
    change: Callable[[JobQueue], None],
) -> None:
    disk.syncs = False
    made, reader = tmp_path / "made", threading.current_thread()
    made.mkdir()
    with queue_of(made / "run.db") as queue:
        queue.run(in_order(range(count)), handler, id="job")

    def read(step: int) -> tuple[list[Any], list[Any], list[Any]]:
        """What is there before and after, and what one reads if it changes before that statement."""
        place = tmp_path / str(step)
        shutil.copytree(made, place)
        path, left = place / "run.db", itertools.count(-step)

        def change_once(_: str, __: object) -> None:
            if threading.current_thread() is reader and next(left) == 0:
                change(queue)

        with queue_of(path) as queue:
            before = rows_of(path, "job")
            caplog.clear()
            disk.before = change_once
            seen = rows_of(path, "job")
            disk.before = lambda _, __: None
            assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
            after = rows_of(path, "job")
        shutil.rmtree(place)
        return before, seen, after

    for step in itertools.count():
        before, seen, after = read(step)
        assert seen in (before, after)
        if after == before:  # there were no more statements
            break
    assert step > 3


def test_a_job_whose_items_are_read_later_says_of_itself_what_they_say(path: Path) -> None:
    with queue_of(path) as queue:
        queue.run(in_order(range(10)), times_ten, id="job")
    with queue_of(path) as queue:
        (job,) = queue.jobs()
        assert (job.total, job.completed, job.status) == (10, 10, "completed")
        queue.create_job("job", in_order(range(30)), times_ten, rerun=Rerun(update=True), replace=True)
        assert [item.id for item in job.items] == [f"k{v}" for v in range(30)]
        assert (job.total, job.completed, job.status) == (30, 10, "pending")
    with queue_of(path) as queue:
        (gone,) = queue.jobs()
        queue.clear_job("job")
        with pytest.raises(JournalError, match="expected job 'job', which has been removed from it"):
            _ = gone.items[0].payload


def test_an_item_never_runs_again_with_the_handler_of_a_later_job(path: Path) -> None:
    with queue_of(path) as queue:
        queue.run(in_order(range(3)), times_ten, id="job")
    with queue_of(path) as queue:
        job = queue.load_job("job")
        assert job.items[2].replay() == 20
        queue.run(in_order(range(3)), times_hundred, id="job", rerun=Rerun(update=True, version="2"), replace=True)
        with pytest.raises(JournalError, match=r"was created anew meanwhile; get it again, with get_job\(\) say"):
            job.items[2].replay()
        assert queue.load_job("job").items[2].replay() == 200


def test_a_file_that_is_really_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with queue_of(path) as queue:
        queue.run(in_order([1, 2]), big_error, id="job")
    for file in values_of(path):
        file.unlink()
    with recorded(path) as job:
        assert [item.status for item in job.items] == ["failed", "failed"]
        assert [type(item.exception) for item in job.items] == [RemoteError, RemoteError]


def test_a_plan_is_of_one_moment(path: Path, disk: Disk) -> None:
    reader, left = threading.current_thread(), itertools.count(-2)
    with queue_of(path) as queue:
        queue.run(in_order(range(10)), times_ten, id="job")

        def change_once(_: str, __: object) -> None:
            if threading.current_thread() is reader and next(left) == 0:
                queue.run(in_order(range(20)), times_ten, id="job", rerun=Rerun(update=True), replace=True)

        disk.before = change_once
        found = queue.plan_job("job", in_order(range(15)), times_ten)
        disk.before = lambda _, __: None
        assert (len(found.same), len(found.new), len(found.gone)) in ((10, 5, 0), (15, 0, 5))
        assert queue.plan_job("job", in_order(range(15)), times_ten).gone == tuple(f"k{v}" for v in range(15, 20))


def test_a_job_that_is_just_being_removed_is_there_or_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with queue_of(path) as queue:
        queue.run(in_order([1]), big_result, id="job")
    (value,) = values_of(path)
    unlink, found = Path.unlink, list[Any]()
    with queue_of(path) as queue:

        def unlink_later(file: Path, missing_ok: bool = False) -> None:
            if file.parent == value.parent:  # the job's line is gone, and its files are to go
                found.append(queue.get_job("job"))
            unlink(file, missing_ok)

        monkeypatch.setattr(Path, "unlink", unlink_later)
        queue.clear_job("job")
        assert found == [None]
        assert queue.get_job("job") is None
        assert values_of(path) == []
