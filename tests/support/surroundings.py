"""Places in which a program can be run: without /proc, without /dev/fd, with a read-only /dev/shm, without some calls.

Mounts need root, or user namespaces; where neither is there, the test is skipped.
"""

from __future__ import annotations

import ctypes
import errno
import struct
import subprocess
from functools import cache

import pytest

NO_PROC = "mount -t tmpfs tmpfs /proc"
READ_ONLY_SHM = "mount -t tmpfs -o ro tmpfs /dev/shm"
#: A /dev of which there is nothing but what every program needs.
NO_DEV_FD = (
    "mkdir -p /dev/shm/dev && touch /dev/shm/dev/null && mount --bind /dev/null /dev/shm/dev/null"
    " && mount --rbind /dev/shm/dev /dev && mkdir /dev/shm && mount -t tmpfs tmpfs /dev/shm"
)
NO_SHM = (
    "mkdir -p /dev/shm/dev && touch /dev/shm/dev/null && mount --bind /dev/null /dev/shm/dev/null"
    " && mount --rbind /dev/shm/dev /dev"
)

_SECCOMP = 22
_NO_NEW_PRIVILEGES = 38
_FILTER = 2
_LOAD_CALL, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
#: The number of memfd_create, on the machine at hand.
_MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}


def inside(mounts: str, command: list[str]) -> list[str]:
    """``command``, wrapped so that it runs with these mounts of its own."""
    if not _may_mount():
        pytest.skip("mounting is not allowed here")
    prepare = f'mount --make-rprivate / && mount -t tmpfs tmpfs /dev/shm && {mounts} && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", prepare, "sh", *command]


@cache
def _may_mount() -> bool:
    command = ["unshare", "--mount", "sh", "-c", "mount --make-rprivate / && mount -t tmpfs tmpfs /dev/shm"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def refuse_memfd(number: int = errno.EPERM) -> None:
    """From now on this process, and what it starts, gets that error for memfd_create."""
    import platform

    call = _MEMFD_CREATE[platform.machine()]
    program = b"".join(
        struct.pack("HBBI", *line)
        for line in (
            (_LOAD_CALL, 0, 0, 0),
            (_IF_EQUAL, 0, 1, call),
            (_RETURN, 0, 0, _FAIL | number),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    lines = ctypes.create_string_buffer(program)
    description = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(lines))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SECCOMP, _FILTER, description, 0, 0)):
        if libc.prctl(
            *(argument if isinstance(argument, bytes) else ctypes.c_ulong(argument) for argument in arguments)
        ):
            raise OSError(ctypes.get_errno(), "prctl")
