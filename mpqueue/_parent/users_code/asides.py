"""Work that runs code of users' classes, such as pickling: on a thread of its job's own, never on the coordinator's.

Such code may be slow, and may never end. It delays its own job only; and it has a limit, after which the coordinator
goes on without it and leaves the thread behind.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from mpqueue._parent.errands import Errands

log = logging.getLogger("mpqueue")

#: Seconds between two looks at what is under way.
LOOK = 15.0
#: Looks in a row that find it at the same object; then that takes too long, and what there is has to do. Between them
#: there was time to go on, whatever the machine, or this process, was doing before.
LOOKS = 3

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Aside(Protocol[R_co]):
    """One thing to do. One of the two methods gives a value, the other None, whichever comes first."""

    @property
    def step(self) -> int:
        """Goes up with each object that it is done with."""

    @abstractmethod
    def run(self) -> R_co | None:
        """Do it. On the job's thread."""

    @abstractmethod
    def cut_short(self) -> R_co | None:
        """Do without what is not done by now. On the coordinator's thread; runs no user's code."""


@dataclass(eq=False, slots=True)
class _Turn(Generic[R]):
    aside: Aside[R]
    then: Callable[[R], object]
    look_at: float
    step: int = -1  #: what it was at, at the last look
    looks: int = 0  #: how many have found it at that


@dataclass(eq=False, slots=True)
class _Line:
    """What one job has to do, in order; the thread does the first."""

    errands: Errands
    waiting: deque[_Turn[Any]] = field(default_factory=deque)


class Asides:
    """The threads, one a job that needs one. Used on the coordinator's thread, which ``later`` reaches from any."""

    def __init__(self, name: str, now: Callable[[], float], later: Callable[[Callable[[], None]], object]) -> None:
        self._name = name
        self._now = now
        self._later = later
        #: What each job has to do, where it needs a thread. Without any there is nothing to look after.
        self.lines: dict[int, _Line] = {}

    def put(self, job: int, aside: Aside[R], then: Callable[[R], object]) -> None:
        """Have it done, and ``then`` called on the coordinator's thread, after all that was put before for the job."""
        line = self.lines.get(job)
        if line is None:
            line = self.lines[job] = _Line(Errands(f"mpqueue-{self._name}-{job}", _tell_fault))
        waiting = _Turn(aside, then, self._now() + LOOK)
        line.waiting.append(waiting)
        line.errands.put(partial(self._do, line, waiting))

    def has(self, job: int) -> bool:
        """True where the job has a thread, so that what it has to do has to wait for its turn."""
        return job in self.lines

    def is_busy(self, job: int) -> bool:
        """True where something that was put for the job is not done."""
        line = self.lines.get(job)
        return line is not None and bool(line.waiting)

    @property
    def all_done(self) -> bool:
        """True where nothing is under way."""
        return not any(line.waiting for line in self.lines.values())

    def end(self, job: int) -> None:
        """The job has ended, and what is not done by now is not wanted any more."""
        line = self.lines.pop(job, None)
        if line is not None:
            for waiting in line.waiting:
                if (left := waiting.aside.cut_short()) is not None:
                    waiting.then(left)
            line.waiting.clear()
            line.errands.end()

    def close(self) -> None:
        """End all threads."""
        for job in list(self.lines):
            self.end(job)

    def cut_short(self) -> None:
        """Go on without what is not done."""
        for line in list(self.lines.values()):
            while line.waiting and self._cut_short(line, line.waiting[0]):
                pass

    @property
    def deadline(self) -> float | None:
        """When to `look`; None where nothing is under way."""
        return min((line.waiting[0].look_at for line in self.lines.values() if line.waiting), default=None)

    def look(self) -> None:
        """Go on without what takes too long."""
        now = self._now()
        for line in list(self.lines.values()):
            if not line.waiting or (first := line.waiting[0]).look_at > now:
                continue
            first.look_at = now + LOOK
            step, first.step = first.step, first.aside.step
            first.looks = first.looks + 1 if step == first.step else 1
            if first.looks >= LOOKS:
                self._cut_short(line, first)

    def _cut_short(self, line: _Line, first: _Turn[Any]) -> bool:
        left = first.aside.cut_short()
        if left is None:
            return False
        line.errands.abandon()
        self._through(line, first, left)
        return True

    def _do(self, line: _Line, waiting: _Turn[Any]) -> None:
        """On the job's thread."""
        try:
            done = waiting.aside.run()
        except BaseException as error:
            _tell_fault(error)
            return
        if done is not None:
            self._later(partial(self._through, line, waiting, done))

    def _through(self, line: _Line, waiting: _Turn[Any], done: Any) -> None:
        if line.waiting and line.waiting[0] is waiting:
            line.waiting.popleft()
            if line.waiting:
                line.waiting[0].look_at = self._now() + LOOK
        waiting.then(done)


def _tell_fault(error: BaseException) -> None:
    """A fault of ours: the limit ends the wait for what it has interrupted."""
    log.critical("mpqueue made a mistake while it pickled something; please report it", exc_info=error)
