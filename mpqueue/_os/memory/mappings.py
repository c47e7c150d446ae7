"""Mappings of files into memory, counted, and unmapped when no view of them is left.

The kernel limits a process's mappings (``vm.max_map_count``, 65,530 by default); beyond, it refuses every allocation of
memory. So at most a quarter of them is used; beyond that, the readers of segments copy them.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
import weakref
from collections.abc import Callable
from typing import Any

from mpqueue._os.system import c_library

#: The most mappings that this module makes at a time.
MAX_MAPPED = 16_384


_libc: Any = None


def _mapper() -> Any:
    """``mmap`` and ``munmap`` of the system: up to 3.13, Python's own keeps a descriptor open for each mapping."""
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
    address = _mapper().mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0)
    if address == _MAP_FAILED:
        return None
    memory = (ctypes.c_char * size).from_address(address)
    _mapped[address] = weakref.ref(memory, functools.partial(_unmap, address, size, on_end))
    return memory


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


def populate(memory: Any) -> None:
    """Allocate a file mapping's pages now, for writing. Linux before 5.14 allocates them at first use."""
    if sys.platform == "win32":
        return
    _mapper().madvise(ctypes.addressof(memory), ctypes.sizeof(memory), _MADV_POPULATE_WRITE)


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


class Room:
    """A limit on mapped segments. Used on any thread: if two threads map at once, it is off by one or two."""

    def is_left(self) -> bool:
        """Tell whether one more segment may be mapped. Costs 0.1 us."""
        return len(_mapped) < MAX_MAPPED


room = Room()
