"""Signals: the one that asks for a stack, their state in a worker, and those that end a process or a group.

And the frame in which a thread is.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from mpqueue._os import descriptors
from mpqueue._os.system import monotonic

if sys.platform == "win32":
    from mpqueue._os.windows import processes as windows

#: Ends a process in any state. On Windows, which has no signals, any number does.
KILL: int = getattr(signal, "SIGKILL", 9)

#: Asks a program to end: SIGTERM, on Windows Ctrl-Break.
END_SIGNAL: int = getattr(signal, "SIGBREAK", signal.SIGTERM)


def kill_process(pid: int) -> None:
    """Send SIGKILL to that process, unless it has ended or the system refuses. The number must still be its own."""
    if sys.platform == "win32":
        windows.kill_process(pid)
        return
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def kill_group(leader: int) -> None:
    """Send SIGKILL to the rest of the group, as in `kill_process`; its number stays taken while any of it lives.

    Windows has no groups: there a job object holds them, see `mpqueue._os.parent_death`.
    """
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        os.killpg(leader, signal.SIGKILL)


def kill_self() -> NoReturn:
    """End this process at once, without any cleanup."""
    if sys.platform == "win32":
        windows.end_self()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("survived SIGKILL")


def send_to_main_thread(number: int) -> None:
    """Send a signal to the main thread of this process. Raises OSError if that has ended."""
    if sys.platform == "win32":
        signal.raise_signal(number)  # Python calls its handler on the main thread in any case
        return
    signal.pthread_kill(threading.main_thread().ident or 0, number)


def block_interrupts() -> None:
    """Block Ctrl-C for this thread, and for processes that it starts, until they allow it.

    On Windows each process is started with that setting.
    """
    if sys.platform == "win32":
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in this process. On the main thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def report_broken_pipes() -> None:
    """Let a write without a reader raise, on this thread and those that it starts, with any setting of SIGPIPE.

    Scripts for command lines often let SIGPIPE end the program.
    """
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})


def reset_signals() -> None:
    """Handle signals as a fresh Python at a terminal does; children inherit the parent's ignored and blocked signals.

    On the main thread. A Ctrl-C that came while it was blocked is dropped.
    """
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, signal.SIG_IGN)  # the console sends it to all processes attached to it
        windows.end_without_asking()
        return
    # Ignoring a signal drops a pending one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # If it were ignored, every exit status in a handler would be 0.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def on_first_sigterm(call: Callable[[], object]) -> Callable[[], None]:
    """Let the first SIGTERM only call the function, on the main thread; the next one acts as before.

    Returns a function that undoes this. Does nothing outside the main thread, or if SIGTERM is ignored. On Windows it
    is Ctrl-Break: there SIGTERM ends a program without asking it.
    """
    before = signal.getsignal(END_SIGNAL)
    if threading.current_thread() is not threading.main_thread() or before == signal.SIG_IGN:
        return lambda: None

    def take_back() -> None:
        signal.signal(END_SIGNAL, signal.SIG_DFL if before is None else before)

    def handle(_number: int, _frame: FrameType | None) -> None:
        take_back()
        call()

    signal.signal(END_SIGNAL, handle)
    return take_back


def came_of_signal(error: BaseException) -> bool:
    """Tell whether a signal's handler raised the error in the middle of other code. To be called where it is caught."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next  # the first frame is the catcher's
        if _handles_signal(at.tb_frame):
            return True
    return False


def _handles_signal(frame: FrameType) -> bool:
    """Tell whether the frame is a signal handler's, which Python calls with the frame that it interrupts."""
    interrupted = frame.f_back
    for value in frame.f_locals.values():
        if any(one is interrupted for one in (value if type(value) is tuple else (value,))):
            return interrupted is not None
    return False


def frame_of(thread: int) -> FrameType | None:
    """Return the frame in which the thread with that identifier is; None if it has ended.

    `sys._current_frames` holds a lock of the interpreter. Before Python 3.12 a garbage collection may begin there, and
    finalizers in Python let other threads run. One that starts or ends a thread then waits for that lock and keeps the
    global lock: nothing in the process ever goes on. So meanwhile nothing is collected.
    """
    if thread == threading.get_ident():
        return sys._getframe(1)  # noqa: SLF001 - the public name of both, as their documentation has it
    collects = sys.version_info < (3, 12) and gc.isenabled()
    if collects:
        gc.disable()
    try:
        return sys._current_frames().get(thread)  # noqa: SLF001
    finally:
        if collects:
            gc.enable()


def signal_name(exitcode: int | None) -> str | None:
    """The name of the signal that ended a process with that exit code; None if none did.

    On Windows the exception's name, ``ACCESS_VIOLATION``.
    """
    if sys.platform == "win32":
        return windows.fault_name(exitcode)
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"


# -- Long waits of the main thread, which signals must be able to end. -------------------------------------------------
#
# Python calls a signal's handler between two bytecodes of the main thread. A signal that comes after the last check for
# signals, but before the thread sleeps, does not wake it, so its handler is called when the wait is over: a Ctrl-C or
# SIGTERM seems to have no effect. The same is true of a signal that the system delivers to another thread. Beside busy
# threads that was 1 signal in 300 in CPython 3.11, each within 40 us of the wait's start. In such a wait the main
# thread therefore wakes at intervals.

#: Seconds between two checks.
LOOK_UP = 0.5


def wait_long(wait: Callable[[float | None], bool], timeout: float | None = None) -> bool:
    """Call ``wait(seconds)`` repeatedly, for at most ``timeout`` seconds; returns its last value.

    ``wait`` returns whether its event has come. On other threads than the main one it is called once.
    """
    if threading.current_thread() is not threading.main_thread():
        return wait(timeout)
    end = None if timeout is None else monotonic() + timeout
    while True:
        left = LOOK_UP if end is None else end - monotonic()
        if wait(max(0.0, min(LOOK_UP, left))):
            return True
        if left <= LOOK_UP and end is not None:
            return False


def join_long(thread: threading.Thread) -> None:
    """Wait for the thread's end."""

    def join(seconds: float | None) -> bool:
        thread.join(seconds)
        return not thread.is_alive()

    wait_long(join)


# -- Asking a process for the stacks of all its threads, even while it sleeps or holds the global lock. ----------------
#
# On POSIX systems a signal asks, and `faulthandler` writes the stacks into a pipe. Windows has no such signals: there
# a byte at the pipe's own end asks, and a thread of the process writes them. It needs the global lock for that, so C
# code that holds it does not answer.

if sys.platform == "win32":
    import _thread
    import os

    from mpqueue._os.windows.file_handles import make_temporary, read_at

    def answer(pipe: int) -> None:
        """Write the stacks of all threads into this end whenever the other end asks."""
        _thread.start_new_thread(_serve, (pipe,))  # not a thread that handlers see among their own

    def _serve(pipe: int) -> None:
        while descriptors.read(pipe, 1):
            file = make_temporary("stacks")
            try:
                faulthandler.dump_traceback(file, all_threads=True)
                descriptors.write(pipe, read_at(file, _MOST, 0))
            finally:
                os.close(file)

    def ask(send: Callable[[int], object], pipe: int) -> None:  # noqa: ARG001 - no signal does
        """Ask a process, by the parent's end of its pipe."""
        descriptors.write(pipe, b"?")

    _MOST = 1 << 16

else:
    #: The signal that asks for the stacks. A rare one, which a handler hardly uses itself.
    STACK_SIGNAL: int = getattr(signal, "SIGRTMAX", signal.SIGUSR2 + 3) - 3

    def answer(pipe: int) -> None:
        """Write the stacks of all threads into this end whenever the signal asks for it."""
        # Text that does not fit into the pipe is lost instead of waited for: it may never be read.
        descriptors.set_blocking(pipe, False)
        faulthandler.register(STACK_SIGNAL, pipe, all_threads=True)

    def ask(send: Callable[[int], object], pipe: int) -> None:  # noqa: ARG001 - it writes there
        """Ask a process, by a function that sends it a signal."""
        send(STACK_SIGNAL)
