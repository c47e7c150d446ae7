"""Where a process has no descriptor left for a moment, things wait or are refused, and go on when it has."""

from __future__ import annotations

import threading

import pytest

from mpqueue import JobQueue
from tests.support import handlers as do
from tests.support.descriptors import no_descriptor_left


def test_a_queue_that_could_not_start_for_want_of_descriptors_starts_with_the_next_call() -> None:
    with JobQueue(1) as queue:
        queue.create_job("job", [1, 2], do.double)
        with no_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
            queue.start("job")
        assert queue.start("job").result(300).results == [2, 4]


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
            assert run.result(300).results == [2, 4]
        finally:
            over.set()
            wanting.join()
