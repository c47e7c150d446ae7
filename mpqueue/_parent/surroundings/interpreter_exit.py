"""What is to be done when the interpreter exits, before loky does its own: it would wait for hung workers for ever."""

from __future__ import annotations

import atexit
import itertools
import logging
import multiprocessing.util
import threading
from collections.abc import Callable

from mpqueue._os.process.own_forks import in_each_fork

_log = logging.getLogger("mpqueue")

_callbacks: dict[int, Callable[[], object]] = {}
_numbers = itertools.count(1)
_registrations = {"own": False, "after loky's": False, "with multiprocessing": False}


def on_exit(callback: Callable[[], object], *, last: bool = False) -> Callable[[], None]:
    """Have ``callback`` called when the interpreter exits, the last registered first; returns how to take it back.

    Those with ``last`` come after all others: for owners whose own owner may have registered before them. It runs on
    the main thread while other threads still live; from Python 3.12 on it can't start new ones. In a fork nothing is
    called: what was registered belongs to the parent.
    """
    number = -next(_numbers) if last else next(_numbers)
    _callbacks[number] = callback
    _register("own")
    _register_with_multiprocessing()

    def take_back() -> None:
        _callbacks.pop(number, None)

    return take_back


def run_before_loky() -> None:
    """To be called after loky has registered what it does at exit: what was registered last is called first."""
    _register("after loky's")


def _register(which: str) -> None:
    if not _registrations[which]:
        _registrations[which] = True
        # Runs before threads are joined, which atexit does not; the same that `concurrent.futures` uses.
        register: Callable[..., object] = getattr(threading, "_register_atexit", atexit.register)
        register(_run)


def _register_with_multiprocessing() -> None:
    """A child process of `multiprocessing` waits for its own children, our workers, before threads are joined."""
    if not _registrations["with multiprocessing"]:
        _registrations["with multiprocessing"] = True
        multiprocessing.util.Finalize(None, _run, exitpriority=100)


def _run() -> None:
    while _callbacks:
        try:
            _callbacks.pop(max(_callbacks))()
        except Exception:
            _log.exception("closing at exit failed")


def _forget_in_fork() -> None:
    _callbacks.clear()
    _registrations["with multiprocessing"] = False  # it forgets too


in_each_fork(_forget_in_fork)
