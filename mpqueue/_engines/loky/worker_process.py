"""A worker's process: the progress of its start, its life, and signals to it and its group.

A kill uses every way, since any of them may be refused: a filter of system calls may not know pidfds, and a parent that
has dropped its privileges can't send signals to workers that have kept theirs. The time of a start depends on the
machine, and on its imports.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
from collections.abc import Callable

from mpqueue._os import descriptors, process_facts, process_signals
from mpqueue._os.parent_death import Leash
from mpqueue._os.process_facts import busy_machine, use_of
from mpqueue._os.process_handle import open_exactly, open_process
from mpqueue._os.process_signals import KILL, kill_group
from mpqueue._parent.inbox import Inbox, TimedCall
from mpqueue._wire.line import COOKIE_VARIABLE


class WorkerProcess:
    """One process, from its start until `close`. Any thread may call any method; none blocks.

    No signals are sent after `exited` was called, since the number may be another process's by then, or in a fork.
    """

    def __init__(self, pid: int, sentinel: int, leash: Leash) -> None:
        self.pid = pid
        self.when_killed: Callable[[], object] | None = None  #: called at each kill, on the killing thread
        self._leash = leash  #: closed with this
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._process = open_process(pid, sentinel)
        self._is_gone = False

    def fileno(self) -> int:
        """The descriptor that is readable once the process has ended."""
        return self._process.fileno()

    def send(self, number: int) -> None:
        """Send a signal to the process only. Nothing is sent if the system refuses that."""
        with self._lock:
            if not self._is_gone and os.getpid() == self._owner:
                self._process.send(number)

    def kill(self) -> None:
        """Send SIGKILL to the process and its group."""
        with self._lock:
            # All three: the group, and the worker's hold on its leash, exist only once its initializer has run.
            self.send(KILL)
            if not self._is_gone and os.getpid() == self._owner:
                kill_group(self.pid)  # the number stays taken while any of it lives
            self._leash.pull()
            if self.when_killed is not None:
                self.when_killed()

    def has_false_end(self) -> bool:
        """True if `fileno` is readable although the process lives. To be called before `exited`."""
        with self._lock:
            return self._process.has_false_end()

    def exited(self) -> None:
        """Kill the rest of the group; to be called once `fileno` is readable, before the exit code is read."""
        with self._lock:
            self.when_killed = None
            # The process too: a worker that lives on can also close a sentinel.
            self.kill()
            self._is_gone = True

    def close(self) -> None:
        """Close the handle and the leash, which ends the rest of the group."""
        with self._lock:
            self._is_gone = True
            self.when_killed = None  # it knows the lane, which holds this: cycles are collected late
            self._leash.close()
            self._process.close()


#: Seconds without progress after which a start is given up, and between two looks at it.
START_LIMIT, START_LOOK = 300.0, 10.0


class StartProgress:
    """The progress of one process's start: it progresses as long as it uses CPU time.

    Looks are counted instead of seconds: time in which the program itself did not run does not count. If the system
    does not report a process's CPU time, a start has `START_LIMIT` seconds in total.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._used: float | None = None
        self._quiet = 0.0

    def look(self) -> str | None:
        """Return why the start has to be given up, None if it has not; call it every `START_LOOK` seconds."""
        use = use_of(self._pid)
        used = None if use is None else use.cpu
        self._quiet = self._quiet + START_LOOK if used == self._used else 0.0
        self._used = used
        if self._quiet < START_LIMIT:
            return None
        what = "it did not answer" if used is None else f"it did nothing, after {used:g} s of CPU time"
        return f"process {self._pid} was given up while it started: for {START_LIMIT:g} s {what}{busy_machine()}"


# -- Asking a worker for its stacks: before it is killed, and when a caller wants to see them. On the inbox's thread.

#: Seconds to wait for the beginning of the text. It comes within 2 ms, later on a busy machine, or not at all: the
#: handler blocks the signal, or on Windows holds the interpreter. A kill is delayed by that time.
STACKS_WAIT_S = 0.5
#: Seconds without more text after which it is complete. It comes in pieces, 10 us per thread, between which the worker
#: may have to wait on a busy machine.
SETTLE = 0.02
#: The most bytes that are read.
MAX_STACKS_BYTES = 1 << 20


class StackDump:
    """One worker's pipe for stacks: any number of `look`s, then `end`.

    Its owner watches the pipe from the worker's first answer on, and calls `read` if it is readable.
    """

    def __init__(self, fd: int, worker: WorkerProcess, inbox: Inbox) -> None:
        self._fd = fd
        self._worker = worker
        self._inbox = inbox
        self._text = bytearray()
        self._lookers: list[Callable[[str | None], object]] = []
        self._timer: TimedCall | None = None

    def look(self, tell: Callable[[str | None], object]) -> None:
        """Call ``tell`` with the stack; with None if there is none. The worker goes on."""
        if not self._lookers:
            process_signals.ask(self._worker.send, self._fd)
            self._wait(STACKS_WAIT_S)
        self._lookers.append(tell)

    def end(self) -> None:
        """Pass on what has come, after the worker's death."""
        if self._lookers:
            descriptors.set_blocking(self._fd, False)
            while self.read():
                pass
        self._inbox.forget(self._fd)
        self._tell_lookers()

    def _wait(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = self._inbox.later(seconds, self._tell_lookers)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._inbox.cancel(self._timer)
            self._timer = None

    def _tell_lookers(self) -> None:
        """Pass the text on: it is complete, or does not come."""
        self._cancel_timer()
        text, lookers, self._lookers = self._text.decode(errors="replace") or None, self._lookers, []
        self._text.clear()
        for tell in lookers:
            tell(text)

    def read(self) -> bool:
        """Read available data; False at the end, or if there is none. Text that was not asked for is dropped."""
        try:
            text = descriptors.read(self._fd, 1 << 16)
        except BlockingIOError:
            return False
        if not text:
            self._inbox.forget(self._fd)
            return False
        if self._lookers:
            if len(self._text) < MAX_STACKS_BYTES:
                self._wait(SETTLE)
            self._text += text
        return True


# -- Processes that outlive their worker: those that left its group, found by a cookie in their environment.
#
# A worker's children die with its process group. A child with its own group or session, or a program started from it,
# escapes that; but its environment still names its lane::
#
#     MPQUEUE_LANE=<parent's id>.<its start time>.<its pid namespace>/<pool>/<lane>/<generation>/
#
# A child with another environment is not found; nor is any if the system does not list processes, see
# `mpqueue._os.process_facts`. If no descriptor is left to look with, no process is killed: the next look finds
# them.

_PATTERN = re.compile(rb"(?:^|\0)" + COOKIE_VARIABLE.encode() + rb"=((\d+)\.(\d+)\.([^/\0]*)/[^\0]*)")

#: The number of further looks after a kill: killed processes may have had new children meanwhile.
_LOOKS = 3


def cookie(*path: int) -> str:
    """Return the cookie of everything under ``path``: pool, lane, generation, or fewer of these."""
    return "".join(f"{part}/" for part in (_identity(os.getpid()), *path))


@functools.lru_cache(maxsize=1)
def _identity(pid: int) -> str:
    return f"{pid}.{process_facts.start_time(pid)}.{process_facts.namespace()}"


def kill_strays(prefix: str) -> None:
    """Send SIGKILL to every process whose cookie begins with ``prefix``, and `kill_orphans`.

    Reads the environment of each process of this user: 4 ms of CPU time for 140 of them.
    """
    wanted = prefix.encode()
    _kill_where(lambda found: found[1].startswith(wanted) or _is_orphan(found))


@functools.cache
def kill_orphans() -> None:
    """Send SIGKILL to processes left by workers whose parent died without sweeping: killed, say, for lack of memory.

    It works once per process; later calls do nothing.
    """
    _kill_where(_is_orphan)


def _is_orphan(found: re.Match[bytes]) -> bool:
    # In another pid namespace (a container's), the parent's number means nothing here.
    return found[4].decode() == process_facts.namespace() and process_facts.start_time(int(found[2])) != int(found[3])


def _kill_where(condemned: Callable[[re.Match[bytes]], bool]) -> None:
    with contextlib.suppress(OSError):
        for _ in range(_LOOKS):
            any_killed = False
            for pid in process_facts.others():
                found = _cookie_of(pid)
                if found is not None and condemned(found):
                    any_killed |= _kill(pid, found[1])
            if not any_killed:
                return


def _kill(pid: int, of_cookie: bytes) -> bool:
    """Send SIGKILL to exactly that process, or to none if the number is another process's by now."""
    with contextlib.suppress(OSError), contextlib.closing(open_exactly(pid)) as process:
        found = _cookie_of(pid)
        if found is not None and found[1] == of_cookie:
            process.send(KILL)
            return True
    return False


def _cookie_of(pid: int) -> re.Match[bytes] | None:
    environment = process_facts.environment(pid)
    return None if environment is None else _PATTERN.search(environment)
