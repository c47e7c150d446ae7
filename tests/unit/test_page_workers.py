"""What a page knows of its workers: how they ended, and what they use, by looks that a test gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneState
from mpqueue._core.state.timings import Span
from mpqueue._live_page.looks import worker_use
from mpqueue._live_page.looks.speed import STRETCHES, throughput
from mpqueue._live_page.looks.timeline import WINDOW, Timeline
from mpqueue._live_page.looks.worker_use import EVERY, Usage
from mpqueue._options import JobOptions
from mpqueue._os.process.other_process import ProcessUse, end_of_file, use_of
from mpqueue._os.system import IS_LINUX
from mpqueue._parent.running import LaneNow
from mpqueue.retry import RetryPolicy

linux = pytest.mark.skipif(not IS_LINUX, reason="told by Linux only")


def job_of(number: int) -> JobBook:
    book = JobBook(number, f"job-{number}", make_table(range(10)), JobOptions(RetryPolicy()), None)
    book.timings.begin(100.0, 2, 3)
    return book


def die(book: JobBook, at: float, **known: Any) -> None:
    book.timings.lane_gone(0, at, worked=True, died=True, **known)
    book.timings.lane_ready(0, at + 0.1)


# --- how they ended ---------------------------------------------------------------------------------------------------


def test_each_end_is_marked_once_with_the_item_of_the_job_that_had_it() -> None:
    timeline, jobs = Timeline(), [job_of(1), job_of(2)]
    for at in (101.0, 102.0):
        die(jobs[0], at, why="SIGSEGV")
        die(jobs[1], at, why="SIGSEGV", item=7)
        (mark,) = timeline.look_for_ends(jobs, 103.0)
        assert mark == (0, at, "SIGSEGV", 7, 2)
        assert timeline.look_for_ends(jobs, 103.0) == []
    assert [mark.at for mark in timeline.marks] == [101.0, 102.0]


def test_an_end_of_long_ago_is_not_marked_and_a_new_run_begins_anew() -> None:
    timeline, job = Timeline(), job_of(1)
    die(job, 101.0)
    assert timeline.look_for_ends([job], 102.0 + WINDOW) == []
    job.timings.begin(1000.0, 2, 3)
    die(job, 1001.0, why="exit code 3")
    assert [mark.why for mark in timeline.look_for_ends([job], 1002.0)] == ["exit code 3"]


# --- what they use ----------------------------------------------------------------------------------------------------


class Process:
    """A process that uses what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.use: ProcessUse | None = ProcessUse(1, 0.0, 1 << 20)
        monkeypatch.setattr(worker_use, "use_of", lambda pid: self.use)


LANE = [LaneNow(3, LaneState.READY, 123)]


def test_the_share_of_a_cpu_is_since_the_sample_before(monkeypatch: pytest.MonkeyPatch) -> None:
    process, usage = Process(monkeypatch), Usage()
    assert [sample.share for _, sample in usage.look(LANE, 0.0)] == [0.0]
    process.use = ProcessUse(1, 1.5, 2 << 20)
    assert usage.look(LANE, EVERY / 2) == []  # not so soon again
    ((lane, sample),) = usage.look(LANE, 2 * EVERY)
    assert (lane, sample.share, sample.memory) == (3, 1.5 / (2 * EVERY), 2 << 20)
    process.use = ProcessUse(9, 0.1, 2 << 20)  # another process, with the same number
    assert [sample.share for _, sample in usage.look(LANE, 4 * EVERY)] == [0.0]
    assert len(usage.all()) == 1
    process.use = None
    assert usage.look(LANE, 6 * EVERY) == []
    assert usage.look([], 8 * EVERY) == usage.all() == []


def test_cpu_seconds_are_counted_from_a_moment_between_two_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    process, usage = Process(monkeypatch), Usage()
    for step in range(3):
        process.use = ProcessUse(1, 10.0 + step, 0)
        usage.look(LANE, 100.0 + step * EVERY)
    process.use = ProcessUse(1, 12.5, 0)
    assert usage.cpu_since(3, 100.0 + 0.5 * EVERY) == pytest.approx(2.0)
    assert usage.cpu_since(3, 100.0 + 3 * EVERY) == pytest.approx(0.5)
    assert usage.cpu_since(3, 50.0) is None  # before the page was there
    assert usage.cpu_since(4, 100.0) is None


@linux
def test_a_process_tells_what_it_uses() -> None:
    own = use_of(os.getpid())
    assert own is not None
    assert own.cpu > 0
    assert own.memory > 1 << 20
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        other = use_of(child.pid)
        assert other is not None
        assert other.started >= own.started
        child.communicate(b"\n")
    assert use_of(child.pid) is None


@linux
def test_the_end_of_a_file_is_read_and_of_nothing_else(tmp_path: Path) -> None:
    pid = os.getpid()
    with (tmp_path / "file").open("wb") as file:
        file.write(b"x" * 100 + b"end")
        file.flush()
        assert end_of_file(pid, file.fileno(), 5) == b"xxend"
        assert end_of_file(pid, file.fileno(), 500) == b"x" * 100 + b"end"
    reading, writing = os.pipe()
    try:
        os.write(writing, b"secret")
        assert end_of_file(pid, reading, 5) is None
        assert os.read(reading, 10) == b"secret"  # which is still there
    finally:
        os.close(reading)
        os.close(writing)
    assert end_of_file(pid, reading, 5) is None


# --- how fast it went -------------------------------------------------------------------------------------------------


def test_a_job_without_times_has_no_throughput() -> None:
    book = JobBook(1, "job", make_table([1]), JobOptions(RetryPolicy()), None)
    assert throughput(book.timings, 10.0, 0.0) is None


def test_what_reports_told_of_is_spread_over_the_time_that_they_took() -> None:
    book = job_of(1)
    names = Span._fields
    for begun, ended, items, failures in ((100.0, 160.0, 60, 0), (160.0, 220.0, 30, 15)):
        row = dict.fromkeys(names, 0.0) | {"begun": begun, "ended": ended, "items": items, "failures": failures}
        book.timings.rows.extend(row[name] for name in names)
    told = throughput(book.timings, 220.0, 1000.0)
    assert told is not None
    assert (told["since"], told["every"]) == (1_100_000, 1.0)
    assert len(told["completed"]) == STRETCHES
    assert sum(told["completed"]) == pytest.approx(75, abs=0.5)
    assert sum(told["failed"]) == pytest.approx(15, abs=0.5)
    assert told["completed"][10] > told["completed"][100]
