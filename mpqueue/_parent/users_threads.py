"""Threads for code of users' classes, such as pickling, which never runs on the coordinator's.

Such code may be slow, and may never end. It delays its own job only. `Picklers` has one thread per job, which pickles
items for a worker and results for the journal, in order. A task that takes too long is skipped, and its thread is left
behind: an item; a result only if its job is killed, since the item's end is announced once that is on disk.

`Errands` is a thread that does tasks in order: it exists while there are tasks, and is left behind if it is stuck.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from mpqueue._core.state.job_book import JobBook
from mpqueue._parent.inbox import Inbox

log = logging.getLogger("mpqueue")

#: Seconds between two looks at tasks under way.
LOOK = 15.0
#: Looks in a row that find a task at the same object; then it takes too long. Between them there was time to go on,
#: even if the machine, or this process, was busy before.
LOOKS = 3
#: Seconds that a task has if its job is killed.
HURRY = 5.0

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class PickleTask(Protocol[R_co]):
    """One task. One of the two methods returns a value, the other None, whichever comes first."""

    #: True if only an active job needs it.
    ends_with_job: bool

    @property
    def step(self) -> int:
        """A number that grows with each finished object."""

    @abstractmethod
    def run(self) -> R_co | None:
        """Do the task. On the job's thread."""

    @abstractmethod
    def cut_short(self) -> R_co | None:
        """Skip the unfinished parts. On the coordinator's thread; runs no users' code."""

    @abstractmethod
    def takes_long(self) -> R_co | None:
        """Decide, after some time at one object, to cut it short or to go on (None). On the same thread."""


@dataclass(eq=False, slots=True)
class _Turn(Generic[R]):
    task: PickleTask[R]
    then: Callable[[R], object]
    look_at: float
    cut_at: float = math.inf  #: when it is skipped in any case
    step: int = -1  #: its step at the last look
    looks: int = 0  #: how many looks have found it at that step
    is_begun: bool = False  #: the thread does it


@dataclass(eq=False, slots=True)
class _Line:
    """The tasks of one job, in order; the thread does the first."""

    job: JobBook
    errands: Errands
    turns: deque[_Turn[Any]] = field(default_factory=deque)


class Picklers:
    """The threads that pickle, one per job that needs one. Used on the coordinator's thread, which takes ``inbox``."""

    def __init__(self, now: Callable[[], float], inbox: Inbox) -> None:
        self._now = now
        self._inbox = inbox
        #: The tasks of each job that needs a thread. Without any there is nothing to watch.
        self.lines: dict[int, _Line] = {}
        self._in_hurry = False

    def put(self, job: JobBook, task: PickleTask[R], then: Callable[[R], object]) -> None:
        """Do the task, and call ``then`` on the coordinator's thread, after all earlier tasks of the job."""
        line = self.lines.get(job.number)
        if line is None:
            errands = Errands(f"mpqueue-pickler-{job.number}", _tell_fault, self._inbox.call_later)
            line = self.lines[job.number] = _Line(job, errands)
        turn = _Turn(task, then, self._now() + LOOK)
        if job.killed or self._in_hurry:
            turn.cut_at = self._now() + HURRY
        line.turns.append(turn)
        line.errands.put(partial(self._do, line, turn))

    @property
    def all_done(self) -> bool:
        """True if nothing is under way."""
        return not any(line.turns for line in self.lines.values())

    def end(self, job: JobBook) -> None:
        """Skip the tasks that only an active job needs, now that it has ended; its thread ends after the others."""
        if (line := self.lines.get(job.number)) is not None:
            for turn in [turn for turn in line.turns if turn.task.ends_with_job]:
                self._go_on_without(line, turn, turn.task.cut_short())
            self._end_if_idle(line)

    def close(self) -> None:
        """End all threads, without unfinished tasks."""
        for line in list(self.lines.values()):
            for turn in list(line.turns):
                self._go_on_without(line, turn, turn.task.cut_short())
            line.errands.end()
        self.lines.clear()

    def hurry(self, killed: Sequence[JobBook] | None = None) -> None:
        """Let the tasks of these jobs (None: of all, also later ones) take at most `HURRY` seconds more each."""
        self._in_hurry |= killed is None
        cut_at = self._now() + HURRY
        for line in self.lines.values():
            for turn in line.turns if killed is None or line.job in killed else ():
                turn.cut_at = min(turn.cut_at, cut_at)

    @property
    def deadline(self) -> float | None:
        """Return when to `look`; None if nothing is under way."""
        firsts = [line.turns[0] for line in self.lines.values() if line.turns]
        return min((min(first.look_at, first.cut_at) for first in firsts), default=None)

    def look(self) -> None:
        """Go on without tasks that take too long."""
        now = self._now()
        for line in list(self.lines.values()):
            while line.turns and (first := line.turns[0]).cut_at <= now:
                first.cut_at = math.inf
                self._go_on_without(line, first, first.task.cut_short())
            if not line.turns or (first := line.turns[0]).look_at > now:
                continue
            first.look_at = now + LOOK
            step, first.step = first.step, first.task.step
            first.looks = first.looks + 1 if step == first.step else 1
            if first.looks == LOOKS:
                self._go_on_without(line, first, first.task.takes_long())

    def _go_on_without(self, line: _Line, turn: _Turn[Any], left: Any) -> None:
        if left is not None:
            if turn.is_begun:
                line.errands.abandon()
            self._through(line, turn, left)

    def _do(self, line: _Line, turn: _Turn[Any]) -> None:
        """Do a task, on the job's thread."""
        turn.is_begun = True
        try:
            done = turn.task.run()
        except BaseException as error:
            _tell_fault(error)
            turn.is_begun = False  # its thread is free
            self._inbox.call(lambda: self._go_on_without(line, turn, turn.task.cut_short()))
            return
        if done is not None:
            self._inbox.call(self._through, line, turn, done)

    def _through(self, line: _Line, turn: _Turn[Any], done: Any) -> None:
        line.turns.remove(turn)
        if line.turns:
            line.turns[0].look_at = self._now() + LOOK
        else:
            self._end_if_idle(line)
        turn.then(done)

    def _end_if_idle(self, line: _Line) -> None:
        if not line.turns and not line.job.active and self.lines.pop(line.job.number, None) is not None:
            line.errands.end()


def _tell_fault(error: BaseException) -> None:
    """Log an internal error; the task that it has interrupted is skipped."""
    log.critical("mpqueue made a mistake while it pickled something; please report it", exc_info=error)


#: Seconds that the thread waits for more tasks before it ends.
LINGER = 1.0
#: Seconds between two looks whether there is room for a thread.
ROOM_LOOK = 1.0

#: Calls a function in so many seconds. Callable on any thread.
CallLater = Callable[[float, Callable[[], None]], object]


class Errands:
    """A thread that does tasks in order. Its owner calls `end`; any thread may `put`.

    While the system has no room for the thread, its tasks wait. ``on_fault`` gets an error of a task, which should have
    none.
    """

    def __init__(self, name: str, on_fault: Callable[[BaseException], object], call_later: CallLater) -> None:
        self.on_fault = on_fault
        self._name = name
        self._call_later = call_later
        self._looks_for_room = False
        self._waiting: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._put = 0
        self._done = 0
        self._lock = threading.Lock()  # held while these change, or a thread is started or finds that it is not needed
        self.thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """True if a task has not been done."""
        return self._put != self._done

    def put(self, errand: Callable[[], object]) -> None:
        """Do ``errand`` soon. 2 us, 50 us if the thread has to be started."""
        with self._lock:
            self._put += 1
            self._waiting.put(errand)
            if self.thread is None:
                self._start()

    def _look_for_room(self) -> None:
        with self._lock:
            self._looks_for_room = False
            if self.thread is None and self.busy:
                self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self.thread = thread
        try:
            thread.start()
        except RuntimeError:
            # No room for one. While the interpreter exits there is no thread either, and the workers are about to be
            # killed.
            self.thread = None
            if not self._looks_for_room:
                self._looks_for_room = True
                self._call_later(ROOM_LOOK, self._look_for_room)

    def end(self) -> None:
        """End the thread once all earlier tasks are done."""
        self._waiting.put(None)

    def abandon(self) -> None:
        """Leave behind a stuck task, with its thread, and go on with those that wait."""
        with self._lock:
            if not self.busy:  # it has just been done
                return
            self._done += 1
            self.thread = None
            if self.busy:
                self._start()

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            try:
                errand = self._waiting.get(timeout=LINGER)
            except queue.Empty:
                with self._lock:
                    if self.thread is not me:  # abandoned
                        return
                    if self._waiting.empty():
                        self.thread = None
                        return
                continue
            if errand is None:
                return
            try:
                errand()
            except BaseException as error:
                self.on_fault(error)
            del errand  # what it holds must not live until the next one
            with self._lock:
                if self.thread is not me:  # abandoned: it counts as done, and another thread goes on
                    return
                self._done += 1
