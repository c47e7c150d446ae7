"""Unnamed files in memory, which a process shares with those that inherit or are handed a descriptor of them.

On Linux a memfd: it does not count against the size of /dev/shm, can be opened by its path below ``/proc``, and can be
sealed. The portable form is a temporary file without a name: it can't be sealed, and others read it by a descriptor
that they are handed.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import tempfile

from mpqueue._os.system import IS_LINUX, choose

#: Whether a file can be opened by its path in other processes, and sealed.
CAN_BE_OPENED_BY_OTHERS: bool = IS_LINUX and hasattr(os, "memfd_create")  # a Python built for an old glibc has it not

#: Of Linux; the module `fcntl` has no names for them, in some versions.
_F_ADD_SEALS = 1033
_SEAL_SHRINK, _SEAL_GROW, _SEAL_FUTURE_WRITE = 0x2, 0x4, 0x10


class SharedFile:
    """An unnamed file in memory that the parent makes and its workers inherit: nothing is left when both are gone.

    It has this size, or begins with this data, and is read from its beginning. Raises OSError.
    """

    def __init__(self, label: str, size: int = 0, data: bytes = b"") -> None:
        self.fd = make_file(label)
        try:
            os.ftruncate(self.fd, size or len(data))
            written = 0
            while written < len(data):
                written += os.pwrite(self.fd, data[written:], written)
        except OSError as error:
            self.close()
            if error.errno == errno.EFBIG:
                text = "files must not grow to a few kilobytes here; raise `ulimit -f`"
                raise OSError(errno.EFBIG, text) from None
            raise

    @property
    def path(self) -> str:
        """By which another process opens it, see `path_of`."""
        return path_of(self.fd)

    def close(self) -> None:
        """Close the descriptor; mappings stay valid."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _make_memfd(label: str) -> int:
    try:
        fd: int = os.memfd_create(f"mpqueue-{label}", os.MFD_CLOEXEC)  # type: ignore[attr-defined,unused-ignore]
    except AttributeError:
        return _make_temporary(label)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            raise
        return _make_temporary(label)
    return fd


def _make_temporary(label: str) -> int:
    with tempfile.TemporaryFile(prefix=f"mpqueue-{label}-") as file:
        return fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)


#: The descriptor of such a file, empty, private to this process, and no standard stream. Raises OSError.
make_file = choose(linux=_make_memfd, posix=_make_temporary)


def _make_sealable_memfd(label: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING  # type: ignore[attr-defined,unused-ignore]
    fd: int = os.memfd_create(f"mpqueue-{label}", flags)  # type: ignore[attr-defined,unused-ignore]
    return fd


def _seal_memfd(fd: int) -> None:
    fcntl.fcntl(fd, _F_ADD_SEALS, _SEAL_SHRINK | _SEAL_GROW | _SEAL_FUTURE_WRITE)


def _seal_nothing(fd: int) -> None:
    raise OSError(errno.ENOTSUP, f"this system can't seal what is open under {fd}")


#: As `make_file`: one that can be sealed, where `CAN_BE_OPENED_BY_OTHERS`.
make_sealable = _make_sealable_memfd if CAN_BE_OPENED_BY_OTHERS else _make_temporary

#: From now on the size of a file by `make_sealable` stays, and it is written only through mappings that are there.
#: Raises OSError where that can't be had (Linux before 5.1, other systems).
seal = _seal_memfd if CAN_BE_OPENED_BY_OTHERS else _seal_nothing


def _path_in_proc(fd: int) -> str:
    return f"/proc/{_own_name(os.getpid())}/fd/{fd}"


def _no_path(fd: int) -> str:  # noqa: ARG001 - there is none
    return ""


#: The path by which a process of the same user opens what is open under this number here, anew. Empty where there is no
#: such path. It may lead elsewhere once the number is another file's, and nowhere from other namespaces.
path_of = choose(linux=_path_in_proc, posix=_no_path)


@functools.cache
def _own_name(process: int) -> str:
    """What this process is called in ``/proc``, which may be that of another namespace of processes."""
    try:
        return os.readlink("/proc/self")
    except OSError:
        return str(process)
