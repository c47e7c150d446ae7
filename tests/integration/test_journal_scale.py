"""What a large journal costs: many jobs, many items, large results."""

from __future__ import annotations

import gc
import sqlite3
import threading
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue
from mpqueue.errors import JournalError
from mpqueue.status import ItemStatus
from tests.support import handlers as do
from tests.support.command_line import main
from tests.support.disk import Disk
from tests.support.journals import queue_of
from tests.support.programs import run_program
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

#: Instructions of SQLite's machine between two calls of a progress handler.
STEP = 10


@pytest.fixture
def count_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], int]:
    """A function that says about how many instructions SQLite runs in a call."""
    steps, connect = [0], sqlite3.connect

    def step() -> None:
        steps[0] += STEP

    def counting(*arguments: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **named)
        connection.set_progress_handler(step, STEP)
        return connection

    def count(call: Callable[[], Any]) -> int:
        before = steps[0]
        call()
        return steps[0] - before

    monkeypatch.setattr(sqlite3, "connect", counting)
    return count


@pytest.mark.long
def test_a_job_is_created_and_found_as_fast_among_many(
    tmp_path: Path, disk: Disk, count_steps: Callable[[Callable[[], Any]], int]
) -> None:
    path, disk.syncs = tmp_path / "run.db", False

    def use(job_id: str) -> list[int]:
        with queue_of(path) as queue:
            return [
                count_steps(lambda: queue.create_job(job_id, [1, 2], do.succeed)),
                count_steps(lambda: queue.plan_job(job_id, [1, 2], do.succeed)),
                count_steps(lambda: queue.get_job("other")),
                count_steps(lambda: queue.clear_job(job_id)),
            ]

    few = use("one")
    with queue_of(path) as queue:
        queue.create_job("other", [1, 2], do.succeed)
        for number in range(1000):
            queue.create_job(f"copy {number}", [1, 2], do.succeed)
    many = use("two")
    assert all(after < 2 * before + 1000 for before, after in zip(few, many, strict=True)), (few, many)


def test_a_job_is_found_where_the_index_of_ids_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with JobQueue(1, journal=path) as queue:
        queue.run([1, 2, 3], do.succeed, id="the job of the night")
    content = path.read_bytes()
    name = b"the job of the night"
    places = [at for at in range(len(content)) if content.startswith(name, at)]
    page = next(at for at in places if content[at - at % 4096] == 0x0A)  # a leaf of an index
    path.write_bytes(content[:page] + name.replace(b"night", b"might") + content[page + len(name) :])
    with JobQueue(1, journal=path) as queue:
        assert queue.get_job(name.decode()) is not None
        job = queue.create_job(name.decode(), [1, 2, 3], do.succeed)
        assert job.completed == 3
        assert [each.id for each in queue.jobs()] == [job.id]


# -- results -----------------------------------------------------------------------------------------------------------


class Counted:
    """Counts how often one of them is unpickled in this process."""

    loaded = 0

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counted) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        Counted.loaded += 1
        self.__dict__.update(state)


def result_of(item: int) -> Any:
    """Results of all kinds: pickled together, by themselves, in a file; and None."""
    if item == 7:
        raise ValueError("seven")
    if item % 10 == 9:
        return bytes([item]) * (300_000 + item)
    return (item, None, Counted(item), str(item))[item // 10 % 4]


COUNT = 40


def test_the_newest_results_stay_in_memory(path: Path) -> None:
    with queue_of(path) as queue:
        job = queue.run(range(10), do.return_value([1]))
        assert job.items[3].result is job.items[3].result
    path.unlink()
    assert job.results == [[1]] * 10


def make_kilobyte(item: int) -> bytes:
    return item.to_bytes(4, "big") * 250


def test_results_beyond_32_mb_are_not_in_memory(path: Path, disk: Disk) -> None:
    disk.syncs, count = False, 60_000
    with queue_of(path) as queue:
        queue.run([1], do.succeed)  # what is imported
        tracemalloc.start()
        try:
            job = queue.run(range(count), make_kilobyte, id="job", chunksize=500)
            gc.collect()
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert held < 1_000 * count * 0.85
        assert all(job.items[at].result == make_kilobyte(at) for at in range(0, count, 997))


@pytest.mark.parametrize("take_up", [False, True])
def test_a_job_that_is_cleared_keeps_its_results_where_they_are_few(path: Path, take_up: bool) -> None:
    for size in (1000, 12 << 20):  # three of them are less than 32 MB, and more
        with queue_of(path) as queue:
            queue.run(range(3), do.return_value(bytes(size)), id="job")
        with queue_of(path) as queue:
            job = queue.create_job("job", range(3), do.return_value(bytes(size))) if take_up else queue.load_job("job")
            queue.clear_job("job")
            assert not queue.jobs()
            if size == 1000:
                assert job.results == [bytes(1000)] * 3
                continue
            with pytest.raises(JournalError, match="expected the result of an item of job 'job', got none"):
                assert job.results
            with pytest.raises(JournalError, match="got none"):
                assert job.items[2].result


def test_looking_at_a_journal_loads_no_results(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with JobQueue(1, journal=path, max_retries=0) as queue:
        queue.run(range(COUNT), result_of, id="job")
    Counted.loaded = 0
    assert main(["status", str(path)]) == 0
    assert main(["failures", str(path)]) == 0
    assert main(["prune", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "job" in shown
    assert "seven" in shown
    with JobQueue(1, journal=path) as queue:
        queue.prune()
        plan = queue.plan_job("job", range(COUNT), result_of)
        assert len(plan.same) == COUNT
        (job,) = queue.jobs()
        assert [failure.item.id for failure in job.failures] == [7]
        assert sum(item.status is ItemStatus.COMPLETED for item in job.items) == COUNT - 1
        assert Counted.loaded == 0
        assert job.items[25].result == Counted(25)
        assert Counted.loaded == 1


class SlowToPickle:
    """Pickles once the gate is open, in the parent."""

    gate = threading.Event()
    slow = False

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        if SlowToPickle.slow:
            SlowToPickle.gate.wait(300)
        return SlowToPickle, (self.data,)


def make_slow(calls: Gate, item: int) -> SlowToPickle:
    """2 MB."""
    calls.announce(item)
    return SlowToPickle(bytes([item]) * 2_000_000)


def test_results_that_wait_to_be_pickled_are_bounded(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 64 MB, but for what runs when it is noticed."""
    calls, most = Gate(tmp_path / "calls"), 64 << 20
    with JobQueue(2, journal=path) as queue:
        job = queue.create_job("job", range(100), partial(make_slow, calls), chunksize=1)
        monkeypatch.setattr(SlowToPickle, "slow", True)
        run = queue.start("job")
        wait_until(lambda: job.completed * 2_000_000 >= most, what="that it is held back")
        wait_until(lambda: len(calls.arrived()) == job.completed, what="workers with nothing to do")
        assert job.completed * 2_000_000 < 2 * most
        SlowToPickle.gate.set()
        assert run.result(300).completed == 100


NIGHTLY = """
import os, sys
from pathlib import Path
import mpqueue

connects, looks, loads = [], [], []
stat = os.stat

def note_event(name, arguments):
    if name == "sqlite3.connect":
        connects.append(arguments)

def noted_stat(path, *arguments, **named):
    if str(path).endswith(".jpg"):
        looks.append(path)
    return stat(path, *arguments, **named)

class Picture:
    def __init__(self, path):
        self.width, self.height, self.name = path.stat().st_size, 7, path.name

    def __setstate__(self, state):
        vars(self).update(state)
        loads.append(self)

def run(**results):
    paths = sorted(Path("pictures").iterdir())
    with mpqueue.JobQueue(1, journal="run.db") as queue:
        rerun = mpqueue.Rerun(update=True, key=mpqueue.file_key)
        job = queue.create_job("pictures", paths, Picture, rerun=rerun, chunksize=1, **results)
        queue.start("pictures").result()
    return job

if __name__ == "__main__":
    os.mkdir("pictures")
    for number in range(1, 201):
        Path(f"pictures/{number:03}.jpg").write_bytes(bytes(number))
    run()
    sys.addaudithook(note_event)
    os.stat = noted_stat
    loads.clear()
    run(results=mpqueue.sinks.csv("pictures.csv", ["item", "width", "height", "result.name", "status"], in_order=True))
    print(len(looks), len(loads), len(connects))
"""


def test_an_unchanged_item_costs_one_look_at_its_file_and_its_row_no_look_at_the_journal_of_its_own(
    tmp_path: Path,
) -> None:
    looks, loads, connects = map(int, run_program(tmp_path, NIGHTLY).stdout.split())
    header, *rows = (tmp_path / "pictures.csv").read_text().splitlines()
    assert header == "item,width,height,result.name,status"
    assert rows == [f"{number:03}.jpg,{number},7,{number:03}.jpg,completed" for number in range(1, 201)]
    assert looks == 200
    assert loads == 200  # when the job is created, to be checked, and for all cells of its row
    assert connects < 200 / 8
