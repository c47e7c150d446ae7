"""A worker's process: whether it gets on while it starts, lives, how it ended, and signals to it and its group.

A kill goes each way that there is, since any of them may be refused: a filter of system calls may not know pidfds, and
a parent that has dropped its privileges may send nothing to workers that have kept theirs. How long a start takes
depends on the machine, and on what it imports.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from mpqueue._os.process.parent_death import Leash
from mpqueue._os.process.process_facts import busy_machine, use_of
from mpqueue._os.process.process_handle import is_reaped, open_process
from mpqueue._os.process.process_signals import KILL, kill_group


class WorkerProcess:
    """One process, from its start until `close`. Any thread may call any method; none blocks.

    Signals go nowhere after `exited` was called, since the number may be another process's by then, or in a fork.
    """

    def __init__(self, pid: int, sentinel: int, leash: Leash | None = None) -> None:
        self.pid = pid
        self.when_killed: Callable[[], object] | None = None  #: called at each kill, on whatever thread that is
        self._leash = leash  #: closed with this; None: signals only
        self._owner = os.getpid()
        self._sentinel = sentinel
        self._lock = threading.RLock()
        self._process = open_process(pid, sentinel)
        self._is_gone = False
        self._is_closed = False

    def fileno(self) -> int:
        """The descriptor that is readable once the process has ended."""
        return self._process.fileno() if not self._is_closed else self._sentinel

    def send(self, number: int) -> None:
        """Send a signal to the process alone. Nothing is sent where the system refuses that."""
        with self._lock:
            if not self._is_gone and os.getpid() == self._owner:
                self._process.send(number)

    def kill(self) -> None:
        """SIGKILL the process and its group."""
        with self._lock:
            # All three: the group, and the worker's hold on its leash, exist only once its initializer has run.
            self.send(KILL)
            self.kill_group()
            if self._leash is not None:
                self._leash.pull()
            if self.when_killed is not None:
                self.when_killed()

    def kill_group(self) -> None:
        """SIGKILL what is left of the group; the number stays taken while any of it lives."""
        with self._lock:
            if not self._is_gone and os.getpid() == self._owner:
                kill_group(self.pid)

    def exited(self) -> int | None:
        """Kill the rest of the group and return the exit code; to be called once `fileno` is readable.

        Negative: minus the signal's number. None: other code has reaped the process and the kernel does not tell.
        """
        with self._lock:
            code = self._process.exit_code()
            # The process too: a sentinel can also be closed by a worker that lives on.
            self.kill()
            self._is_gone = True
        return code

    def await_last_moments(self, has_ended: Callable[[], bool]) -> None:
        """Wait, after `exited`, for a process whose end is reported a little too early: at most 0.25 s."""
        self._process.await_last_moments(has_ended)

    def is_stopped(self) -> bool:
        """Tell whether a signal has stopped the process; False where the system does not tell."""
        return self._process.is_stopped()

    def catches(self, number: int) -> bool:
        """Tell whether the process handles that signal, which else would end it; False if unknown."""
        with self._lock:
            return not self._is_gone and os.getpid() == self._owner and self._process.catches(number)

    def is_reaped(self) -> bool:
        """Tell whether other code has read the exit code already, so that it can't be read again."""
        return is_reaped(self.pid)

    def close(self) -> None:
        """Close the handle and let go of the leash, which ends what is left of the group."""
        with self._lock:
            self._is_gone = self._is_closed = True
            self.when_killed = None  # it knows the lane, which holds this: what goes round is collected late
            if self._leash is not None:
                self._leash.close()
            self._process.close()


#: Seconds without progress after which a start is given up, and between two looks at it.
START_LIMIT, START_LOOK = 300.0, 10.0


class StartProgress:
    """The progress of one process' start: it gets on as long as it uses CPU time.

    Looks are counted rather than seconds: in time in which the program itself did not run, none is missed. Where the
    system does not tell what a process uses, it has `START_LIMIT` in all.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._used: float | None = None
        self._quiet = 0.0

    def look(self) -> str | None:
        """Return why the start is to be given up, None if it is not; to be called every `START_LOOK` seconds."""
        use = use_of(self._pid)
        used = None if use is None else use.cpu
        self._quiet = self._quiet + START_LOOK if used == self._used else 0.0
        self._used = used
        if self._quiet < START_LIMIT:
            return None
        what = "it did not answer" if used is None else f"it did nothing, after {used:g} s of CPU time"
        return f"process {self._pid} was given up while it started: for {START_LIMIT:g} s {what}{busy_machine()}"
