"""A recording for a bug report: the scheduler's messages and commands, written into a file as they go.

A queue has a `RecordedScheduler` instead of its scheduler if ``MPQUEUE_RECORD`` names a file; it costs 50 us per
message. Lines of JSON, the first one about the queue, then a line for each job and each step. Docs:
how-to/report-a-bug.md. The tests repeat the steps (`tests/simulation/replaying.py`).

A recording has no users' data: only the positions of items, the presence of results, the type names of errors, and the
numbers and options of jobs. Texts are left out, also those of warnings and of stacks.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import sys
import weakref
from collections.abc import Hashable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

import mpqueue.errors as errors_of_ours
from mpqueue._core import messages
from mpqueue._core.commands import Command
from mpqueue._core.messages import Message
from mpqueue._core.scheduler import Scheduler
from mpqueue._core.state.item_table import Failure, ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.pending import stretches
from mpqueue._core.state.resources import JobNeeds
from mpqueue._os.files import open_file
from mpqueue._wire.parcels import AddedItems
from mpqueue.errors import MPQueueError
from mpqueue.retry import Fail, RetryAfter, RetryPolicy, decide_by
from mpqueue.status import COMPLETED, FAILED, JobStatus

if TYPE_CHECKING:
    import random

log = logging.getLogger("mpqueue")

Plain = dict[str, Any]

#: The variable that names the file.
VARIABLE = "MPQUEUE_RECORD"
#: The version of the file's form: raised if an older version could not read it.
FORMAT = 1
#: The most files tried for one name: ``file``, ``file.2``, ``file.3`` and so on.
MOST_FILES = 10_000


class HistoryFile:
    """A new file, written line by line, complete lines only. One that can't be written is given up."""

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
        """Close the file."""
        self._end()


def _create(path: str) -> tuple[int, str]:
    """Make the first file of that name, or with a number, that does not exist. Raises `MPQueueError`."""
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
    """A scheduler whose steps are written into a history file. On the coordinator's thread, like any scheduler."""

    def __init__(self, file: HistoryFile, backend: str, lanes: int, rng: random.Random, **settings: Any) -> None:
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
        """Handle a message like any scheduler; it and its commands are in the file before they are carried out."""
        step: Plain = {"at": now, "message": self._message(message)}
        try:
            commands = super().handle(message, now)
        except BaseException as error:
            self._write(step, {"raised": type(error).__name__})
            raise
        if (grown := self._writer.grown(message)) is not None:  # by now it is known which of them are new
            step["message"] |= grown
        self._write(step, {"commands": [self._writer.plain(command) for command in commands]})
        return commands

    def _message(self, message: Message) -> Plain:
        """Return a message's plain form. Called before it is handled, which takes its results out."""
        job = getattr(message, "job", None)
        if job is not None and not isinstance(job, int) and job.number not in self._known:
            for each in job.family:  # a pipeline is one thing: all of it exists before it starts
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


# -- in plain words ----------------------------------------------------------------------------------------------------

#: Fields that are not recorded: texts, users' data, and data for the coordinator only.
_LEFT_OUT = frozenset({"handler", "output", "profile", "returned", "rows", "stack", "text", "why"})
#: Fields whose number only is recorded.
_COUNTED = frozenset({"records", "results"})
#: Options of a job that the scheduler does not use, or that are users' own.
_NOT_OPTIONS = frozenset({"retry", "seed"})


class PlainWriter:
    """Plain forms of one queue's history. Fates have a number here instead of their name."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, int] = {}

    def plain(self, thing: Any) -> Plain:
        """Return the plain form of a message or a command; its type's name comes first."""
        return {"is": type(thing).__name__} | self._fields(thing)

    def grown(self, message: Message) -> Plain | None:
        """Return the change of a message's form after it was handled: how many items an open job has got; else None."""
        if isinstance(message, messages.ChunkReported) and message.added:
            return {"added": self._value(message.added)}
        return None

    def _fields(self, thing: Any) -> Plain:
        names = [name for name in fields_of(type(thing)) if name not in _LEFT_OUT]
        return {name: self._field(name, getattr(thing, name)) for name in names}

    def _field(self, field: str, value: Any) -> Any:
        if value is None:
            return None
        if field == "dies_with":
            return self._groups.setdefault(value, len(self._groups))
        if field in _COUNTED:
            return len(value)
        if field == "indices":
            return [[part[0], part[-1] + 1] for part in _in_order(value)]
        return self._value(value)

    def _value(self, value: Any) -> Any:
        if isinstance(value, float) and math.isnan(value):
            return None
        if isinstance(value, Enum) and not isinstance(value, JobStatus):
            return value.name
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, AddedItems):
            return len(value.new)
        if isinstance(value, (JobBook, Chunk, Failure, BaseException)):
            return self._of_the_books(value)
        return self._of_several(value)

    def _of_the_books(self, value: JobBook | Chunk | Failure | BaseException) -> Any:
        match value:
            case JobBook():
                return value.number
            case Chunk():
                where = {"number": value.number, "job": value.job.number, "care": value.care.name}
                indices = self._field("indices", value.indices)
                return {**where, "indices": indices, "attempts": [*value.attempts]}
            case Failure():
                form = {**_name(value.error), "charged": value.charged, "elapsed": value.elapsed}
                return {**form, "raised": True} if value.raised else form
            case _:
                return _name(value)

    def _of_several(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return [[key, self._value(entry)] for key, entry in value.items()]
        if isinstance(value, frozenset):
            return sorted(value)
        if hasattr(value, "_fields"):
            return self._fields(value)
        return [self._value(entry) for entry in value]

    @staticmethod
    def job(book: JobBook) -> Plain:
        """A job in its state when the scheduler gets it for the first time."""
        table, options = book.table, book.options
        retry = options.retry
        form: Plain = {
            "job": book.number,
            "items": len(table),
            "stream": table.is_stream,
            "open": table.grows,
            "costs": None if book.costs is None else [*book.costs],
            "needs": None if book.needs is None else _plain_needs(book.needs),
            "sealed": book.sealed,
            "listed": book.listed,
            "heavy": book.handler is not None and not book.handler.light,
            "options": {
                **{name: getattr(options, name) for name in vars(options) if name not in _NOT_OPTIONS},
                "max_retries": retry.max_retries,
                "base_delay": retry.base_delay,
                "factor": retry.factor,
                "max_delay": retry.max_delay,
                "jitter": retry.jitter,
            },
        }
        if (stage := book.stage) is not None:
            head, of = stage.pipeline.head.number, len(stage.pipeline.jobs)
            place = {"head": head, "place": stage.place, "of": of}
            form["stage"] = {**place, "most": stage.most, "ordered": stage.ordered}
        if not form["stream"] and (book.restored or any(table.status) or table.history):
            form["before"] = {
                "status": str(book.status),
                "restored": book.restored,
                "retries": book.retries,
                "completed": _stretches_of(table, COMPLETED),
                "failed": _stretches_of(table, FAILED),
                "tries": [[index, tried] for index, tried in enumerate(table.attempts) if tried],
                "history": [[index, [_name(one.exception) for one in tries]] for index, tries in table.history.items()],
            }
        return form


def _plain_needs(needs: JobNeeds) -> Plain:
    kinds = [[kind.cpus, [[*amount] for amount in kind.amounts]] for kind in needs.kinds]
    return {"kinds": kinds, "of": None if needs.of is None else [*needs.of], "memory": needs.memory}


def _stretches_of(table: ItemTable, code: int) -> list[list[int]]:
    indices = [index for index, status in enumerate(table.status) if status == code]
    return [[part.start, part.stop] for part in stretches(indices)]


def _in_order(indices: Sequence[int]) -> list[Sequence[int]]:
    """Return the indices, in any order, as stretches."""
    if not indices:
        return []
    return [indices] if isinstance(indices, range) else [*stretches(indices)]


def fields_of(kind: Any) -> tuple[str, ...]:
    """Return the names of the fields of a message's class, which is a named tuple or a dataclass."""
    return kind._fields if issubclass(kind, tuple) else tuple(kind.__dataclass_fields__)


def _name(error: BaseException) -> Plain:
    """The type's name; with the one of mpqueue's own types, if it is one."""
    own = next((kind for kind in type(error).__mro__ if kind.__module__ == errors_of_ours.__name__), None)
    return {"error": type(error).__name__} if own is None else {"error": type(error).__name__, "of": own.__name__}
