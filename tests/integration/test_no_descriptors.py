"""Where a process has no descriptor left for a moment, things wait or are refused, and go on when it has."""

from __future__ import annotations

import threading

import pytest

from mpqueue import JobQueue
from mpqueue._engines.loky.process import strays
from mpqueue._os.process.process_table import processes
from mpqueue._wire.memory import segments
from mpqueue._wire.memory.segments import Segment, view
from tests.support import handlers as do
from tests.support.descriptors import no_descriptor_left
from tests.support.programs import is_running
from tests.support.strength import workers_of
from tests.support.systems import LINUX_ONLY


def test_a_segment_waits_for_a_descriptor_and_is_read_then() -> None:
    segment = Segment()
    data = memoryview(b"x" * 1000)
    ref = segment.fill([data], [0], len(data))
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(bytes(view(ref))))
    with no_descriptor_left():
        reader.start()
        reader.join(3 * segments.PAUSE)
        assert reader.is_alive()
    reader.join(segments.PATIENCE)
    assert read == [bytes(data)]


def test_a_segment_that_can_never_be_opened_is_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "PATIENCE", 3 * segments.PAUSE)
    segment = Segment()
    ref = segment.fill([memoryview(b"x")], [0], 1)
    with no_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
        view(ref)
    assert bytes(view(ref)) == b"x"


def test_a_queue_that_could_not_start_for_want_of_descriptors_starts_with_the_next_call() -> None:
    with JobQueue(1) as queue:
        queue.create_job("job", [1, 2], do.double)
        with no_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
            queue.start("job")
        assert queue.start("job").result(30).results == [2, 4]


def test_a_want_that_passes_fails_no_job_however_often_it_comes_back() -> None:
    """It leaves a moment now and then, at which no worker happens to be started."""
    over = threading.Event()

    def want() -> None:
        for _ in range(5):
            with no_descriptor_left():
                over.wait(0.3)
            over.wait(0.06)

    with JobQueue(1) as queue:
        queue.create_job("job", [1, 2], do.double)
        wanting = threading.Thread(target=want)
        run = queue.start("job")
        wanting.start()
        try:
            assert run.result(30).results == [2, 4]
        finally:
            over.set()
            wanting.join()


@LINUX_ONLY
def test_nobody_is_taken_for_an_orphan_whose_parent_can_not_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def start_time_without_a_descriptor(pid: int) -> int:
        asked.append(pid)
        with no_descriptor_left():
            return start_time(pid)

    start_time = processes.start_time
    with JobQueue(2) as queue:
        queue.run(range(10), do.double)
        pids = workers_of(queue)
        monkeypatch.setattr(processes, "start_time", start_time_without_a_descriptor)
        strays.kill_orphans.cache_clear()  # else it is done already
        strays.kill_orphans()
        monkeypatch.undo()
        assert asked
        assert all(map(is_running, pids))
        assert queue.run(range(10), do.double).results == [2 * number for number in range(10)]
        assert workers_of(queue) == pids


def test_where_no_descriptor_is_left_to_look_with_nobody_is_killed_and_nothing_raised() -> None:
    with JobQueue(1) as queue:
        queue.run(["a"], do.succeed)
        (pid,) = workers_of(queue)
        with no_descriptor_left():
            strays.kill_strays(strays.cookie())
        assert is_running(pid)
