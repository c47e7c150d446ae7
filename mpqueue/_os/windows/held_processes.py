"""Processes: a hold on one, its end, its start, and the job object that ends it with its parent."""

from __future__ import annotations

import _winapi
import contextlib
import ctypes
import socket
import sys
import threading
from collections.abc import Callable
from ctypes import wintypes
from typing import NoReturn

from mpqueue._os.windows import kernel32

assert sys.platform == "win32"

#: The exit code of what was killed.
KILLED = 1
_STILL_ACTIVE = 259
_RIGHTS = 0x1000 | 0x0001 | _winapi.SYNCHRONIZE  # ask about it, end it, wait for it

#: Seconds that a process which was ended may take to be gone.
_LAST_MOMENTS = 0.25


class JobObject:
    """The parent's side of one worker's leash: the job object that holds the worker, and all that it starts.

    All of them end when it is pulled, and when its handle is closed, which the parent's death does. Nothing leaves it.
    """

    worker_end = -1  #: the worker holds nothing

    def __init__(self) -> None:
        self._handle = kernel32.make_job()
        self._lock = threading.Lock()

    def take_in(self, process: int) -> None:
        """Hold that process, by its handle, before it has begun to run. Raises OSError."""
        kernel32.checked(kernel32.assign_process(self._handle, process))

    def pull(self) -> None:
        """End the worker and all that it has started."""
        with self._lock:
            if self._handle:
                kernel32.terminate_job(self._handle, KILLED)

    def close(self) -> None:
        """Let go, which ends what is left."""
        with self._lock:
            handle, self._handle = self._handle, 0
            if handle:
                _winapi.CloseHandle(handle)


class WindowsProcess:
    """A `ProcessHandle` by a handle of the system's, which never means another process.

    Its end is reported by a socket, as all that the package waits for is one; a thread waits for the process, and then
    closes the other end. ``sentinel``, the handle of its starter, is not kept. Raises OSError where it can't be had.
    """

    def __init__(self, pid: int, sentinel: int = -1) -> None:
        if sentinel >= 0:
            me = _winapi.GetCurrentProcess()
            self._handle = _winapi.DuplicateHandle(me, sentinel, me, 0, False, _winapi.DUPLICATE_SAME_ACCESS)
        else:
            self._handle = _winapi.OpenProcess(_RIGHTS, False, pid)
        self._lock = threading.Lock()
        with contextlib.ExitStack() as undo:
            undo.callback(_winapi.CloseHandle, self._handle)
            self._closing = kernel32.checked(kernel32.create_event(None, True, False, None))
            undo.callback(_winapi.CloseHandle, self._closing)
            self._ended, self._tells = socket.socketpair()
            self._thread = threading.Thread(target=self._wait, name=f"mpqueue-end-of-{pid}", daemon=True)
            self._thread.start()
            undo.pop_all()

    def _wait(self) -> None:
        try:
            _winapi.WaitForMultipleObjects([self._handle, self._closing], False, _winapi.INFINITE)
        finally:
            self._tells.close()

    def fileno(self) -> int:
        return self._ended.fileno()

    def send(self, number: int) -> None:  # noqa: ARG002 - there is one way to end it
        """End the process: there are no signals."""
        with self._lock:
            if self._handle:
                terminate(self._handle)

    def wait(self, seconds: float) -> bool:
        return bool(self._handle) and has_ended(self._handle, seconds)

    def exit_code(self) -> int | None:
        with self._lock:
            if not self._handle or not has_ended(self._handle, 0):
                return None
            return int(_winapi.GetExitCodeProcess(self._handle))

    def await_last_moments(self, has_ended: Callable[[], bool]) -> None:
        """Wait `_LAST_MOMENTS` seconds at most for its end."""
        self.wait(_LAST_MOMENTS)
        has_ended()

    def is_stopped(self) -> bool:
        """Return False: the system does not tell."""
        return False

    def catches(self, number: int) -> bool:  # noqa: ARG002 - the protocol's
        """Return False: there are no signals."""
        return False

    def close(self) -> None:
        with self._lock:
            handle, self._handle = self._handle, 0
        if handle:
            kernel32.set_event(self._closing)
            self._thread.join()
            _winapi.CloseHandle(handle)
            _winapi.CloseHandle(self._closing)
            self._ended.close()


def has_ended(handle: int, seconds: float) -> bool:
    """Tell whether the process ends within so many seconds."""
    result: int = _winapi.WaitForSingleObject(handle, int(seconds * 1000))
    return result == _winapi.WAIT_OBJECT_0


def terminate(handle: int) -> None:
    """End a process. Nothing happens where it has ended, or where the system refuses."""
    with contextlib.suppress(OSError):
        _winapi.TerminateProcess(handle, KILLED)


def kill_process(pid: int) -> None:
    """End that process; nothing where there is none, or the system refuses."""
    with contextlib.suppress(OSError):
        handle = _winapi.OpenProcess(_RIGHTS, False, pid)
        try:
            terminate(handle)
        finally:
            _winapi.CloseHandle(handle)


def end_without_asking() -> None:
    """Have this process end where it crashes, with no window that asks about it."""
    kernel32.error_mode(_NO_CRITICAL_ERRORS | _NO_CRASH_BOX | _NO_OPEN_BOX)


_NO_CRITICAL_ERRORS, _NO_CRASH_BOX, _NO_OPEN_BOX = 0x1, 0x2, 0x8000


def end_self() -> NoReturn:
    """End this process at once, with nothing done any more."""
    _winapi.TerminateProcess(_winapi.GetCurrentProcess(), KILLED)
    raise AssertionError("survived its end")


def start_time(pid: int) -> int:
    """Return the start time in units of 100 ns since 1601; 0 where it has ended, or is another user's."""
    try:
        handle = _winapi.OpenProcess(0x1000, False, pid)
    except OSError:
        return 0
    try:
        times = [wintypes.FILETIME() for _ in range(4)]
        if not kernel32.process_times(handle, *map(ctypes.byref, times)):
            return 0
        if _winapi.GetExitCodeProcess(handle) != _STILL_ACTIVE:
            return 0
        return times[0].dwHighDateTime << 32 | times[0].dwLowDateTime
    finally:
        _winapi.CloseHandle(handle)


#: Names of what ends a process in place of a signal.
_FAULTS = {
    0xC0000005: "ACCESS_VIOLATION",
    0xC0000006: "IN_PAGE_ERROR",
    0xC000001D: "ILLEGAL_INSTRUCTION",
    0xC0000094: "INTEGER_DIVIDE_BY_ZERO",
    0xC00000FD: "STACK_OVERFLOW",
    0xC000013A: "CONTROL_C_EXIT",
    0xC0000374: "HEAP_CORRUPTION",
    0xC0000409: "STACK_BUFFER_OVERRUN",
    0x80000003: "BREAKPOINT",
}


def fault_name(exitcode: int | None) -> str | None:
    """Return the name of the exception that ended the process; None if no exception did."""
    if exitcode is None:
        return None
    code = exitcode & 0xFFFFFFFF
    return _FAULTS.get(code, f"exception 0x{code:08X}" if code >> 28 == 0xC else None)
