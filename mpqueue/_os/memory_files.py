"""Unnamed files in memory, which a process shares with processes that inherit or receive a descriptor of them.

On Linux a memfd: it does not count against the size of /dev/shm, can be sealed, and can be opened by its path if there
is a ``/proc``. The portable form, also used if a filter of system calls refuses memfds, is a temporary file without a
name: it can't be sealed, and others read it by a descriptor that they receive. The form for Windows has a name, by
which they open it, and ends with its last handle; Windows writes it to the disk only if it needs the memory.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import signal
import sys
import tempfile
import weakref
from collections.abc import Callable
from typing import Any

from mpqueue._os.descriptors import duplicate, reopen
from mpqueue._os.files import open_unseen, write_at
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
    try:
        return _memfd(label)
    except (AttributeError, OSError) as error:  # refused by the kernel or a filter, or a Python built for an old glibc
        if isinstance(error, OSError) and error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            raise
        return _make_temporary(label)


def _memfd(label: str) -> int:
    fd: int = os.memfd_create(f"mpqueue-{label}", _SEALABLE)  # type: ignore[attr-defined,unused-ignore]
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
    return make_file(label)


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
        fd = _make_temporary("segment") if IS_WINDOWS else _memfd("segment")
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


# -- Mappings of files into memory, counted, and unmapped when no view of them is left. --------------------------------
#
# The kernel limits a process's mappings (``vm.max_map_count``, 65,530 by default); beyond, it refuses every allocation
# of memory. So at most a quarter of them is used; beyond that, the readers of segments copy them.
#
# A big file in memory has huge pages if the kernel can make them, see `allocate_huge`: it is filled in a third of the
# time, and each of its mappings is read in a third.

#: The most mappings that this module makes at a time.
MAX_MAPPED = 16_384
#: Bytes of a huge page: as many as one page of a page table maps.
HUGE_PAGE = mmap.PAGESIZE * (mmap.PAGESIZE // 8)


@functools.cache
def _mapper() -> Any:
    """``mmap`` and ``munmap`` of the system: up to 3.13, Python's own keeps a descriptor open for each mapping."""
    libc = c_library()
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_ssize_t,
    ]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


_MADV_POPULATE_WRITE, _MADV_COLLAPSE = 23, 25
_MAP_FIXED = 0x10
_MAP_FAILED = ctypes.c_void_p(-1).value

#: The mappings by address, each with a reference that reports the end of its last view. At exit, when this dict is
#: freed first, they stay mapped: some arrays may be used until the very end. `weakref.finalize` takes 3 us longer.
_mapped: dict[int, weakref.ref[Any]] = {}


#: For `map_file`: whether writes are seen by all mappings of the file, or by this one only.
SHARED: int = getattr(mmap, "MAP_SHARED", 1)
PRIVATE: int = getattr(mmap, "MAP_PRIVATE", 2)


def map_file(size: int, flags: int, fd: int, on_end: Callable[[], object] | None = None) -> Any:
    """Memory to read and write, unmapped when no view of it is left; None if the system has none.

    ``on_end`` is called then, on the thread that drops the last view.
    """
    if sys.platform == "win32":
        return _map_by_python(size, flags, fd, on_end)
    address = _map_at(None, size, flags, fd) if size < HUGE_PAGE else _map_aligned(size, flags, fd)
    if address is None:
        return None
    memory = (ctypes.c_char * size).from_address(address)
    _mapped[address] = weakref.ref(memory, functools.partial(_unmap, address, size, on_end))
    return memory


def _map_at(address: int | None, size: int, flags: int, fd: int) -> int | None:
    found: int | None = _mapper().mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0)
    return None if found == _MAP_FAILED else found


def _map_aligned(size: int, flags: int, fd: int) -> int | None:
    """Map the file from the beginning of a huge page on, in room taken for it: huge pages are mapped whole only so."""
    room = size + HUGE_PAGE
    begin = _map_at(None, room, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
    if begin is None:
        return None
    aligned = -begin // HUGE_PAGE * -HUGE_PAGE
    address = _map_at(aligned, size, flags | _MAP_FIXED, fd)
    end = begin if address is None else -(address + size) // mmap.PAGESIZE * -mmap.PAGESIZE
    if address is not None and address > begin:
        _mapper().munmap(begin, address - begin)
    _mapper().munmap(end, begin + room - end)
    return address


def _map_by_python(size: int, flags: int, fd: int, on_end: Callable[[], object] | None) -> Any:
    """Map a file on Windows, where a mapping has its own handle, and no descriptor."""
    access = mmap.ACCESS_COPY if flags == PRIVATE else mmap.ACCESS_WRITE
    try:
        memory = (ctypes.c_char * size).from_buffer(mmap.mmap(fd, size, access=access))
    except OSError:
        return None
    if on_end is not None:
        weakref.finalize(memory, on_end).atexit = False
    return memory


def zeros(size: int) -> mmap.mmap:
    """Return memory of this process's own, which takes no room until it is written."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def populate(memory: Any) -> bool:
    """Allocate a file mapping's pages now, for writing; False before Linux 5.14, which does so at their first use."""
    return _advise(memory, _MADV_POPULATE_WRITE)


def allocate_huge(size: int, fd: int) -> Any:
    """Allocate an empty file in memory, in huge pages; returns a shared mapping of it.

    If all CPUs are busy it takes some milliseconds: the kernel waits for each of them.

    None if not all of it could be allocated so: before Linux 6.1, on other systems, and if such files are denied huge
    pages, or there are none left. Raises OSError.
    """
    if sys.platform == "win32" or not IS_LINUX:
        return None
    os.ftruncate(fd, size)
    for begin in range(0, size, HUGE_PAGE):
        os.pwrite(fd, b"\0", begin)  # where there is no page at all, the kernel makes no huge one
    memory = map_file(size, SHARED, fd)
    # The end of the file is less than a huge page.
    return memory if memory is not None and _advise(memory, _MADV_COLLAPSE) and populate(memory) else None


def _advise(memory: Any, advice: int) -> bool:
    if sys.platform == "win32":
        return False
    return bool(_mapper().madvise(ctypes.addressof(memory), ctypes.sizeof(memory), advice) == 0)


def address_of(view: memoryview) -> int:
    """Return the address of this memory, which must be writable."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def give_up_sharing(address: int, size: int) -> None:
    """Replace a mapping by private memory of zeros: its views stay valid, and change no other memory."""
    protection, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    _mapper().mmap(address, size, protection, kind, -1, 0)


def _unmap(address: int, size: int, on_end: Callable[[], object] | None, _: object) -> None:
    del _mapped[address]  # first: another thread may map memory there at once
    _mapper().munmap(address, size)
    if on_end is not None:
        on_end()


def may_map_more() -> bool:
    """Tell whether one more segment may be mapped. Off by one or two if several threads map at once. Costs 0.1 us."""
    return len(_mapped) < MAX_MAPPED
