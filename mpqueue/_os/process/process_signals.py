"""Signals: which one asks for a stack, how they stand in a worker, and those that end a process or a group.

What users do with signals in a worker is another matter, see `mpqueue._worker.signals`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

#: Asks a worker where it is. A rare one, so that a handler hardly has a use of its own for it.
STACK_SIGNAL: int = getattr(signal, "SIGRTMAX", signal.SIGUSR2 + 3) - 3

#: Ends a process, whatever that does.
KILL: int = signal.SIGKILL


def kill_process(pid: int) -> None:
    """SIGKILL that process; nothing where it has ended, or where the system refuses. The number must still be its."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def kill_group(leader: int) -> None:
    """SIGKILL what is left of the group; its number stays taken while any of it lives. As `kill_process` otherwise."""
    with contextlib.suppress(OSError):
        os.killpg(leader, signal.SIGKILL)


def kill_self() -> NoReturn:
    """End this process at once, with nothing done any more."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("survived SIGKILL")


def send_to_main_thread(number: int) -> None:
    """Send a signal to the main thread of this process. Raises OSError where that has ended."""
    signal.pthread_kill(threading.main_thread().ident or 0, number)


def block_interrupts() -> None:
    """Ctrl-C does not reach this thread, nor the processes that it starts, until they allow it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def reset_signals() -> None:
    """As in a fresh Python at a terminal, whatever the parent ignores or blocks: both are inherited by processes.

    On the main thread. A Ctrl-C that came while it was blocked is dropped.
    """
    # Ignoring a signal drops one that is pending.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Ignored, it would make every exit status in a handler 0.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def on_first_sigterm(call: Callable[[], object]) -> Callable[[], None]:
    """Have the first SIGTERM call that, on the main thread, and do nothing else; the next one does what it did before.

    Returns what takes this back. Does nothing outside the main thread, and where SIGTERM is ignored.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before == signal.SIG_IGN:
        return lambda: None

    def take_back() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)

    def handle(_number: int, _frame: FrameType | None) -> None:
        take_back()
        call()

    signal.signal(signal.SIGTERM, handle)
    return take_back


def signal_name(exitcode: int | None) -> str | None:
    """The name of the signal that ended a process with that exit code; None where none did."""
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"
