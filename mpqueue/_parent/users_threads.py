"""Work that runs code of users' classes, such as pickling: on a thread of its job's own, never on the coordinator's.

Such code may be slow, and may never end. It delays its own job only. What takes too long is done without, and its
thread is left behind: an item on its way to a worker; a result on its way into a journal only where its job is killed,
since the item's end is announced once that is on disk.

`Errands` is a thread that does things in order: there while there is something to do, left behind where it is stuck.
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

#: Seconds between two looks at what is under way.
LOOK = 15.0
#: Looks in a row that find it at the same object; then that takes long. Between them there was time to go on, whatever
#: the machine, or this process, was doing before.
LOOKS = 3
#: Seconds that it has where its job is killed.
HURRY = 5.0

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

    @abstractmethod
    def takes_long(self) -> R_co | None:
        """Decide, after some time at one object, to cut it short or to go on (None). On the same thread."""


@dataclass(eq=False, slots=True)
class _Turn(Generic[R]):
    aside: Aside[R]
    then: Callable[[R], object]
    look_at: float
    cut_at: float = math.inf  #: when it is done without, whatever it is at
    step: int = -1  #: what it was at, at the last look
    looks: int = 0  #: how many have found it at that


@dataclass(eq=False, slots=True)
class _Line:
    """The tasks of one job, in order; the thread does the first."""

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
        """End the job's thread, without what is not done by now: the job has ended."""
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

    def hurry(self, job: int) -> None:
        """Let what was put for the job by now take at most `HURRY` seconds more; then it is done without."""
        line = self.lines.get(job)
        if line is not None:
            cut_at = self._now() + HURRY
            for waiting in line.waiting:
                waiting.cut_at = min(waiting.cut_at, cut_at)

    @property
    def deadline(self) -> float | None:
        """When to `look`; None where nothing is under way."""
        firsts = [line.waiting[0] for line in self.lines.values() if line.waiting]
        return min((min(first.look_at, first.cut_at) for first in firsts), default=None)

    def look(self) -> None:
        """Go on without what takes too long, and with what there was no room for a thread for."""
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
        """Cut short a task that a fault of ours has ended."""
        left = waiting.aside.cut_short()
        if left is not None:
            self._through(line, waiting, left)

    def _through(self, line: _Line, waiting: _Turn[Any], done: Any) -> None:
        if line.waiting and line.waiting[0] is waiting:
            line.waiting.popleft()
            if line.waiting:
                line.waiting[0].look_at = self._now() + LOOK
        waiting.then(done)


def _tell_fault(error: BaseException) -> None:
    """Log a fault of ours; what it has interrupted is done without."""
    log.critical("mpqueue made a mistake while it pickled something; please report it", exc_info=error)


#: Seconds that the thread waits for more before it ends.
LINGER = 1.0


class Errands:
    """A thread that does errands in order. Its owner calls `end`; any thread puts.

    ``on_fault`` gets what an errand raises; none should.
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
        """True where something that was put has not been done."""
        return self._put != self._done

    def put(self, errand: Callable[[], object]) -> None:
        """Have ``errand`` done some time soon. 2 us, 50 us where the thread has to be started."""
        with self._lock:
            self._put += 1
            self._waiting.put(errand)
            if self.thread is None:
                self._start()

    def go_on(self) -> None:
        """Start the thread if there was no room for it when something was put."""
        with self._lock:
            if self.thread is None and self.busy:
                self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self.thread = thread
        try:
            thread.start()
        except RuntimeError:
            # No room for one: the next errand tries again. While the interpreter exits there are none either, and the
            # workers are about to be killed.
            self.thread = None

    def end(self) -> None:
        """End the thread once it has done what was put before."""
        self._waiting.put(None)

    def abandon(self) -> None:
        """Leave behind an errand that is stuck, with its thread, and go on with those that wait."""
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
    """Objects that the coordinator is done with and may be users': freed on another thread, as that may run any code.

    Python frees an object where its last reference goes. So what holds one is put aside while it is still needed, and
    handed over at the end of the coordinator's turn, when no frame of it refers to that any more. The collector of
    reference cycles runs on any thread that makes objects, and so may run such code here as well.

    Used on its owner's thread, whose identity is ``owner`` until that has ended. ``on_fault``: see `Errands`.
    """

    def __init__(self, name: str, on_fault: Callable[[BaseException], object]) -> None:
        self._errands = Errands(name, on_fault)
        #: What is not needed any more when the owner's turn is over.
        self.left: list[object] = []
        self.owner: int | None = None

    def add(self, left: object) -> None:
        """Add an object that is not needed any more when the owner's turn is over."""
        self.left.append(left)

    def inherit(self, left: object) -> None:
        """Keep an object whose holder is being freed on the owner's thread; on other threads it may be freed there."""
        if self.owner is not None and threading.get_ident() == self.owner:
            self.left.append(left)

    def hand_over(self) -> None:
        """Have the objects freed, at the end of the owner's turn."""
        if self.left:
            left, self.left = self.left, []
            self._errands.put(left.clear)

    def end(self) -> None:
        """Stop, as the owner's thread is about to end: another one may get its identity."""
        self.hand_over()
        self._errands.end()
        self.owner = None
