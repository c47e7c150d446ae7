"""Early ends of `run` and `retry`: SIGTERM or the time limit drains the queue; the same command continues later."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from mpqueue._cli.flags import Add, duration
from mpqueue._cli.usage import coloured, say
from mpqueue._os.process_signals import END_SIGNAL, join_long, on_first_sigterm, send_to_main_thread
from mpqueue._os.system import monotonic
from mpqueue._parent.replies import SafeEvent
from mpqueue._queue.job_queue import JobQueue
from mpqueue._queue.run import JobRun
from mpqueue.status import JobStatus


def add_early_end(add: Add) -> None:
    """Add ``--time-limit`` and ``--drain``."""
    add("--time-limit", type=duration, metavar="T", help="drain the queue after this time, as SIGTERM does: 90s, 15m, "
        "3h50m, 1-12:00:00; for a cluster's walltime")  # fmt: skip
    add("--drain", type=duration, default=30.0, metavar="T", help="how long running items may continue after SIGTERM "
        "or the time limit, before they are put back and count as not run (default: 30s)")  # fmt: skip


class EndedBeforeStart(BaseException):
    """Raised when SIGTERM or the time limit came while no item ran yet.

    It is no Exception, so that no code on its way catches it.
    """


class EarlyEnd:
    """A block in which the first SIGTERM ends the command; the next one acts as before the block.

    Until `drain_from_now`, SIGTERM raises `EndedBeforeStart` on the main thread, even while that waits. From then on,
    it drains the queue. The time limit, which counts from ``began_at`` by the monotonic clock, does the same.
    """

    def __init__(self, args: argparse.Namespace, began_at: float) -> None:
        self._within: float = args.drain
        self._ends_at = None if args.time_limit is None else began_at + args.time_limit
        self._has_begun = SafeEvent()  #: the job has started, or never will
        self._sending = threading.Lock()  #: the job does not start while the time limit sends its signal
        self._told = SafeEvent()  #: SIGTERM came, or the block has ended
        self._is_over = False
        self._started: tuple[JobQueue, JobRun] | None = None
        self._has_drained = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, name="mpqueue-early-end", daemon=True)
        self._take_back: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._take_back = on_first_sigterm(self._end)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._take_back()

    def drain_from_now(self, queue: JobQueue, run: JobRun) -> None:
        """Drain the queue at SIGTERM or the time limit from now on, since the job has started in it."""
        with self._sending:
            self._started = queue, run
            self._has_begun.set()

    @property
    def left_some(self) -> bool:
        """True if the queue was drained before the job had ended."""
        return self._has_drained and self._started is not None and self._started[1].job.status is JobStatus.CANCELLED

    def wait(self) -> None:
        """Wait, after the job's end, until a drain that has begun is over. Raises the drain's error."""
        self._stop()
        join_long(self._thread)
        if self._error is not None:
            raise self._error

    def _stop(self) -> None:
        self._is_over = True
        self._told.set()
        with self._sending:
            self._has_begun.set()

    @property
    def _may_end_command(self) -> bool:
        return not self._has_begun.is_set() and not self._is_over

    def _end(self) -> None:
        if self._may_end_command:
            self._has_begun.set()
            raise EndedBeforeStart
        self._told.set()

    def _watch(self) -> None:
        """Drain the queue once SIGTERM or the time limit comes.

        If the limit comes while nothing runs yet, it ends the command as SIGTERM does, even in a read of stdin.
        """
        self._told.wait(None if self._ends_at is None else max(0.0, self._ends_at - monotonic()))
        with self._sending:
            if self._may_end_command:
                send_to_main_thread(END_SIGNAL)
        self._has_begun.wait()
        if self._is_over or self._started is None:
            return
        queue, run = self._started
        self._has_drained = True
        try:
            run._end_display()  # it calls only our own functions
            say(coloured("draining:", "yellow"), f" no new items start, those that run have {self._within:g} s")
            queue.drain(self._within)
        except BaseException as error:  # noqa: BLE001 - raised by who waits for it
            self._error = error
