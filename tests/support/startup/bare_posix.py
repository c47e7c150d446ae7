"""Makes a process see a bare POSIX system on Linux, after the model of macOS with an old Python: `take_away` it all.

With ``MPQUEUE_PORTABLE=1`` the package uses its portable forms. Whether these, and all that is not chosen, ask for
something that only Linux has is seen where it is not there: for the package, names are gone from Python's modules and
files of the kernel's are refused. Semaphores have short names and don't tell their value, and sockets hold little. All
other code sees Linux, which it was written for.
"""

from __future__ import annotations

import os
import sys
from typing import Any

#: The variable that `mpqueue._os.system` reads.
SWITCH = "MPQUEUE_PORTABLE"

#: What Python's modules have on Linux, and not on macOS before Python 3.13. A name that ends with ``_`` is a beginning.
GONE = {
    "os": (
        "CLONE_", "EFD_", "GRND_", "MFD_", "O_DIRECT", "O_LARGEFILE", "O_NOATIME", "O_PATH", "O_TMPFILE",
        "P_PIDFD", "PIDFD_", "POSIX_FADV_", "RWF_", "SCHED_BATCH", "SCHED_IDLE", "SPLICE_", "TFD_", "XATTR_",
        "copy_file_range", "eventfd", "eventfd_", "fdatasync", "fexecve", "getrandom", "getresgid", "getresuid",
        "getxattr", "listxattr", "memfd_create", "pidfd_open", "pipe2", "posix_fadvise", "posix_fallocate",
        "removexattr", "sched_getaffinity", "sched_setaffinity", "sched_getparam", "sched_getscheduler",
        "sched_setscheduler", "setns", "setresgid", "setresuid", "setxattr", "splice", "timerfd_", "unshare",
        "waitid", "waitid_result",
    ),
    "fcntl": (
        "F_ADD_SEALS", "F_GETLEASE", "F_GETPIPE_SZ", "F_GETSIG", "F_GET_SEALS", "F_NOTIFY", "F_OFD_", "F_SEAL_",
        "F_SETLEASE", "F_SETPIPE_SZ", "F_SETSIG",
    ),
    "mmap": ("MADV_HUGEPAGE", "MADV_REMOVE", "MAP_DENYWRITE", "MAP_EXECUTABLE", "MAP_LOCKED", "MAP_POPULATE"),
    "resource": ("RUSAGE_THREAD", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_OFILE", "RLIMIT_RTPRIO", "prlimit"),
    "select": ("EPOLL", "EPOLL_", "epoll"),
    "signal": ("SIGPWR", "SIGRTMAX", "SIGRTMIN", "SIGSTKFLT", "pidfd_send_signal", "sigtimedwait", "sigwaitinfo"),
    "socket": ("MSG_CMSG_CLOEXEC", "MSG_NOSIGNAL", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "SO_DOMAIN", "SO_PEERCRED",
        "SO_PROTOCOL", "TCP_DEFER_ACCEPT"),
    "time": ("CLOCK_BOOTTIME", "CLOCK_TAI", "pthread_getcpuclockid"),
}  # fmt: skip

#: Functions of the C library that only Linux has.
_OF_LINUX = (
    "eventfd",
    "fallocate",
    "memfd_create",
    "pidfd_open",
    "prctl",
    "sem_init",
    "timerfd_create",
    "timerfd_settime",
)
#: Folders that only Linux has.
_FOLDERS = ("/proc", "/sys")
#: Bytes that a name of a semaphore has at most, and that a socket of a pair holds.
_LONGEST_NAME, _SOCKET_SIZE = 31, 8192

_PACKAGE = f"{os.sep}mpqueue{os.sep}"
_OTHERS = (f"{os.sep}tests{os.sep}", f"{os.sep}site-packages{os.sep}")


class LinuxUsedError(Exception):
    """The package has asked for what only Linux has. No OSError, which would be taken for a refusal."""


def take_away() -> None:
    """From now on the package has none of it in this process."""
    import _multiprocessing  # type: ignore[import-not-found]
    import fcntl
    import mmap
    import resource
    import select
    import signal
    import socket
    import time

    for module in (os, fcntl, mmap, resource, select, signal, socket, time):
        _hide(module, GONE[module.__name__])
    _multiprocessing.SemLock = _bare_semaphore(_multiprocessing.SemLock)
    _make_sockets_small(socket)
    sys.addaudithook(_refuse)


def _hide(module: Any, gone: tuple[str, ...]) -> None:
    hidden = {name: value for name, value in vars(module).items() if _is_gone(name, gone)}
    for name in hidden:
        delattr(module, name)

    def find(name: str) -> Any:
        if name not in hidden or _PACKAGE in sys._getframe(1).f_code.co_filename:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        return hidden[name]

    module.__getattr__ = find


def _is_gone(name: str, gone: tuple[str, ...]) -> bool:
    return any(name.startswith(one) if one.endswith("_") else name == one for one in gone)


def _bare_semaphore(plain: Any) -> Any:
    class SemLock(plain):  # type: ignore[misc]
        """As on macOS."""

        def __new__(cls, kind: int, value: int, most: int, name: str, unlink: bool) -> Any:
            if len(name) > _LONGEST_NAME:
                raise LinuxUsedError(f"the name of a semaphore has {len(name)} characters: {name}")
            return super().__new__(cls, kind, value, most, name, unlink)

        def _get_value(self) -> int:
            raise NotImplementedError

    return SemLock


def _make_sockets_small(socket: Any) -> None:
    plain = socket.socketpair

    def socketpair(*arguments: Any, **named: Any) -> Any:
        pair = plain(*arguments, **named)
        for end in pair:
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, _SOCKET_SIZE // 2)  # Linux makes it twice as much
        return pair

    socket.socketpair = socketpair


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise where the package asks for a file of the kernel's, or a function that only Linux has."""
    if event in ("open", "os.listdir", "os.scandir"):
        path = arguments[0]
        if not isinstance(path, str) or not path.startswith(_FOLDERS):
            return
    elif event == "ctypes.dlsym":
        path = arguments[1]
        if path not in _OF_LINUX:
            return
    else:
        return
    if _is_asked_by_package(sys._getframe(1)):
        raise LinuxUsedError(f"{event} of {path}")


def _is_asked_by_package(frame: Any) -> bool:
    """Whether the package is what asks, by itself or through the standard library."""
    while frame is not None:
        path = frame.f_code.co_filename
        if any(folder in path for folder in _OTHERS):
            return False
        if _PACKAGE in path:
            return True
        frame = frame.f_back
    return False
