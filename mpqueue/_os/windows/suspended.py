"""Starting a process that has not begun to run: so it can be held, and given handles, before its first step."""

from __future__ import annotations

import _winapi
import contextlib
import msvcrt
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing import util
from multiprocessing.popen_spawn_win32 import Popen
from typing import Any, NamedTuple

from mpqueue._os.windows import kernel32
from mpqueue._os.windows.file_handles import make_temporary, write_at
from mpqueue._os.windows.held_processes import terminate

assert sys.platform == "win32"

_SUSPENDED, _NEW_GROUP = 0x4, 0x200
_STREAMS = (("hStdInput", -10), ("hStdOutput", -11), ("hStdError", -12))
_BROKEN = 0xFFFFFFFF


class Suspended(NamedTuple):
    """A process that has not begun. ``process`` is the caller's to close; `resume` or `drop` does the rest."""

    pid: int
    process: int
    thread: int

    def resume(self) -> None:
        """Let it run. Raises OSError."""
        try:
            if kernel32.resume_thread(self.thread) == _BROKEN:
                kernel32.checked(0)
        finally:
            _winapi.CloseHandle(self.thread)

    def drop(self) -> None:
        """End the process, since something is amiss."""
        terminate(self.process)
        _winapi.CloseHandle(self.thread)


class Spawned(Popen):
    """A process that `mpqueue._os.process.inheritance.spawn` has started suspended.

    So it is held by its leash before its first step, and nothing that it was to be given is left where it fails to
    start. What it reads first is in a file that has no name for others, of which it inherits the handle.

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
            handle = _inheritable(file)
            undo.callback(_winapi.CloseHandle, handle)
            begun = start_suspended([executable, *flags, *arguments, str(handle)], environment, [handle])
            self.pid, self.returncode, self._handle = begun.pid, None, begun.process
            self.sentinel = int(begun.process)
            self.finalizer = util.Finalize(self, _winapi.CloseHandle, (self.sentinel,))
            try:
                rest, at = memoryview(text(self)), 0
                while rest:
                    written = write_at(file, rest, at)
                    rest, at = rest[written:], at + written
            except BaseException:
                begun.drop()
                raise
            begun.resume()


def _inheritable(fd: int) -> int:
    """A handle of the file that a process which is given it finds under the same number. The caller closes it."""
    return _duplicate(msvcrt.get_osfhandle(fd))


def start_suspended(command: list[str], environment: Mapping[str, str], handles: list[int]) -> Suspended:
    """Start the program, which inherits these handles and the standard streams, and nothing else. Raises OSError.

    A Ctrl-C at the console does not reach it, nor what it starts.
    """
    startup = subprocess.STARTUPINFO()
    with contextlib.ExitStack() as undo:
        given = list(handles)
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
    return Suspended(pid, process, thread)


def _stream(number: int, undo: contextlib.ExitStack) -> int | None:
    """A handle of a standard stream that can be inherited; None where there is no such stream."""
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
