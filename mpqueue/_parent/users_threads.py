"""Work that runs code of users' classes, such as pickling: on its job's own thread, never on the coordinator's.

Such code may be slow, and may never end. It delays its own job only. A task that takes too long is skipped, and its
thread is left behind: an item on its way to a worker; a result on its way into a journal only if its job is killed,
since the item's end is announced once that is on disk.

`Errands` is a thread that does tasks in order: it exists while there are tasks, and is left behind if it is stuck.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

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


class Aside(Protocol[R_co]):
    """One task. One of the two methods returns a value, the other None, whichever comes first."""

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
    aside: Aside[R]
    then: Callable[[R], object]
    look_at: float
    cut_at: float = math.inf  #: when it is skipped in any case
    step: int = -1  #: its step at the last look
    looks: int = 0  #: how many looks have found it at that step
    is_over: bool = False


@dataclass(eq=False, slots=True)
class _Line:
    """The tasks of one job, in order; the thread does the first."""

    errands: Errands
    waiting: deque[_Turn[Any]] = field(default_factory=deque)


class Asides:
    """The threads, one per job that needs one. Used on the coordinator's thread, which ``later`` reaches from any."""

    def __init__(self, name: str, now: Callable[[], float], later: Callable[[Callable[[], None]], object]) -> None:
        self._name = name
        self._now = now
        self._later = later
        #: The tasks of each job that needs a thread. Without any there is nothing to watch.
        self.lines: dict[int, _Line] = {}

    def put(self, job: int, aside: Aside[R], then: Callable[[R], object]) -> None:
        """Do the task, and call ``then`` on the coordinator's thread, after all earlier tasks of the job."""
        line = self.lines.get(job)
        if line is None:
            line = self.lines[job] = _Line(Errands(f"mpqueue-{self._name}-{job}", _tell_fault))
        waiting = _Turn(aside, then, self._now() + LOOK)
        line.waiting.append(waiting)
        line.errands.put(partial(self._do, line, waiting))

    def has(self, job: int) -> bool:
        """True if the job has a thread, so that its tasks have to wait for their turn."""
        return job in self.lines

    def is_busy(self, job: int) -> bool:
        """True if a task of the job is not done."""
        line = self.lines.get(job)
        return line is not None and bool(line.waiting)

    def caught_up(self, job: int) -> Callable[[], bool]:
        """Return a function that is true once the tasks are done that the job has now."""
        line = self.lines.get(job)
        last = line.waiting[-1] if line is not None and line.waiting else None
        return lambda: last is None or last.is_over

    @property
    def all_done(self) -> bool:
        """True if nothing is under way."""
        return not any(line.waiting for line in self.lines.values())

    def end(self, job: int) -> None:
        """End the job's thread, without unfinished tasks: the job has ended."""
        line = self.lines.pop(job, None)
        if line is not None:
            for waiting in line.waiting:
                waiting.is_over = True
            for waiting in line.waiting:
                if (left := waiting.aside.cut_short()) is not None:
                    waiting.then(left)
            line.waiting.clear()
            line.errands.end()

    def close(self) -> None:
        """End all threads."""
        for job in list(self.lines):
            self.end(job)

    def hurry(self, job: int) -> None:
        """Let the job's current tasks take at most `HURRY` seconds more; then they are skipped."""
        line = self.lines.get(job)
        if line is not None:
            cut_at = self._now() + HURRY
            for waiting in line.waiting:
                waiting.cut_at = min(waiting.cut_at, cut_at)

    @property
    def deadline(self) -> float | None:
        """Return when to `look`; None if nothing is under way."""
        firsts = [line.waiting[0] for line in self.lines.values() if line.waiting]
        return min((min(first.look_at, first.cut_at) for first in firsts), default=None)

    def look(self) -> None:
        """Go on without tasks that take too long, and with tasks for which there was no room for a thread."""
        now = self._now()
        for line in list(self.lines.values()):
            while line.waiting and (first := line.waiting[0]).cut_at <= now:
                first.cut_at = math.inf
                self._go_on_without(line, first, first.aside.cut_short())
            if not line.waiting or (first := line.waiting[0]).look_at > now:
                continue
            first.look_at = now + LOOK
            line.errands.go_on()
            step, first.step = first.step, first.aside.step
            first.looks = first.looks + 1 if step == first.step else 1
            if first.looks == LOOKS:
                self._go_on_without(line, first, first.aside.takes_long())

    def _go_on_without(self, line: _Line, first: _Turn[Any], left: Any) -> None:
        if left is not None:
            line.errands.abandon()
            self._through(line, first, left)

    def _do(self, line: _Line, waiting: _Turn[Any]) -> None:
        """Do a task, on the job's thread."""
        try:
            done = waiting.aside.run()
        except BaseException as error:
            _tell_fault(error)
            self._later(partial(self._do_without, line, waiting))
            return
        if done is not None:
            self._later(partial(self._through, line, waiting, done))

    def _do_without(self, line: _Line, waiting: _Turn[Any]) -> None:
        """Cut short a task that an internal error has ended."""
        left = waiting.aside.cut_short()
        if left is not None:
            self._through(line, waiting, left)

    def _through(self, line: _Line, waiting: _Turn[Any], done: Any) -> None:
        if line.waiting and line.waiting[0] is waiting:
            line.waiting.popleft()
            waiting.is_over = True
            if line.waiting:
                line.waiting[0].look_at = self._now() + LOOK
        waiting.then(done)


def _tell_fault(error: BaseException) -> None:
    """Log an internal error; the task that it has interrupted is skipped."""
    log.critical("mpqueue made a mistake while it pickled something; please report it", exc_info=error)


#: Seconds that the thread waits for more tasks before it ends.
LINGER = 1.0


class Errands:
    """A thread that does tasks in order. Its owner calls `end`; any thread may `put`.

    ``on_fault`` gets an error of a task, which should have none.
    """

    def __init__(self, name: str, on_fault: Callable[[BaseException], object]) -> None:
        self.on_fault = on_fault
        self._name = name
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

    def go_on(self) -> None:
        """Start the thread if there was no room for it at a `put`."""
        with self._lock:
            if self.thread is None and self.busy:
                self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self.thread = thread
        try:
            thread.start()
        except RuntimeError:
            # No room for one: the next errand tries again. While the interpreter exits there is no thread either, and
            # the workers are about to be killed.
            self.thread = None

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


class Leavings:
    """Objects that the coordinator no longer needs and that may be users', to be freed on another thread.

    Python frees an object when its last reference goes, on that thread. So the holder of such an object is put aside
    while it is still needed, and handed over at the end of the coordinator's turn, when no frame refers to it any more.
    The collector of reference cycles runs on any thread that makes objects, and so may run such code here as well.

    Used on its owner's thread, whose identity is ``owner`` until that has ended. ``on_fault``: see `Errands`.
    """

    def __init__(self, name: str, on_fault: Callable[[BaseException], object]) -> None:
        self._errands = Errands(name, on_fault)
        #: Objects that are no longer needed when the owner's turn is over.
        self.left: list[object] = []
        self.owner: int | None = None

    def add(self, left: object) -> None:
        """Add an object that is no longer needed when the owner's turn is over."""
        self.left.append(left)

    def inherit(self, left: object) -> None:
        """Keep an object whose holder is being freed on the owner's thread; on other threads it may be freed there."""
        if self.owner is not None and threading.get_ident() == self.owner:
            self.left.append(left)

    def hand_over(self) -> None:
        """Free the objects elsewhere, at the end of the owner's turn."""
        if self.left:
            left, self.left = self.left, []
            self._errands.put(left.clear)

    def end(self) -> None:
        """Stop, as the owner's thread is about to end: another one may get its identity."""
        self.hand_over()
        self._errands.end()
        self.owner = None
