"""The tasks of the interpreter's exit, done before those of loky, which would wait for hung workers for ever."""

from __future__ import annotations

import atexit
import itertools
import logging
import multiprocessing.util
import sys
import threading
from collections.abc import Callable

from mpqueue._os.process_handle import in_each_fork
from mpqueue.errors import QueueClosedError

_log = logging.getLogger("mpqueue")

_callbacks: dict[int, Callable[[], object]] = {}
_numbers = itertools.count(1)
_registrations = {"own": False, "after loky's": False, "with multiprocessing": False}
_has_begun = False  #: whether the exit has begun


def check_running() -> None:
    """Raise `QueueClosedError` once the program is ending: work that begins then would not be ended, or never end."""
    if _has_begun:
        raise QueueClosedError(
            "the program is ending, so no queue can be made or started any more, here or in another thread; join "
            "threads that use queues before the main thread ends"
        )


def is_exiting() -> bool:
    """True once the program is ending: every queue ends by itself, and on most Pythons no thread can begin any more.

    At the very end, when objects of modules are freed, Python 3.11 would wait for ever for one to begin.
    """
    return _has_begun or sys.is_finalizing()


def on_exit(callback: Callable[[], object], *, last: bool = False) -> Callable[[], None]:
    """Call ``callback`` when the interpreter exits, the last registered first; returns a function that undoes this.

    Callbacks with ``last`` come after all others: for owners whose own owner may have registered before them. It runs
    on the main thread while other threads still live; from Python 3.12 on it can't start new ones. In a fork nothing is
    called: the callbacks belong to the parent. Raises `QueueClosedError` once the program is ending.
    """
    check_running()
    _register("own")
    if not _registrations["with multiprocessing"]:  # a child of it ends its queues before it waits for their workers
        _registrations["with multiprocessing"] = True
        multiprocessing.util.Finalize(None, _call_all, exitpriority=100)
    number = -next(_numbers) if last else next(_numbers)
    _callbacks[number] = callback

    def take_back() -> None:
        _callbacks.pop(number, None)

    return take_back


def run_before_loky() -> None:
    """Run the callbacks before loky's: call this after loky has registered its own, as the last is called first."""
    _register("after loky's")


def _register(which: str) -> None:
    if not _registrations[which]:
        # Runs before threads are joined, which atexit does not; `concurrent.futures` uses the same.
        register: Callable[..., object] = getattr(threading, "_register_atexit", atexit.register)
        try:
            register(_run)
        except RuntimeError:  # that is over already
            _begin()
            check_running()
        _registrations[which] = True


def _run() -> None:
    _begin()
    while _callbacks:  # registered just before
        _call_all()


def _begin() -> None:
    global _has_begun  # noqa: PLW0603 - a program ends once
    _has_begun = True


def _call_all() -> None:
    """Call the callbacks, but not new ones: threads of a child process may go on, and register more of them."""
    for number in sorted(_callbacks, reverse=True):
        callback = _callbacks.pop(number, None)
        try:
            if callback is not None:
                callback()
        except Exception:
            _log.exception("closing at exit failed")


def _forget_in_fork() -> None:
    global _has_begun  # noqa: PLW0603
    _has_begun = False
    _callbacks.clear()
    _registrations["with multiprocessing"] = False  # it forgets too


in_each_fork(_forget_in_fork)
