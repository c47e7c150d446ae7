"""Unnamed files in memory, which a process shares with processes that inherit or receive a descriptor of them.

On Linux a memfd: it does not count against the size of /dev/shm, can be sealed, and can be opened by its path if there
is a ``/proc``. The portable form, also used if a filter of system calls refuses memfds, is a temporary file without a
name: it can't be sealed, and others read it by a descriptor that they receive. The form for Windows has a name, by
which they open it, and ends with its last handle; Windows writes it to the disk only if it needs the memory.
"""

from __future__ import annotations

import errno
import functools
import mmap
import os
import signal
import sys
import tempfile
from collections.abc import Callable

from mpqueue._os.descriptors import duplicate, reopen
from mpqueue._os.files import open_unseen, write_at
from mpqueue._os.memory.mappings import map_file
from mpqueue._os.system import IS_LINUX, IS_WINDOWS, PROC, c_library

if sys.platform == "win32":
    from mpqueue._os.windows import file_handles as windows
else:
    import fcntl

#: Linux constants; in some versions the module `fcntl` does not have them.
_F_ADD_SEALS = 1033
_SEAL_SHRINK, _SEAL_GROW, _SEAL_FUTURE_WRITE = 0x2, 0x4, 0x10
_SEALABLE = 0x1 | 0x2  # MFD_CLOEXEC and MFD_ALLOW_SEALING, which not every Python has


class SharedFile:
    """An unnamed file in memory that the parent makes and its workers inherit: nothing is left when both have ended.

    It has this size, or begins with this data, and is read from its beginning. Raises OSError.
    """

    def __init__(self, label: str, size: int = 0, data: bytes = b"") -> None:
        self.fd = make_file(label)
        try:
            os.ftruncate(self.fd, size or len(data))
            written = 0
            while written < len(data):
                written += write_at(self.fd, data[written:], written)
        except OSError as error:
            self.close()
            if error.errno == errno.EFBIG:
                text = "files must not grow to a few kilobytes here; raise `ulimit -f`"
                raise OSError(errno.EFBIG, text) from None
            raise

    @property
    def path(self) -> str:
        """The path by which another process opens the file, see `path_of`."""
        return path_of(self.fd)

    def close(self) -> None:
        """Close the descriptor; mappings stay valid."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def make_file(label: str) -> int:
    """Return the descriptor of such a file, empty, private to this process, and no standard stream.

    Raises OSError, with the remedy if there is no folder for it.
    """
    return _make(label, 0x1)


def _make(label: str, flags: int) -> int:
    try:
        return _memfd(label, flags)
    except (AttributeError, OSError) as error:  # refused by the kernel or a filter, or a Python built for an old glibc
        if isinstance(error, OSError) and error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            raise
        return _make_temporary(label)


def _memfd(label: str, flags: int) -> int:
    fd: int = os.memfd_create(f"mpqueue-{label}", flags)  # type: ignore[attr-defined,unused-ignore]
    if fd > 2:
        return fd
    try:
        return duplicate(fd)
    finally:
        os.close(fd)


def _make_temporary(label: str) -> int:
    if sys.platform == "win32":
        return windows.make_temporary(label)
    try:
        with tempfile.TemporaryFile(prefix=f"mpqueue-{label}-") as file:
            return duplicate(file.fileno())
    except FileNotFoundError as error:  # `tempfile` has tried all folders that it knows
        text = f"expected a folder where temporary files can be made, got none; set TMPDIR to one ({error.strerror})"
        raise FileNotFoundError(errno.ENOENT, text) from None


def make_appended(label: str) -> int:
    """Make a file like `make_file`, in which all writes by this descriptor or a duplicate go to the end."""
    if sys.platform == "win32":
        return windows.make_temporary(label, appended=True)
    fd = make_file(label)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
    return fd


#: Linux constants: keep the file's size, and make a hole in it.
_KEEP_SIZE, _PUNCH_HOLE = 0x1, 0x2


@functools.cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    """Return `fallocate` of the C library; None if its offsets may have another type than here."""
    import ctypes  # only where it is used

    function = getattr(c_library(), "fallocate", None)
    if function is None or ctypes.sizeof(ctypes.c_long) < 8:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
    return function  # type: ignore[no-any-return]


def free_beginning(fd: int, size: int) -> bool:
    """Free the memory of a file's first bytes, up to that number; they are zeros from then on.

    Returns False if the system can't do that.
    """
    fallocate = _fallocate() if IS_LINUX else None
    return fallocate is not None and fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, 0, size) == 0


def make_sealable(label: str) -> int:
    """Like `make_file`: a file that can be sealed, if the system has such files, and passed on in any case."""
    if IS_WINDOWS and not can_be_opened_by_others():  # and Windows passes no descriptors
        raise OSError(errno.ENOTSUP, f"expected temporary files that other processes can open, for a {label}; got none")
    return _make(label, _SEALABLE)


def may_be_one(found: os.stat_result) -> bool:
    """False for a file that can't be one of these: it has a name in a folder, where these have none."""
    return IS_WINDOWS or not found.st_nlink


def seal(fd: int) -> None:
    """From now on the size of a file of `make_sealable` stays, and only existing mappings can write it.

    Raises OSError if that is not supported (Linux before 5.1, other systems).
    """
    if sys.platform == "linux" and IS_LINUX:
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEAL_SHRINK | _SEAL_GROW | _SEAL_FUTURE_WRITE)
    else:
        raise OSError(errno.ENOTSUP, f"this system can't seal what is open under {fd}")


def path_of(fd: int) -> str:
    """Return the path by which a process of the same user opens again the file under this number here.

    Empty if there is no such path. Once the number is another file's, it may lead there; from other namespaces it leads
    nowhere.
    """
    if sys.platform == "win32":
        return windows.name_of(fd)
    return f"{PROC}/{_own_name(os.getpid())}/fd/{fd}" if IS_LINUX else ""


#: Temporary errors; any other is the system's final answer.
_PASSES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@functools.cache
def can_be_opened_by_others() -> bool:
    """Tell whether other processes can open a file of `make_sealable` by its path: on Linux a memfd, on Windows any.

    Tried out once in each process, 30 us. Raises OSError if it can't be tried now.
    """
    try:
        fd = _make_temporary("segment") if IS_WINDOWS else _memfd("segment", _SEALABLE)
        try:
            opened = open_unseen(path_of(fd))
            try:
                return os.path.samestat(os.fstat(opened), os.fstat(fd))
            finally:
                os.close(opened)
        finally:
            os.close(fd)
    except AttributeError:
        return False
    except OSError as error:
        if error.errno in _PASSES:
            raise
        return False


@functools.cache
def _own_name(process: int) -> str:
    """Return the name of this process in ``/proc``, which may be that of another namespace of processes."""
    try:
        return os.readlink(f"{PROC}/self")
    except OSError:
        return str(process)


# -- Leases, by which the kernel shows whether a file in memory is still open or mapped somewhere else. ----------------
#
# The kernel grants a write lease on a file only while no other open file refers to it, and a reader's mapping keeps the
# reader's open file alive, also in forked children, after it was closed. Only Linux has leases; elsewhere the answer is
# always that it may be open.

#: A Linux constant; in some versions the module `fcntl` does not have it.
_F_SETSIG = 10


@functools.cache
def leases_tell() -> bool:
    """Tell whether a lease on a file in memory reveals another mapping of it: tried out once in each process.

    It does not without /proc, with leases switched off (``fs.leases-enable``), under some sandboxes, on old kernels,
    and on other systems than Linux.
    """
    try:
        if not can_be_opened_by_others():
            return False
        fd = make_file("segment")
        try:
            if not make_leasable(fd):
                return False
            os.ftruncate(fd, mmap.PAGESIZE)
            reader = reopen(fd, os.O_RDONLY)
            try:
                memory = map_file(mmap.PAGESIZE, mmap.MAP_PRIVATE, reader)
            finally:
                os.close(reader)
            told = memory is not None and not is_open_once(fd)
            del memory
            return told and is_open_once(fd)
        finally:
            os.close(fd)
    except OSError:
        return False


def make_leasable(fd: int) -> bool:
    """Make this descriptor of a memfd one for which leases are granted; false, without a change, if it can't be.

    A descriptor from `memfd_create` does not count as opened for writing, and is always refused.
    """
    try:
        anew = reopen(fd, os.O_RDWR)
        try:
            # The kernel sends a signal to the holder of a lease when another process opens the file. The default one,
            # SIGIO, ends a process; this one is ignored.
            fcntl.fcntl(anew, _F_SETSIG, signal.SIGURG)
            os.dup2(anew, fd, inheritable=False)
        finally:
            os.close(anew)
    except OSError:
        return False
    return True


def is_open_once(fd: int) -> bool:
    """True if no other opening or mapping of the file exists; false if in doubt. For files of `make_leasable`."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True
