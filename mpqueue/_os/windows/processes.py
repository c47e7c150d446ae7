"""Processes: handles, ends, starts, and the job object that ends a worker with its parent."""

from __future__ import annotations

import _winapi
import contextlib
import ctypes
import msvcrt
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from ctypes import wintypes
from multiprocessing import util
from multiprocessing.popen_spawn_win32 import Popen
from typing import Any, NoReturn

from mpqueue._os.windows import kernel32
from mpqueue._os.windows.file_handles import make_temporary, write_at

assert sys.platform == "win32"

#: The exit code of a killed process.
KILLED = 1
_STILL_ACTIVE = 259
_RIGHTS = 0x1000 | 0x0001 | _winapi.SYNCHRONIZE  # rights to query it, end it, wait for it


class JobObject:
    """The parent's side of one worker's leash: the job object that holds the worker and all processes that it starts.

    All of them end when it is pulled, and when its handle is closed, as by the parent's death. No process leaves it.
    """

    worker_end = -1  #: the worker holds nothing

    def __init__(self) -> None:
        self._handle = kernel32.make_job()
        self._lock = threading.Lock()

    def take_in(self, process: int) -> None:
        """Hold that process, by its handle, before it has begun to run. Raises OSError."""
        kernel32.checked(kernel32.assign_process(self._handle, process))

    def pull(self) -> None:
        """End the worker and all processes that it has started."""
        with self._lock:
            if self._handle:
                kernel32.terminate_job(self._handle, KILLED)

    def close(self) -> None:
        """Close the handle, which ends the rest."""
        with self._lock:
            handle, self._handle = self._handle, 0
            if handle:
                _winapi.CloseHandle(handle)


class WindowsProcess:
    """A `ProcessHandle` by a handle of the system, which never means another process.

    A socket reports its end, since the package waits for sockets only; a thread waits for the process, and then closes
    the other end. ``sentinel``, the handle of its starter, is not kept. Raises OSError if there is no such handle.
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

    def has_false_end(self) -> bool:
        """Return False: its end is an event of the system."""
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


def terminate(handle: int) -> None:
    """End a process, unless it has ended or the system refuses."""
    with contextlib.suppress(OSError):
        _winapi.TerminateProcess(handle, KILLED)


def kill_process(pid: int) -> None:
    """End that process, unless there is none or the system refuses."""
    with contextlib.suppress(OSError):
        handle = _winapi.OpenProcess(_RIGHTS, False, pid)
        try:
            terminate(handle)
        finally:
            _winapi.CloseHandle(handle)


def end_without_asking() -> None:
    """Let this process end if it crashes, without a window that asks about it."""
    kernel32.error_mode(_NO_CRITICAL_ERRORS | _NO_CRASH_BOX | _NO_OPEN_BOX)


_NO_CRITICAL_ERRORS, _NO_CRASH_BOX, _NO_OPEN_BOX = 0x1, 0x2, 0x8000


def end_self() -> NoReturn:
    """End this process at once, without any cleanup."""
    _winapi.TerminateProcess(_winapi.GetCurrentProcess(), KILLED)
    raise AssertionError("survived its end")


def start_time(pid: int) -> int:
    """Return the start time in units of 100 ns since 1601; 0 if it has ended, or is another user's."""
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


#: Names of exceptions that end a process, in place of signals.
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


# -- Starting a process suspended: it can be held, and given handles, before its first step. ---------------------------

assert sys.platform == "win32"

_SUSPENDED, _NEW_GROUP = 0x4, 0x200
_STREAMS = (("hStdInput", -10), ("hStdOutput", -11), ("hStdError", -12))
_BROKEN = 0xFFFFFFFF


class Spawned(Popen):
    """A process that `mpqueue._os.parent_death.spawn` has started suspended.

    So its leash holds it before its first step, and nothing meant for it is left if it fails to start. Its first data
    are in a file without a name for others, whose handle it inherits.

    Private names used: of `multiprocessing`, `popen_spawn_win32.Popen` with its attributes `_handle`, `sentinel` and
    `finalizer`, and `util._args_from_interpreter_flags`.
    """

    def __init__(
        self, executable: str, arguments: list[str], environment: Mapping[str, str], text: Callable[[Any], bytes]
    ) -> None:
        flags = util._args_from_interpreter_flags()  # type: ignore[attr-defined]
        with contextlib.ExitStack() as undo:
            file = make_temporary("start")
            undo.callback(os.close, file)
            handle = _duplicate(msvcrt.get_osfhandle(file))  # which the process finds under the same number
            undo.callback(_winapi.CloseHandle, handle)
            command = [executable, *flags, *arguments, str(handle)]
            process, thread, self.pid = _start_suspended(command, environment, handle)
            undo.callback(_winapi.CloseHandle, thread)
            self.returncode, self._handle = None, process
            self.sentinel = int(process)
            self.finalizer = util.Finalize(self, _winapi.CloseHandle, (self.sentinel,))
            try:
                write_at(file, text(self), 0)
                if kernel32.resume_thread(thread) == _BROKEN:
                    kernel32.checked(0)
            except BaseException:
                terminate(process)
                raise


def _start_suspended(command: list[str], environment: Mapping[str, str], handle: int) -> tuple[int, int, int]:
    """Start the program, which inherits this handle and the standard streams, and nothing else. Raises OSError.

    A Ctrl-C at the console reaches neither it nor its children. Returns handles of the process and its thread, which
    has not begun, and the process's number.
    """
    startup = subprocess.STARTUPINFO()
    with contextlib.ExitStack() as undo:
        given = [handle]
        for name, number in _STREAMS:
            stream = _stream(number, undo)
            setattr(startup, name, stream)
            if stream:
                given.append(stream)
        startup.dwFlags |= subprocess.STARTF_USESTDHANDLES
        startup.lpAttributeList = {"handle_list": given}
        process, thread, pid, _ = _winapi.CreateProcess(
            command[0],
            subprocess.list2cmdline(command),
            None,
            None,
            True,
            _SUSPENDED | _NEW_GROUP,
            dict(environment),
            None,
            startup,
        )
    return process, thread, pid


def _stream(number: int, undo: contextlib.ExitStack) -> int | None:
    """A handle of a standard stream that can be inherited; None if there is no such stream."""
    try:
        handle = _winapi.GetStdHandle(number)
        if not handle:
            return None
        stream = _duplicate(handle)
    except OSError:
        return None
    undo.callback(_winapi.CloseHandle, stream)
    return stream


def _duplicate(handle: int) -> int:
    me = _winapi.GetCurrentProcess()
    return _winapi.DuplicateHandle(me, handle, me, 0, True, _winapi.DUPLICATE_SAME_ACCESS)
