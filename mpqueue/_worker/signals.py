"""Handlers of signals that users install in a worker: what they raise comes out in users' code, never in the worker's.

Python calls a signal's handler on the main thread between any two steps, and what it raises comes out there: in the
code of an item, but also where the worker packs a result or writes a report. Blocking signals around the worker's own
code would not do: a signal that goes to the process may come to any thread of it, and the main thread handles it.

So `signal.signal` installs a `_Guarded` in a worker, which calls the user's handler and looks at the stack where it
raises:

==================================  ==========================================================================
the signal came                     what the handler raises
==================================  ==========================================================================
in users' code                      comes out there, as usual
in the event loop, which is at no   cancels what the loop runs, and comes out of that
coroutine just now
in the worker's code, called by     is dropped; the signal is sent again in a moment, unless the item has ended
users' code (`current_item()`)
between two items                   is dropped: the item that it may have been meant for has ended
==================================  ==========================================================================

Users' code is what functions call that are marked by `calls_users_code`. For a worker without handlers of signals this
costs nothing.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Protocol, TypeVar

from mpqueue._os.process.process_signals import send_to_main_thread
from mpqueue._worker import station

_F = TypeVar("_F", bound=Callable[..., Any])

#: Seconds until a signal is sent again that came while users' code was in the worker's.
AGAIN = 0.001

_OURS = ("mpqueue._worker.", "mpqueue._wire.", "mpqueue._os.")
_entrances: set[CodeType] = set()
_transparent: set[CodeType] = set()
_loops: set[CodeType] = set()
_sent_again: set[int] = set()
_process = -1  #: the worker's, where this is one


def calls_users_code(function: _F, *, transparent: bool = False) -> _F:
    """This function calls users' code; ``transparent``: it does nothing else, and may be interrupted itself."""
    code = function.__code__
    _entrances.add(code)
    if transparent:
        _transparent.add(code)
    return function


def runs_event_loop(method: _F) -> _F:
    """Users' coroutines run further in, marked by themselves; an `Interruptible`'s method."""
    _loops.add(method.__code__)
    return method


class Interruptible(Protocol):
    """Runs an event loop, which must not be interrupted at any step: it may never run again then."""

    def interrupt(self, error: BaseException) -> bool:
        """Cancel what the loop runs, whose outcome will be the error; False where it runs nothing."""


class _Guarded:
    """What is installed in the place of a user's handler."""

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self.handler(number, frame)
        except BaseException as error:
            if _is_in_users_code(frame):
                raise
            here = station.here()
            if here is None or (here.running is None and isinstance(error, SystemExit)):
                raise  # of a worker that has nothing to do
            loop = _loop_at(frame)
            if loop is not None and loop.interrupt(error):
                return
            if loop is not None or _is_called_by_users_code(frame):
                _send_again(number, here)


def _is_in_users_code(frame: FrameType | None) -> bool:
    """True where nothing of the worker's own is between users' code and the step that was interrupted."""
    if frame is not None and frame.f_globals.get("__name__") == "logging":
        return False  # it may just have taken the lock of our handler
    at = frame
    while at is not None:
        if at.f_code in _entrances:
            return at is not frame or at.f_code in _transparent
        if _is_ours(at):
            return False  # an event loop's, too
        at = at.f_back
    return os.getpid() != _process  # a fork of another thread; the worker itself is at its end


def _loop_at(frame: FrameType | None) -> Interruptible | None:
    """What runs the event loop that was interrupted; None where it was not one."""
    while frame is not None and frame.f_code not in _loops:
        if _is_ours(frame):
            return None
        frame = frame.f_back
    loop: Interruptible | None = None if frame is None else frame.f_locals["self"]
    return loop


def _is_called_by_users_code(frame: FrameType | None) -> bool:
    """True where further out there is users' code, which called the worker's."""
    is_users = False
    while frame is not None:
        if frame.f_code in _entrances and is_users:
            return True
        is_users = not _is_ours(frame)
        frame = frame.f_back
    return False


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith(_OURS)


def _send_again(number: int, here: station.Station) -> None:
    if number in _sent_again:
        return
    _sent_again.add(number)
    running = here.running
    try:
        _thread.start_new_thread(_send_later, (number, os.getpid(), here, running, len(running.out)))
    except (RuntimeError, AttributeError):  # no thread is left, or nothing runs
        _sent_again.discard(number)


def _send_later(number: int, process: int, here: station.Station, running: Any, position: int) -> None:
    threading.Event().wait(AGAIN)
    _sent_again.discard(number)
    if here.running is running and len(running.out) == position and os.getpid() == process:
        with contextlib.suppress(OSError):
            send_to_main_thread(number)


def install() -> None:
    """From now on, guard what users install; called once, on the main thread of a process that is a worker."""
    global _process
    _process = os.getpid()
    plain_signal, plain_getsignal = signal.signal, signal.getsignal

    @functools.wraps(plain_signal)
    def guarded_signal(signalnum: Any, handler: Any) -> Any:
        return _users(plain_signal(signalnum, _Guarded(handler) if callable(handler) else handler))

    @functools.wraps(plain_getsignal)
    def guarded_getsignal(signalnum: Any) -> Any:
        return _users(plain_getsignal(signalnum))

    signal.signal, signal.getsignal = guarded_signal, guarded_getsignal
    # Ctrl-C does not reach a worker, but others may send it.
    if callable(handler := signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, handler)


def _users(handler: Any) -> Any:
    return handler.handler if type(handler) is _Guarded else handler
