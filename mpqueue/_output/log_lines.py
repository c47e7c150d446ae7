"""Progress where there is no terminal: a line now and then, for a log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

from mpqueue._output.bars import describe
from mpqueue._text import fitting, visible_line
from mpqueue._worker import station

if TYPE_CHECKING:
    from mpqueue._output.job_facts import Progress

#: Seconds between two lines.
EVERY = 5.0
#: ``0``: `progress=True` shows nothing.
VARIABLE = "MPQUEUE_PROGRESS"


def are_wanted() -> bool:
    """False where lines about progress are not read: in tests run by pytest, and of a job inside a worker."""
    return "PYTEST_CURRENT_TEST" not in os.environ and station.here() is None


def is_silenced() -> bool:
    """True where the user wants to see no progress in any program."""
    return os.environ.get(VARIABLE) == "0"


def _to_stderr(line: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # it is closed, or not there; the job goes on
        sys.stderr.write(f"{fitting(line, sys.stderr)}\n")
        sys.stderr.flush()


class LogLines:
    """Writes a line each 5 s, and one at the end, for each job that takes at least 1 s."""

    def __init__(
        self, label: Callable[[Progress], str], write: Callable[[str], None] = _to_stderr, *, least: float = 1.0
    ) -> None:
        self._label = label
        self._write = write
        self._least = least  #: seconds that a job has to take
        self._next: dict[str, float] = {}

    def __call__(self, progress: Progress) -> None:
        """Write a line, where one is due."""
        due = self._next.get(progress.job_id, EVERY)
        is_last = progress.status.final and due < inf and progress.elapsed >= self._least
        if progress.elapsed >= due or is_last:
            self._next[progress.job_id] = inf if progress.status.final else progress.elapsed + EVERY
            label = self._label(progress)
            self._write(visible_line(f"{label}: {describe(progress)}" if label else describe(progress)))
