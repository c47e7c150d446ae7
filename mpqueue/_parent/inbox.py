"""The coordinator's inbox: all events of a queue pass through here, one at a time.

Three kinds of things: messages, which any thread posts; descriptors that are ready, whose readers are called here; and
calls that are due. So a worker's answer, and its end, wake the coordinator directly, without another thread. The
clock is here, too: no other module of the parent reads the time.

Errors that were raised here come in as messages too (`found`). A traceback holds the frames of all calls at that time,
and so the lane, the segments and the whole queue, for as long as the error is referenced; so errors that are kept lose
it, with all they say (`take_traceback`).
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import queue
import selectors
import time
import traceback
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from mpqueue._core.messages import FaultFound, Message
from mpqueue._os import descriptors, standard_streams
from mpqueue._os import system as clock
from mpqueue._os.descriptors import NO_SIGNAL, Selector, make_selector
from mpqueue._parent.replies import Reply
from mpqueue.errors import InternalError, shown


class Clock(Protocol):
    """The source of the coordinator's times."""

    def now(self) -> float:
        """Seconds of the monotonic clock, which workers share."""

    def wall(self) -> float:
        """Seconds since the epoch, for people."""


#: Seconds that this process has had a CPU, all its threads together.
cpu_seconds = time.process_time


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return clock.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch, as the program sees them: a test may have frozen them."""
        return time.time()


def text_of(error: BaseException) -> str:
    """Return the error's type and text; the text of some errors can't be read."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:
        return f"{type(error).__name__} (its str() fails)"


def take_traceback(error: BaseException) -> str:
    """Return the error's traceback as text; afterwards neither it nor any error that led to it holds a frame."""
    text = "".join(traceback.format_exception(error))
    seen: set[int] = set()
    linked: list[BaseException | None] = [error]
    while linked:
        each = linked.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            linked += [each.__cause__, each.__context__]
            linked += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return text


# -- Internal errors of mpqueue: they are logged, and turned into the message that ends the queue. ---------------------
#
# Any thread may find one. Our own code must have raised it, not users' listeners, handlers and values.

_log = logging.getLogger("mpqueue")

REPORT = 'please report it, with this traceback and what you did: see "Report a bug" in the documentation'


def found(at: str, error: BaseException) -> FaultFound:
    """Return the fault for ``error``, which came up ``at`` this place."""
    text = "".join(traceback.format_exception(error))
    _log.critical("mpqueue made a mistake %s; please report it\n%s", at, text)
    made = InternalError(f"mpqueue made a mistake {at}: {shown(error)}; {REPORT}", text)
    return FaultFound(made)


#: The most messages that it takes before it looks at the descriptors.
MESSAGES_BETWEEN_LOOKS = 32


class Request(NamedTuple):
    """A call that waits for its answer: run on the coordinator's thread, between two messages.

    If no caller waits, ``answer`` is None, and its errors are internal errors.
    """

    call: Callable[[], Any]
    answer: Reply[Any] | None


class TimedCall(NamedTuple):
    """A call that is due at some moment of the monotonic clock."""

    due: float
    number: int  #: tells apart those that are due at the same moment
    call: Callable[[], object]


class Waker:
    """Two sockets, one of which a thread watches; it calls `clear` when it is woken, and `close` at the end."""

    def __init__(self) -> None:
        self._read, self._write = descriptors.socket_pair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def fileno(self) -> int:
        """Return the file descriptor to watch for reading."""
        return self._read.fileno()

    def wake(self) -> None:
        """Wake the thread, now or when it next waits. From any thread; never blocks; does nothing once closed."""
        with contextlib.suppress(OSError):
            self._write.send(b"\0", NO_SIGNAL)  # a full one wakes it as well

    def clear(self) -> None:
        """Forget how often the thread was woken, now that it is awake."""
        with contextlib.suppress(BlockingIOError):
            while self._read.recv(4096):
                pass

    def close(self) -> None:
        """Close the sockets, once no thread waits on them any more."""
        self._write.close()
        self._read.close()


class Inbox:
    """Any thread posts, even inside a signal handler or a garbage collection; only the coordinator takes."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Message | Request] = queue.SimpleQueue()
        standard_streams.keep_taken()
        self._selector = make_selector()
        self._waker = Waker()
        self._asleep = False
        self._taken = 0
        self._now = SystemClock().now
        self._timers: list[TimedCall] = []  #: a heap
        self._numbers = itertools.count()
        #: The thread that takes, once it has begun.
        self.owner: int | None = None
        self.watch(self._waker.fileno(), self._waker.clear)
        self._close = weakref.finalize(self, _close, self._selector, self._waker)
        self._close.atexit = False

    def post(self, message: Message | Request) -> None:
        """Post a message. Never blocks. 0.2 us, 2 us if the coordinator has to be woken."""
        self._queue.put(message)
        # Put before this check, as `take` notes its sleep before its check: one of the two notices.
        if self._asleep:
            self._waker.wake()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the taking thread, after all messages posted before. Its errors are internal errors."""
        self.post(Request(partial(function, *arguments), None))

    def later(self, delay: float, function: Callable[..., object], *arguments: Any) -> TimedCall:
        """Call a function in ``delay`` seconds, unless it is cancelled (`cancel`). On the taking thread only."""
        timer = TimedCall(self._now() + delay, next(self._numbers), partial(function, *arguments))
        heapq.heappush(self._timers, timer)
        return timer

    def call_later(self, delay: float, function: Callable[[], object]) -> None:
        """Call a function in ``delay`` seconds, on the taking thread. On any thread."""
        self.call(self.later, delay, function)

    def cancel(self, timer: TimedCall) -> None:
        """Cancel the call, if it was not made yet. On the taking thread only."""
        with contextlib.suppress(ValueError):  # it was made
            self._timers.remove(timer)
            heapq.heapify(self._timers)

    def watch(self, fd: int, reader: Callable[[], object]) -> None:
        """Call ``reader`` whenever ``fd`` is readable, or at its end, until `forget`."""
        with contextlib.suppress(ValueError, RuntimeError):  # closed
            self._selector.register(fd, selectors.EVENT_READ, reader)
        self._look_anew()

    def watch_writing(self, fd: int, reader: Callable[[], object], *, wanted: bool) -> None:
        """Call the reader of ``fd`` also when that is writable, from now on; or, if not ``wanted``, no longer."""
        with contextlib.suppress(KeyError, ValueError, RuntimeError):  # closed
            self._selector.modify(fd, selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0), reader)
        self._look_anew()

    def forget(self, fd: int) -> None:
        """Stop watching ``fd``; call it before that is closed. A reader may still be called once more."""
        with contextlib.suppress(KeyError, ValueError, RuntimeError):
            self._selector.unregister(fd)

    def _look_anew(self) -> None:
        """Make a sleeping coordinator look at the watched descriptors: `poll`, used if epoll is refused, does not."""
        if self._asleep:
            self._waker.wake()

    def take(self, timeout: float | None) -> Message | Request | None:
        """Return the next message; None if none comes within ``timeout`` seconds, or once readers have been called."""
        if self._timers:
            timeout = self._call_due(timeout)
        self._taken += 1
        if self._taken % MESSAGES_BETWEEN_LOOKS == 0:
            self._look(0)
        if (message := self.take_now()) is not None:
            return message
        self._asleep = True
        if self._queue.empty():
            self._look(timeout)  # awake from then on: readers' messages need not wake it
        self._asleep = False
        return self.take_now()

    @property
    def waiting(self) -> int:
        """The number of waiting messages."""
        return self._queue.qsize()

    def take_now(self) -> Message | Request | None:
        """Return the next waiting message. On any thread."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        """Take no more messages; `post` still works, `watch` and `forget` do nothing."""
        self._asleep = False
        self.owner = None  # a later thread may get its number
        self._close()

    def _look(self, timeout: float | None) -> None:
        ready = self._selector.select(timeout)
        self._asleep = False
        for key, _ in ready:
            if not self._make(key.data):
                self.forget(key.fd)  # otherwise it would be called for ever

    def _call_due(self, timeout: float | None) -> float | None:
        """Make the calls that are due; returns for how long to wait, until the next one at most."""
        while self._timers and self._timers[0].due <= self._now():
            self._make(heapq.heappop(self._timers).call)
        if not self._timers:
            return timeout
        until = max(0.0, self._timers[0].due - self._now())
        return until if timeout is None else min(timeout, until)

    def _make(self, call: Callable[[], object]) -> bool:
        try:
            call()
        except BaseException as error:
            self.post(found("while it took in what a worker did", error))
            return False
        return True


def _close(selector: Selector, waker: Waker) -> None:
    selector.close()
    waker.close()
