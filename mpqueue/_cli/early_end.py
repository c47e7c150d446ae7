"""How `run` and `retry` end early: SIGTERM, or their time limit, drains the queue, and the same command goes on."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from mpqueue._cli.options.durations import duration
from mpqueue._cli.usage import coloured, say
from mpqueue._os.main_thread_waits import join_long
from mpqueue._os.monotonic import monotonic
from mpqueue._os.process.process_signals import on_first_sigterm
from mpqueue._queue.job_queue import JobQueue
from mpqueue._queue.run import JobRun
from mpqueue.status import JobStatus


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--time-limit`` and ``--drain``."""
    add = parser.add_argument
    add("--time-limit", type=duration, metavar="T", help="drain the queue after this time, as SIGTERM does: 90s, 15m, "
        "3h50m, 1-12:00:00; for a cluster's walltime")  # fmt: skip
    add("--drain", type=duration, default=30.0, metavar="T", help="how long running items may continue after SIGTERM "
        "or the time limit, before they are put back and count as not run (default: 30s)")  # fmt: skip


class EarlyEnd:
    """A block in which SIGTERM and the time limit drain the queue; a second SIGTERM does what it did before.

    ``began_at`` is the moment, by the monotonic clock, from which the time limit counts.
    """

    def __init__(self, queue: JobQueue, run: JobRun, args: argparse.Namespace, began_at: float) -> None:
        self._queue = queue
        self._run = run
        self._within: float = args.drain
        self._ends_at = None if args.time_limit is None else began_at + args.time_limit
        self._told = threading.Event()  #: SIGTERM came, or the block has ended
        self._is_over = False
        self._began = False
        self._error: BaseException | None = None
        self._take_back: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._wait, name="mpqueue-early-end", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._take_back = on_first_sigterm(self._told.set)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        self._told.set()
        self._take_back()

    @property
    def left_some(self) -> bool:
        """True where the queue was drained before the job had ended."""
        return self._began and self._run.job.status is JobStatus.CANCELLED

    def wait(self) -> None:
        """The job has ended: wait until the queue is drained, where it is being drained. Raises what that raised."""
        self._is_over = True
        self._told.set()
        join_long(self._thread)
        if self._error is not None:
            raise self._error

    def _wait(self) -> None:
        self._told.wait(None if self._ends_at is None else max(0.0, self._ends_at - monotonic()))
        if self._is_over:
            return
        self._began = True
        try:
            self._run._end_display()  # what it calls is ours
            say(coloured("draining:", "yellow"), f" no new items start, those that run have {self._within:g} s")
            self._queue.drain(self._within)
        except BaseException as error:  # noqa: BLE001 - raised by who waits for it
            self._error = error
