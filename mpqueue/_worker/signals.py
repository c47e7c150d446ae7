"""Signal handlers that users install in a worker, while it runs an event loop.

Python calls a signal's handler on the main thread between any two steps, and its errors are raised there. In the
worker's own code an error ends the worker (`ChunkRun.end_worker`). An event loop would go on, but skip its current
step, such as waking its coroutine; so there the error cancels the coroutine, and is its outcome.

So `signal.signal` installs a `_Guarded` in a worker, which calls the user's handler. A worker without signal handlers,
or without coroutines, loses no time by it.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Protocol, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])

_loops: set[CodeType] = set()
_coroutines: set[CodeType] = set()


def runs_event_loop(method: _F) -> _F:
    """Mark an `Interruptible`'s method; users' coroutines run inside it, each by a `runs_coroutine`."""
    _loops.add(method.__code__)
    return method


def runs_coroutine(function: _F) -> _F:
    """Mark a function that runs a coroutine, and may be interrupted itself."""
    _coroutines.add(function.__code__)
    return function


class Interruptible(Protocol):
    """An object that runs an event loop."""

    def interrupt(self, error: BaseException) -> bool:
        """Cancel the loop's current coroutine, whose outcome is then the error; False if none runs."""


class _Guarded:
    """A stand-in installed in place of a user's handler."""

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self.handler(number, frame)
        except BaseException as error:
            at = frame  # kept: `came_of_signal` recognizes this by it
            while at is not None and at.f_code not in _loops:
                if at.f_code in _coroutines:
                    raise
                at = at.f_back
            loop: Interruptible | None = None if at is None else at.f_locals["self"]
            if loop is None or not loop.interrupt(error):
                raise


def install() -> None:
    """Guard the handlers that users install from now on. Once, on the main thread of a process that is a worker."""
    plain_signal, plain_getsignal = signal.signal, signal.getsignal

    @functools.wraps(plain_signal)
    def guarded_signal(signalnum: Any, handler: Any) -> Any:
        return _users(plain_signal(signalnum, _Guarded(handler) if callable(handler) else handler))

    @functools.wraps(plain_getsignal)
    def guarded_getsignal(signalnum: Any) -> Any:
        return _users(plain_getsignal(signalnum))

    signal.signal, signal.getsignal = guarded_signal, guarded_getsignal


def _users(handler: Any) -> Any:
    return handler.handler if type(handler) is _Guarded else handler
