"""`Replay`: the steps of a recording once more, in a scheduler of this version."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpqueue._core.capabilities import Capabilities
from mpqueue._core.scheduler import Scheduler
from mpqueue._parent.recording.plain_forms import Plain, PlainReader, PlainWriter
from mpqueue._parent.recording.recorded_scheduler import FORMAT
from mpqueue.errors import MPQueueError
from mpqueue.retry import Fail, RetryAfter, RetryPolicy, decide_by


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
