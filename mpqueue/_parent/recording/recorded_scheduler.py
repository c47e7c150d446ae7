"""`RecordedScheduler`: a scheduler that writes its messages and commands into a file, as it goes.

A queue has one instead of its scheduler where ``MPQUEUE_RECORD`` names a file; then it costs 50 us a message. Lines of
JSON, the first one about the queue, then a line for each job and each step. Docs: how-to/report-a-bug.md.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import weakref
from typing import TYPE_CHECKING, Any

from mpqueue._core.commands import Command
from mpqueue._core.messages import Message
from mpqueue._core.scheduler import Scheduler
from mpqueue._os.files import open_file
from mpqueue._parent.recording.plain_forms import Plain, PlainWriter
from mpqueue.errors import MPQueueError
from mpqueue.retry import Fail, RetryAfter, RetryPolicy, decide_by

if TYPE_CHECKING:
    import random

log = logging.getLogger("mpqueue")

#: The variable that names the file.
VARIABLE = "MPQUEUE_RECORD"
#: The form of the file: raised where an older version could not read what is written.
FORMAT = 1
#: Files tried for one name: ``file``, ``file.2``, ``file.3`` and so on.
MOST_FILES = 10_000


class RecordingFile:
    """The file: made anew, written a line at a time, whole lines only. One that can't be written is given up."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor, self.path = _create(os.path.abspath(path))
        self._end = weakref.finalize(self, os.close, self._descriptor)
        self._owner = os.getpid()

    def write(self, form: Plain) -> None:
        """Write a line."""
        if not self._end.alive or os.getpid() != self._owner:
            return
        line = memoryview(json.dumps(form, separators=(",", ":")).encode() + b"\n")
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            log.warning("the recording %s ends here, since it can't be written: %s", self.path, error)
            self.close()

    def close(self) -> None:
        """Nothing more is written."""
        self._end()


def _create(path: str) -> tuple[int, str]:
    """The first file of that name, or of it and a number, that is not there yet. Raises `MPQueueError`."""
    for number in range(1, MOST_FILES):
        name = path if number == 1 else f"{path}.{number}"
        try:
            return open_file(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), name
        except FileExistsError:
            continue
        except (OSError, ValueError) as error:
            reason = f"{VARIABLE}: expected the name of a file that can be made, got {path!r}: {error}"
            raise MPQueueError(f"{reason}; unset it, or name another") from error
    raise MPQueueError(f"{VARIABLE}: expected a file of which there are less than {MOST_FILES}, got {path!r}; unset it")


class RecordedScheduler(Scheduler):
    """On the coordinator's thread, as any scheduler."""

    def __init__(self, file: RecordingFile, backend: str, lanes: int, rng: random.Random, **settings: Any) -> None:
        super().__init__(lanes, rng, decide=self._decide, **settings)
        self.file = file
        self._rng = rng
        self._writer = PlainWriter()
        self._known: set[int] = set()
        self._decisions: list[float | None] = []
        engine = settings.pop("engine")
        file.write(
            {
                "mpqueue recording": FORMAT,
                "mpqueue": sys.modules["mpqueue"].__version__,
                "python": platform.python_version(),
                "implementation": platform.python_implementation(),
                "platform": platform.platform(),
                "cpus": os.cpu_count(),
                "backend": backend,
                "engine": engine._asdict(),
                "queue": {"lanes": lanes, **settings},
            }
        )

    def handle(self, message: Message, now: float) -> list[Command]:
        """As any scheduler does; both are in the file before anything is done."""
        step: Plain = {"at": now, "message": self._message(message)}
        try:
            commands = super().handle(message, now)
        except BaseException as error:
            self._write(step, {"raised": type(error).__name__})
            raise
        if (grown := self._writer.grown(message)) is not None:  # which of them are new is known now
            step["message"] |= grown
        self._write(step, {"commands": [self._writer.plain(command) for command in commands]})
        return commands

    def _message(self, message: Message) -> Plain:
        """Before it is handled: its results are taken out of it then."""
        job = getattr(message, "job", None)
        if job is not None and not isinstance(job, int) and job.number not in self._known:
            for each in job.family:  # a pipeline is one thing: all of it is there before it starts
                self._known.add(each.number)
                self.file.write(self._writer.job(each))
        return self._writer.plain(message)

    def _write(self, step: Plain, outcome: Plain) -> None:
        if self._decisions:
            step["decisions"], self._decisions = self._decisions, []
        self.file.write(step | outcome)

    def _decide(self, policy: RetryPolicy, attempt: int, error: BaseException) -> RetryAfter | Fail:
        decision = decide_by(policy, attempt, error, self._rng)
        self._decisions.append(decision.delay if isinstance(decision, RetryAfter) else None)
        return decision
