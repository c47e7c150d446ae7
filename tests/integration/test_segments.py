"""Shared segments where the system has little to give."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mpqueue._wire import segments
from mpqueue._wire.segments import Segment, view


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """This process can open no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)  # the lowest number that is free
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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
