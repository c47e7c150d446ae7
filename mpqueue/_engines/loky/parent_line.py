"""The parent's ends of things shared with a worker: the line, the worker's questions, and its flags."""

from __future__ import annotations

import array
import contextlib
import functools
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from multiprocessing.synchronize import Event

from mpqueue._engines.loky import launch
from mpqueue._os import descriptors
from mpqueue._os.descriptors import NO_SIGNAL, close_all, is_readable, message_pair
from mpqueue._os.memory_files import leases_tell
from mpqueue._parent.inbox import Inbox
from mpqueue._parent.users_threads import Errands
from mpqueue._wire.line import Answer, DamagedError, Flags, Incoming, encode
from mpqueue._wire.memory import asking
from mpqueue._wire.memory.ledger import Ledger
from mpqueue._wire.memory.segments import own_descriptor, reopen


class Line:
    """The line to one worker. Its owner closes the worker's end once the worker has it, and calls `close` at the end.

    On the inbox's thread, ``on_answer`` is called for each answer, in order, and ``on_end`` once, when the worker's end
    is closed, or with the error if something else than a message comes. Any thread may call `send`, one at a time.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._socket, worker_end = descriptors.socket_pair()
        self._socket.setblocking(False)
        self.worker_end = descriptors.detach(worker_end)
        descriptors.set_blocking(self.worker_end, True)  # gevent's are not
        self._fd = descriptors.adopt(self._socket)
        self._incoming = Incoming(self._fd)
        self._unsent: deque[memoryview] = deque()
        self._lock = threading.Lock()  # held during use: the number must not become another file's
        self._closed = False
        self.is_over = False  #: no answer can come any more
        self._on_answer: Callable[[Answer], object] | None = None
        self._on_end: Callable[[DamagedError | None], object] | None = None

    def open(self, on_answer: Callable[[Answer], object], on_end: Callable[[DamagedError | None], object]) -> None:
        """Watch for answers from now on."""
        self._on_answer, self._on_end = on_answer, on_end
        self._inbox.watch(self._fd, self._ready)

    def send(self, frame: bytes) -> None:
        """Send a frame now, as far as the worker has room; the rest as it reads. Data that it does not read is lost."""
        with self._lock:
            if self._closed:
                return
            is_first = not self._unsent
            self._unsent.append(memoryview(encode(frame)))
            if is_first:
                self._write()
                if self._unsent:
                    self._inbox.watch_writing(self._fd, self._ready, wanted=True)

    def read_rest(self) -> None:
        """Read what has come by now, and take that for all: another process may hold the worker's end open.

        On the inbox's thread.
        """
        with contextlib.suppress(OSError):  # closed meanwhile
            while not self.is_over and is_readable(self._fd, 0.0):
                self._ready()
        if not self.is_over:
            self._end(None)

    def end(self) -> None:
        """Let the worker read the end of the stream: it has answered everything."""
        with self._lock, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the line, and stop watching it."""
        with self._lock:
            if not self._closed:
                self._closed = self.is_over = True
                self._unsent.clear()
                self._inbox.forget(self._fd)
                descriptors.close_socket(self._socket)
                # The line's owner holds this: cycles are collected late, and hold descriptors.
                self._on_answer = self._on_end = None

    def _write(self) -> None:
        try:
            while self._unsent:
                rest = self._unsent[0][self._socket.send(self._unsent[0], descriptors.NO_SIGNAL) :]
                if rest:
                    self._unsent[0] = rest
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            pass
        except OSError:  # it is dead; the report of its end will follow
            self._unsent.clear()

    def _ready(self) -> None:
        """Read received data, and write unsent data. On the inbox's thread."""
        with self._lock:
            if self._closed:
                return
            if self._unsent:
                self._write()
                if not self._unsent:
                    self._inbox.watch_writing(self._fd, self._ready, wanted=False)
            answers, on_answer = self._read(), self._on_answer
            damage = self._incoming.damage
            is_over = answers is None or damage is not None
            if is_over:
                self._inbox.forget(self._fd)
        if on_answer is not None:
            for answer in answers or ():
                on_answer(answer)
        if is_over:
            self._end(damage)

    def _end(self, damage: DamagedError | None) -> None:
        self.is_over = True
        if (on_end := self._on_end) is not None:
            on_end(damage)

    def _read(self) -> list[Answer] | None:
        try:
            return self._incoming.read()
        except BlockingIOError:
            return []
        except OSError:  # reset: it died with frames unread
            return None


# -- The parent's end of `mpqueue._wire.memory.asking`: gives descriptors to a worker. ---------------------------------

#: The most questions answered at a time, between two messages of the coordinator.
AT_A_TIME = 16


class Answering:
    """The parent's end for one worker's questions. Never blocks.

    It makes the worker's end too, which its owner closes once the worker has it; `close` closes it.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._socket, worker_end = message_pair()
        self._socket.setblocking(False)
        self.worker_end = worker_end.detach()
        self._fd = self._socket.fileno()
        self._lock = threading.Lock()  # held during use: the number must not become another file's
        self._closed = False

    def open(self) -> None:
        """Watch for questions from now on."""
        self._inbox.watch(self._fd, self.look)

    def close(self) -> None:
        """Stop watching."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._inbox.forget(self._fd)
                self._socket.close()

    def look(self) -> None:
        """Read the worker's questions. On the inbox's thread."""
        with self._lock:
            try:
                for _ in range(0 if self._closed else AT_A_TIME):
                    data, descriptors = asking.receive(self._socket)
                    close_all(*descriptors)
                    if not data:
                        self._inbox.forget(self._fd)
                        return
                    self._answer(data)
            except BlockingIOError:
                pass
            except OSError:  # reset, or no descriptor left: the worker stops asking, or gets none
                if self._socket.fileno() >= 0:
                    self._inbox.forget(self._fd)

    def _answer(self, data: bytes) -> None:
        anew = False
        if (key := asking.decode(data)) is not None:
            # A lease would not notice a shared descriptor; without leases, sharing takes no descriptor here.
            opened = reopen(*key) if (anew := leases_tell()) else own_descriptor(*key)
        elif data.decode("ascii", "replace") in asking.TRACKERS:
            opened = launch.tracker(data.decode("ascii"))
        else:
            return
        with contextlib.suppress(OSError):  # no room: it does not read the answers to its questions
            if opened is None:
                self._socket.send(data, NO_SIGNAL)
            else:
                rights = array.array("i", [opened])
                self._socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], NO_SIGNAL)
        if opened is not None and anew:
            os.close(opened)


# -- Sets and clears one lane's flags, on a thread that may be abandoned. ----------------------------------------------
#
# `Event.set` takes a lock, which a worker killed at the wrong moment leaves taken for ever (docs/adr/0004), so no
# important thread may call it.


class FlagSetter:
    """The orders to one lane, carried out by ``errands``. It belongs to the lane, which calls `end`."""

    def __init__(self, flags: Flags, ledger: Ledger, errands: Errands) -> None:
        self._flags: Flags | None = flags
        self._ledger = ledger
        self._errands = errands

    def put(self, job: int, *, pause: bool, cancel: bool) -> None:
        """Set the flags for that job soon, in the order of the calls. One calling thread; 2 us."""
        if self._flags is not None:
            self._errands.put(functools.partial(self._carry_out, job, pause, cancel))

    def end(self) -> threading.Thread | None:
        """End the setter, once the worker is dead: orders are ignored from now on. Returns the thread that will end."""
        flags, self._flags = self._flags, None
        self._errands.end()
        if self._errands.thread is not None and flags is not None:
            for event in (flags.pause, flags.cancel):
                _free(event)
        return self._errands.thread

    def _carry_out(self, job: int, pause: bool, cancel: bool) -> None:
        flags = self._flags
        if flags is not None:
            # They count for no job while they change: the last job's flags must not count for this one.
            self._ledger.withdraw_flags()
            _set(flags.pause, pause)
            _set(flags.cancel, cancel)
            self._ledger.give_flags(job)


def _set(event: Event, value: bool) -> None:
    # `end` may release the lock while we hold it; then our own release is one too many.
    with contextlib.suppress(ValueError, AssertionError):
        if value:
            event.set()
        else:
            event.clear()


def _free(event: Event) -> None:
    """Release the lock of an Event if a dead worker has left it taken, so that a `set` stuck in it returns."""
    lock = event._cond._lock  # type: ignore[attr-defined]  # noqa: SLF001 - nothing else gives a dead process's lock back
    lock.acquire(block=False)
    with contextlib.suppress(ValueError):
        lock.release()
