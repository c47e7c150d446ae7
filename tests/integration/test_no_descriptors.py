"""Where a process has no descriptor left for a moment, things wait or are refused, and go on when it has."""

from __future__ import annotations

import threading

import pytest

from mpqueue import JobQueue
from mpqueue._wire import segments
from mpqueue._wire.segments import Segment, view
from tests.support import handlers as do
from tests.support.descriptors import no_descriptor_left


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
