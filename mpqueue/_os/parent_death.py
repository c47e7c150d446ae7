"""Ends a process with its parent: by the parent's death, and by the leash, which kills a worker with its group.

The leash is one of the things that a process gets while it is spawned, as files and ends of pipes and sockets are. Each
`hand_...` is called meanwhile, and returns an object that can be pickled; `arrive` turns it into that process's own.
`spawn` starts one on Windows; elsewhere processes inherit shared things.

The worker asks the kernel for SIGKILL to its group as soon as the pipe has data, or no process can write into it any
more. So a byte from the parent ends it, and so does the parent's death: even while it holds the global lock, if a
filter refuses `pidfd_send_signal` or `prctl`, or if the parent is another user by now. It names a group, not a number,
so it never hits a stranger. If the kernel can't do that (only Linux can), or a filter refuses it, a thread in the
worker does it, which can't run while a handler holds the global lock in C code.

On Windows the leash is a job object, which holds the worker, and all processes that it starts, before its first step.

The parent holds both ends. With the write end alone, a byte for a dead worker would raise SIGPIPE; and processes left
in the worker's group could not be reached, nor a worker that has closed all its descriptors.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing import context, reduction
from typing import Any, TypeAlias

from mpqueue._os.descriptors import is_readable
from mpqueue._os.process_handle import close_in_each_fork
from mpqueue._os.system import IS_LINUX, IS_WINDOWS, c_library

if sys.platform == "win32":
    import msvcrt

    from mpqueue._os.windows import sockets as windows
    from mpqueue._os.windows.processes import JobObject, Spawned
else:
    import fcntl

_PR_SET_PDEATHSIG = 1


class PipeLeash:
    """The parent's side of one worker's leash. `pull` and `close` are called by one thread at a time."""

    def __init__(self) -> None:
        self.worker_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        close_in_each_fork(self)  # its workers have to end with this process

    def pull(self) -> None:
        """End the worker and its group. A worker that has not taken its leash yet ends as soon as it does."""
        if self._write_end >= 0:
            with contextlib.suppress(BlockingIOError):  # it was pulled a thousand times
                os.write(self._write_end, b"\n")

    def close(self) -> None:
        """Close the leash, which ends the rest of the group."""
        write_end, self._write_end = self._write_end, -1
        if write_end >= 0:
            os.close(write_end)
            os.close(self.worker_end)


#: This system's leash. `worker_end` is -1 if the worker holds nothing.
if sys.platform == "win32":
    Leash: TypeAlias = JobObject
else:
    Leash: TypeAlias = PipeLeash


# -- the worker's side -------------------------------------------------------------------------------------------------


def follow_parent(leash: int) -> None:
    """Leave the parent's group, and die when the parent does, or when it pulls the leash; at once if it has done so.

    The session stays the parent's: a session's resources, such as a share of the CPUs, count for both. On Windows the
    worker is held from outside, by its parent's job object. Raises OSError if it can't leave the group.
    """
    if IS_WINDOWS:
        return
    try:
        if os.getpgid(0) != os.getpid():
            os.setpgid(0, 0)
    except OSError as error:
        text = f"expected to be allowed a process group of its own (setpgid), got {error.strerror!r}"
        raise OSError(error.errno, text) from None
    _leave_terminal()
    if not hold_leash(leash):
        threading.Thread(target=_watch, args=(leash,), name="mpqueue-leash", daemon=True).start()
    if is_readable(leash, 0):  # pulled before, or the parent has died
        os._exit(1)


def _leave_terminal() -> None:
    """Give up the terminal, for this process and its children.

    A terminal stops a group outside its foreground that reads from it or changes its settings, and under ``stty
    tostop`` also one that writes. It can't stop a process that does not have it.
    """
    with contextlib.suppress(OSError):  # there is none
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        try:
            import termios  # loaded only if used

            fcntl.ioctl(terminal, termios.TIOCNOTTY)
        finally:
            os.close(terminal)


def die_with_parent(parent: int) -> None:
    """Ask for SIGKILL when the parent's *thread* that started this process ends, at once if it has ended.

    Only on Linux: no portable system reports a parent's death.
    """
    if IS_LINUX:
        c_library().prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:  # it has died before
            os._exit(1)


def hold_leash(leash: int) -> bool:
    """Ask for SIGKILL to this group once the leash is pulled or closed; False if that is not possible.

    The rights for it are decided here, by this process's current user: the parent may become another user.
    """
    if not IS_LINUX:
        return False
    try:
        fcntl.fcntl(leash, fcntl.F_SETSIG, signal.SIGKILL)  # type: ignore[attr-defined,unused-ignore]
        fcntl.fcntl(leash, fcntl.F_SETOWN, -os.getpid())  # the leader of its group
        fcntl.fcntl(leash, fcntl.F_SETFL, fcntl.fcntl(leash, fcntl.F_GETFL) | os.O_ASYNC)
    except (OSError, AttributeError):
        return False
    return True


def kernel_holds_leashes() -> bool:
    """Tell whether the kernel sends a chosen signal when a pipe is readable, by trying it."""
    if not IS_LINUX:
        return False
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(reader, fcntl.F_SETSIG, signal.SIGURG)  # type: ignore[attr-defined,unused-ignore]
    finally:
        os.close(reader)
        os.close(writer)
    return True


def _watch(leash: int) -> None:
    """Do on a thread what the kernel can't."""
    try:
        is_readable(leash, None)
    finally:
        try:
            os.killpg(0, signal.SIGKILL)
        finally:
            os._exit(1)


if sys.platform == "win32":

    def hand_file(fd: int) -> Any:
        """Hand over a descriptor of a file."""
        return _open, _spawning().duplicate_for_child(msvcrt.get_osfhandle(fd))

    def _open(handle: int) -> int:
        return msvcrt.open_osfhandle(handle, os.O_RDWR | os.O_NOINHERIT)

    def hand_channel(end: int) -> Any:
        """Hand over an end of `mpqueue._os.descriptors`."""
        return windows.arrive, windows.share(end, _spawning().pid)

    def hand_leash(leash: Leash) -> Any:
        """Hand over the leash: the process is held from now on, and holds nothing itself."""
        leash.take_in(_spawning().sentinel)
        return int, leash.worker_end

    def _spawning() -> Any:
        return context.get_spawning_popen()

    def arrive(passed: Any) -> int:
        """Take over a thing; return the number under which it is this process's own."""
        take, what = passed
        return int(take(what))

else:

    def hand_file(fd: int) -> Any:
        """Hand over a descriptor of a file."""
        return reduction.DupFd(fd)

    #: An end of `mpqueue._os.descriptors`.
    hand_channel = hand_file

    def hand_leash(leash: Leash) -> Any:
        """Hand over the leash: the process holds its end from now on."""
        return reduction.DupFd(leash.worker_end)

    def arrive(passed: Any) -> int:
        """Take over a thing; return the number under which it is this process's own."""
        number: int = passed.detach()
        os.set_inheritable(number, False)
        return number


def spawn(executable: str, arguments: list[str], environment: Mapping[str, str], text: Callable[[Any], bytes]) -> Any:
    """Start the interpreter; returns the popen object that `multiprocessing` uses for a process.

    ``text`` makes the first data that it reads, by the handle whose number is its last argument. ``text`` gets the
    returned object as the process that is being spawned: things pickled meanwhile are handed over to it. Raises
    OSError, and errors of ``text``: then the process has not run.
    """
    if sys.platform == "win32":
        return Spawned(executable, arguments, environment, text)
    raise NotImplementedError("expected Windows: elsewhere processes inherit what they share")
