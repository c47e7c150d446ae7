"""Mappings of files into memory, unmapped when nothing views them any more, and counted.

The kernel allows a process so many mappings (``vm.max_map_count``, 65,530 by default), and then refuses it every
allocation of memory. So segments are mapped only well below that; beyond it their readers copy them.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import sys
import weakref
from collections.abc import Callable
from typing import Any

from mpqueue._os.system import c_library, choose

#: What the kernel allows where it does not say.
DEFAULT_LIMIT = 65_530

#: Of what the kernel allows, the part that may be mapped by this module, and in all of the process.
OWN_PART, WHOLE_PART = 1 / 4, 1 / 2

#: How many mappings are made before those of the process are counted for the first time, and then at least between two
#: counts. To count takes 0.5 us for each that there is.
FIRST_COUNT, BETWEEN_COUNTS = 64, 1024


_libc: Any = None


def _mapper() -> Any:
    """``mmap`` and ``munmap`` of the system: Python's own keeps a descriptor open for each mapping until 3.13."""
    global _libc
    if _libc is None:
        _libc = c_library()
        _libc.mmap.restype = ctypes.c_void_p
        _libc.mmap.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_ssize_t,
        ]
        _libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        _libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return _libc


_MADV_POPULATE_WRITE = 23
_MAP_FIXED = 0x10
_MAP_FAILED = ctypes.c_void_p(-1).value

#: What is mapped, by address: the reference that tells when nothing views it any more. At exit, when this goes before
#: them, they stay mapped: there may be arrays that are used until the very end. `weakref.finalize` takes 3 us longer.
_mapped: dict[int, weakref.ref[Any]] = {}


#: For `map_file`: whether what is written there is seen by all that map the file, or by this mapping alone.
SHARED: int = getattr(mmap, "MAP_SHARED", 1)
PRIVATE: int = getattr(mmap, "MAP_PRIVATE", 2)


def map_file(size: int, flags: int, fd: int, on_end: Callable[[], object] | None = None) -> Any:
    """Memory to read and write, unmapped when nothing views it any more; None where the system has none to give.

    ``on_end`` is called then, on whatever thread drops the last view.
    """
    if sys.platform == "win32":
        return _map_by_python(size, flags, fd, on_end)
    address = _mapper().mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0)
    if address == _MAP_FAILED:
        return None
    memory = (ctypes.c_char * size).from_address(address)
    _mapped[address] = weakref.ref(memory, functools.partial(_unmap, address, size, on_end))
    return memory


def _map_by_python(size: int, flags: int, fd: int, on_end: Callable[[], object] | None) -> Any:
    """On Windows, where a mapping has a handle of its own, and no descriptor."""
    access = mmap.ACCESS_COPY if flags == PRIVATE else mmap.ACCESS_WRITE
    try:
        memory = (ctypes.c_char * size).from_buffer(mmap.mmap(fd, size, access=access))
    except OSError:
        return None
    if on_end is not None:
        weakref.finalize(memory, on_end).atexit = False
    return memory


def zeros(size: int) -> mmap.mmap:
    """Memory of this process's own, which takes no room until it is written."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def populate(memory: Any) -> None:
    """Give a mapping of a file its pages now, for writing. Linux before 5.14 gives them as they are met."""
    if sys.platform == "win32":
        return
    _mapper().madvise(ctypes.addressof(memory), ctypes.sizeof(memory), _MADV_POPULATE_WRITE)


def address_of(view: memoryview) -> int:
    """Where this memory, which can be written, is."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def give_up_sharing(address: int, size: int) -> None:
    """Put private memory, all zeros, in the place of a mapping: its views stay valid, and change no other memory."""
    protection, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    _mapper().mmap(address, size, protection, kind, -1, 0)


def _unmap(address: int, size: int, on_end: Callable[[], object] | None, _: object) -> None:
    del _mapped[address]  # first: another thread may map something there at once
    _mapper().munmap(address, size)
    if on_end is not None:
        on_end()


class Room:
    """Whether one more segment may be mapped. Used on any thread: what two threads do at once is off by one or two."""

    def __init__(self) -> None:
        self._asked = 0
        self._count_at = FIRST_COUNT
        self._others = 0  #: mappings of the process that are not ours, when they were counted last
        self._limit = DEFAULT_LIMIT

    def is_left(self) -> bool:
        """To be asked once for each. Costs 0.3 us."""
        self._asked += 1
        if self._asked >= self._count_at:
            self._count()
        own = len(_mapped)
        return own < self._limit * OWN_PART and own + self._others < self._limit * WHOLE_PART

    def _count(self) -> None:
        total = count_mappings()
        self._count_at = self._asked + max(BETWEEN_COUNTS, total // 4)
        self._others = max(total - len(_mapped), 0)
        self._limit = read_limit()


def _count_in_proc() -> int:
    count = 0
    with contextlib.suppress(OSError), open("/proc/self/maps", "rb", buffering=0) as lines:
        while part := lines.read(1 << 16):
            count += part.count(b"\n")
    return count


def _count_none() -> int:
    return 0


#: How many mappings this process has; 0 where that is not told.
count_mappings = choose(linux=_count_in_proc, posix=_count_none)


def _read_limit_in_proc() -> int:
    try:
        with open("/proc/sys/vm/max_map_count", "rb", buffering=0) as file:
            return int(file.read())
    except (OSError, ValueError):
        return DEFAULT_LIMIT


def _default_limit() -> int:
    return DEFAULT_LIMIT


#: How many mappings the system allows a process; `DEFAULT_LIMIT` where that is not told.
read_limit = choose(linux=_read_limit_in_proc, posix=_default_limit)

room = Room()
