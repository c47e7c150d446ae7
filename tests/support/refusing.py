"""A filter of system calls (seccomp), as containers have them: what it names is refused, here and below.

Linux on x86-64 and arm64 only. There is no way back: for programs of their own.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys
from typing import TypeAlias

#: Name -> number on x86-64 and on arm64.
_NUMBERS = {
    "close_range": (436, 436),
    "epoll_create1": (291, 20),
    "fallocate": (285, 47),
    "fcntl": (72, 25),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "kill": (62, 129),
    "madvise": (28, 233),
    "memfd_create": (319, 279),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "process_vm_readv": (310, 270),
    "sched_getaffinity": (204, 123),
    "setpgid": (109, 154),
    "socketpair": (53, 199),
    "statx": (332, 291),
    "sysinfo": (99, 179),
    "timerfd_create": (283, 85),
    "timerfd_settime": (286, 86),
    "waitid": (247, 95),
}
_MACHINES = ("x86_64", "aarch64")
CAN_REFUSE = sys.platform == "linux" and platform.machine() in _MACHINES

#: A system call: by name, or only where an argument (counted from 0) has that value.
Refused: TypeAlias = str | tuple[str, int, int]

PIDFD_SIGNALS = ("pidfd_send_signal", 1, 9)  #: `pidfd_send_signal(..., SIGKILL)`
PDEATHSIG = ("prctl", 0, 1)  #: `prctl(PR_SET_PDEATHSIG)`
SIGKILL = ("kill", 1, 9)  #: `kill(..., SIGKILL)`
SETSIG = ("fcntl", 1, 10)  #: `fcntl(..., F_SETSIG)`
SETOWN = ("fcntl", 1, 8)  #: `fcntl(..., F_SETOWN)`
LEASES = ("fcntl", 1, 1024)  #: `fcntl(..., F_SETLEASE)`
SEALS = ("fcntl", 1, 1033)  #: `fcntl(..., F_ADD_SEALS)`
OPENING_LOCKS = ("fcntl", 1, 37)  #: `fcntl(..., F_OFD_SETLK)`
OPENING_LOOKS = ("fcntl", 1, 36)  #: `fcntl(..., F_OFD_GETLK)`
MESSAGES = ("socketpair", 1, 0o2000005)  #: `socketpair(..., SOCK_SEQPACKET | SOCK_CLOEXEC)`

#: What only Linux has and the package uses, and some more that programs can do without: gVisor, kernels that are older,
#: and strict containers lack some of it each. Without clone3 the C library goes on to clone, so that is not here.
ALL_OF_LINUX: tuple[Refused, ...] = (
    "close_range", "epoll_create1", "fallocate", "getrandom", "getrusage", "madvise", "memfd_create", "pidfd_open",
    "pidfd_send_signal", "prctl", "prlimit64", "process_vm_readv", "sched_getaffinity", "statx", "sysinfo",
    "timerfd_create", "timerfd_settime", "waitid", SETSIG, SETOWN, LEASES, SEALS, OPENING_LOCKS, OPENING_LOOKS,
    MESSAGES,
)  # fmt: skip

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER_AT, _ARGUMENTS_AT = 0, 16


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse(*calls: Refused, error: int = errno.EPERM) -> None:
    """Refuse these system calls from now on, with that error."""
    steps = b""
    for call in calls:
        name, argument, value = call if isinstance(call, tuple) else (call, None, 0)
        number = _NUMBERS[name][_MACHINES.index(platform.machine())]
        refusal = _step(_RETURN, _ERRNO | error)
        if argument is not None:
            refusal = _step(_LOAD, _ARGUMENTS_AT + 8 * argument) + _step(_JUMP_IF_EQUAL, value, otherwise=1) + refusal
        steps += _step(_LOAD, _NUMBER_AT) + _step(_JUMP_IF_EQUAL, number, otherwise=len(refusal) // 8) + refusal
    steps += _step(_RETURN, _ALLOW)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    program = _Program(len(steps) // 8, steps)
    zero, one = ctypes.c_ulong(0), ctypes.c_ulong(1)
    if prctl(_PR_SET_NO_NEW_PRIVS, one, zero, zero, zero) or prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(_FILTER), ctypes.byref(program), zero, zero
    ):
        raise OSError(ctypes.get_errno(), "a filter of system calls can't be set here")


def _step(code: int, value: int, *, otherwise: int = 0) -> bytes:
    return struct.pack("<HBBI", code, 0, otherwise, value)
