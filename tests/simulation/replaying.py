"""`Replay`: the steps of a recording once more, in a scheduler of this version.

To look at one: ``python -m tests.simulation.replaying bug.jsonl [STEP]``.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mpqueue.errors as errors_of_ours
from mpqueue._core import messages
from mpqueue._core.commands import Capabilities
from mpqueue._core.messages import JobForgotten, Message, WorkerMemory
from mpqueue._core.scheduler import Scheduler
from mpqueue._core.state.item_table import FailedTry, Failure, ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.pending import Care
from mpqueue._core.state.pipeline import Pipeline
from mpqueue._core.state.resources import JobNeeds, Needs
from mpqueue._options import JobOptions
from mpqueue._parent.history_file import FORMAT, Plain, PlainWriter, fields_of
from mpqueue._wire.frames import Ended, WorkTimes
from mpqueue._wire.item_names import IdRule
from mpqueue._wire.memory.ledger import Claim, Phase
from mpqueue._wire.parcels import AddedItems, Yielded
from mpqueue.errors import MPQueueError
from mpqueue.retry import Fail, RetryAfter, RetryPolicy, decide_by
from mpqueue.status import COMPLETED, FAILED, JobStatus


@dataclass(frozen=True, slots=True)
class Step:
    """One message, and what the scheduler asked for: then (``recorded``) and now (``commands``)."""

    number: int  #: from 1
    at: float
    message: Plain
    recorded: object  #: commands in plain words, or the name of what was raised
    commands: object
    jobs: frozenset[int]  #: the numbers of the jobs that are named in it

    @property
    def same(self) -> bool:
        """True where the scheduler asked for the same as then; it may say more of it than an older version did."""
        return _agree(self.recorded, self.commands)


def _agree(recorded: Any, made: Any) -> bool:
    if isinstance(recorded, list) and isinstance(made, list):
        return len(recorded) == len(made) and all(map(_agree, recorded, made))
    if isinstance(recorded, dict) and isinstance(made, dict):
        return all(name in made and _agree(value, made[name]) for name, value in recorded.items())
    return bool(recorded == made)


class Replay:
    """Opens a recording. Raises OSError, and `MPQueueError` for a file that is none, or of a later format."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines = _lines(path)
        self.header = self._header()
        queue = self.header["queue"]
        given = self.header["engine"]
        engine = Capabilities(**{name: given[name] for name in Capabilities._fields if name in given})
        self.scheduler = Scheduler(
            queue["lanes"],
            random.Random(0),
            max_items_per_worker=queue.get("max_items_per_worker"),
            max_memory_per_worker=queue.get("max_memory_per_worker"),
            has_initializer=queue.get("has_initializer", False),
            engine=engine,
            resources=queue.get("resources", {}),
            device=queue.get("device"),
            decide=self._decide,
        )
        self._reader, self._writer = PlainReader(), PlainWriter()
        self._decisions: list[float | None] = []

    def _header(self) -> Plain:
        header = next(self._lines, {})
        if "mpqueue recording" not in header:
            raise MPQueueError(f"{self._path}: expected a recording that MPQUEUE_RECORD made, got something else")
        if header["mpqueue recording"] > FORMAT:
            made_by = header.get("mpqueue")
            raise MPQueueError(
                f"{self._path}: expected a recording of format {FORMAT} at most, got one of format "
                f"{header['mpqueue recording']}, made by mpqueue {made_by}; replay it with that version"
            )
        return header

    def steps(self) -> Iterator[Step]:
        """Each step, when it has been taken; the scheduler's books stand as they are after it.

        Raises `MPQueueError` for a step that this version can't take.
        """
        number = 0
        for line in self._lines:
            try:
                if "message" not in line:
                    self._reader.job(line)
                    continue
                number += 1
                yield self._step(number, line)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise MPQueueError(
                    f"{self._path}: step {number} can't be taken by this version ({type(error).__name__}: {error}); "
                    f"replay it with mpqueue {self.header.get('mpqueue')}"
                ) from error

    def _step(self, number: int, line: Plain) -> Step:
        message = self._reader.message(line["message"])
        self._decisions = line.get("decisions", [])
        jobs = {line["message"]["job"]} if line["message"].get("job") is not None else set()
        recorded = line["commands"] if "commands" in line else line.get("raised")
        try:
            taken = self.scheduler.handle(message, line["at"])
        except MPQueueError as error:
            return Step(number, line["at"], line["message"], recorded, type(error).__name__, frozenset(jobs))
        # What was recorded has gone through JSON, which knows lists only.
        commands = json.loads(json.dumps([self._writer.plain(command) for command in taken]))
        for command in commands:
            job = command["chunk"]["job"] if "chunk" in command and "with_handler" in command else command.get("job")
            jobs |= {job} if job is not None else set()
        return Step(number, line["at"], line["message"], recorded, commands, frozenset(jobs))

    def _decide(self, policy: RetryPolicy, attempt: int, error: BaseException) -> RetryAfter | Fail:
        """As it was decided then; by the policy, where the scheduler asks more often than then."""
        if not self._decisions:
            return decide_by(policy, attempt, error, random.Random(0))
        delay = self._decisions.pop(0)
        return Fail("as recorded") if delay is None else RetryAfter(delay)


def _lines(path: str) -> Iterator[Plain]:
    """The lines; the last one only where it is whole: the program may have been killed, or the disk full."""
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                form = json.loads(line)
            except ValueError:
                if not line.endswith("\n"):
                    return
                raise MPQueueError(f"{path}: line {number}: expected a recording, got something else") from None
            if not isinstance(form, dict):
                raise MPQueueError(f"{path}: line {number}: expected a recording, got something else")
            yield form


# -- plain forms read again -------------------------------------------------------------------------------------------


class PlainReader:
    """Makes them again, as far as the scheduler can tell."""

    def __init__(self) -> None:
        self.jobs: dict[int, JobBook] = {}
        self._stages: dict[int, list[tuple[JobBook, Plain]]] = {}  #: by the head's number

    def message(self, form: Plain) -> Message:
        """The message. Raises LookupError, TypeError or ValueError for one that this version does not know."""
        kind = getattr(messages, str(form["is"]))
        read = {"job": lambda number: number} if kind is JobForgotten else {"job": self.jobs.__getitem__}
        fields = fields_of(kind)
        values = {name: _read(name, value, read) for name, value in form.items() if name in fields}
        for name, empty in (("handler", None), ("why", ""), ("records", ())):
            if name in fields:
                values.setdefault(name, empty)
        message: Message = kind(**values)
        if isinstance(message, messages.ChunkReported):
            for at, count in (message.yielded or {}).items():
                message.results[at] = Yielded([None] * count)
        if isinstance(message, messages.ItemsAdded):
            _add_rows(message)
        return message

    def job(self, form: Plain) -> JobBook:
        """A job, known by its number from now on."""
        given = form["options"]
        policy = RetryPolicy(**{name: given[name] for name in RetryPolicy.__slots__ if name in given})
        named = {name: given[name] for name in JobOptions.__dataclass_fields__ if name in given}
        stream, count = form["stream"], form["items"]
        grows = form.get("open", False)
        table = ItemTable.of_stream() if stream else ItemTable([None] * count, None, IdRule.POSITION, grows=grows)
        book = JobBook(
            form["job"],
            f"job {form['job']}",
            table,
            JobOptions(policy, seed=0, **named),
            SimpleNamespace(light=not form.get("heavy", False)),
            sealed=form["sealed"],
            listed=form["listed"],
            costs=form.get("costs"),
        )
        if (needs := form.get("needs")) is not None:
            book.need(_needs(needs))
        if (before := form.get("before")) is not None:
            _restore(book, before)
        self.jobs[book.number] = book
        if (stage := form.get("stage")) is not None:
            self._join(book, stage)
        return book

    def _join(self, book: JobBook, stage: Plain) -> None:
        """With its last stage a pipeline is whole."""
        stages = self._stages.setdefault(stage["head"], [])
        stages.append((book, stage))
        if len(stages) == stage["of"]:
            settings = [("", each["most"], each["ordered"]) for _, each in stages]
            Pipeline(self.jobs[stage["head"]], [job for job, _ in stages], settings)


def _add_rows(message: messages.ItemsAdded) -> None:
    table, count = message.job.table, len(message.indices)
    if not table.is_stream:
        table.take_in(_added(count), IdRule.POSITION)
        return
    table.add([None] * count)
    if message.how is None:  # they have ended in an earlier run
        table.take_over(message.indices, [None] * count)


def _needs(form: Plain) -> JobNeeds:
    kinds = [Needs(cpus, tuple((name, amount) for name, amount in amounts)) for cpus, amounts in form["kinds"]]
    return JobNeeds(kinds, form["of"], form["memory"])


def _restore(book: JobBook, before: Plain) -> None:
    table = book.table
    for code, parts in ((COMPLETED, before["completed"]), (FAILED, before["failed"])):
        for lo, hi in parts:
            table.status[lo:hi] = bytes((code,)) * (hi - lo)
    for index, tried in before["tries"]:
        table.attempts[index] = tried
    for index, names in before["history"]:
        table.history[index] = [FailedTry("", 0.0, None, error_of(name)) for name in names]
        table.failures[index] = Failure(error_of(names[-1]), text="")
    for lo, hi in before["failed"]:
        for index in range(lo, hi):
            table.failures.setdefault(index, Failure(Exception(), text=""))
    book.go_on()
    book.retries, book.restored, book.status = before["retries"], before["restored"], JobStatus(before["status"])


def error_of(form: Plain) -> BaseException:
    """An error of the same type, where that is mpqueue's own; else one whose type has the same name."""
    own = getattr(errors_of_ours, form.get("of", ""), Exception)
    made: BaseException = own.__new__(own if own.__name__ == form["error"] else type(form["error"], (own,), {}))
    return made


# -- fields by their names -----------------------------------------------------------------------------------------


def _failure(form: Plain) -> Failure:
    return Failure(error_of(form), None, form["elapsed"], form["charged"], form["error"], form.get("raised", False))


def _added(count: int) -> AddedItems:
    """So many items that are new."""
    return AddedItems([None] * count, None)


def _from_stretches(parts: Sequence[Sequence[int]]) -> Sequence[int]:
    if len(parts) == 1:
        return range(*parts[0])
    return [index for part in parts for index in range(*part)] if parts else range(0)


def _claim(form: Plain) -> Claim:
    return Claim(**{**form, "phase": Phase[form["phase"]]})


def _worker(form: Plain) -> WorkerMemory:
    return WorkerMemory(**{**form, "claim": _claim(form["claim"])})


def _numbers(entries: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if entry is None else entry for entry in entries)


_READ: dict[str, Any] = {
    "added": lambda pairs: {position: _added(count) for position, count in pairs},
    "claim": _claim,
    "ended": Ended.__getitem__,
    "error": error_of,
    "failure": _failure,
    "how": lambda form: Care[form] if isinstance(form, str) else _failure(form),
    "failures": lambda pairs: {position: _failure(form) for position, form in pairs},
    "indices": _from_stretches,
    "peaks": dict,
    "records": lambda count: (None,) * count,
    "results": lambda count: [None] * count,
    "setup_failure": _failure,
    "stretches": lambda entries: [_numbers(entry) for entry in entries],
    "times": lambda form: WorkTimes(**form),
    "unreadable": _failure,
    "yielded": dict,
    "workers": lambda entries: [_worker(entry) for entry in entries],
}


def _read(name: str, value: Any, more: Mapping[str, Any]) -> Any:
    read = more.get(name) or _READ.get(name)
    return value if read is None or value is None else read(value)


def main(path: str, until: str = "0") -> None:
    """Print each step up to that one, and how the books stand then; mark steps that are decided differently now."""
    replay = Replay(path)
    for step in replay.steps():
        print(f"{step.number:6} {'' if step.same else 'DIFFERENT: '}{step.message} -> {step.recorded}")
        if not step.same:
            print(f"       now: {step.commands}")
        if step.number == int(until):
            break
    for part in (*replay.scheduler.books.lanes, *replay.scheduler.books.jobs.values()):
        print({name: value for name in dir(part) if name[0] != "_" and not callable(value := getattr(part, name))})


if __name__ == "__main__":
    main(*sys.argv[1:])
