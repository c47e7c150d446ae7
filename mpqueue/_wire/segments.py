"""Shared segments: unnamed files in memory through which big data travels, and their recycling.

One process writes a segment and names it in a message; the other maps it privately, so that what it finds there is
its own to change, and says when its last view is gone. Then the writer fills the segment again: writing to pages that
exist already costs a fifth of making new ones. A segment is reused only when nobody maps it, since a private mapping
shows later writes to pages that its owner has not touched.

==================  ==========================  ==========================================
what                made and written by         mapped by
==================  ==========================  ==========================================
items               the coordinator             the one worker that runs them
results             a worker                    the parent
handlers, `share`   the caller of `create_job`  every worker that needs them; never reused
==================  ==========================  ==========================================

A segment is a memfd: it has no name, so nothing can be left behind by whatever death, and it does not count against
the size of /dev/shm. The other side opens it through ``/proc``. It is filled by ``write``, which reports a full memory
as an error where a mapping would kill the process. Where there are no memfds, everything goes through the pipe.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import logging
import mmap
import os
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

log = logging.getLogger("mpqueue")

#: Bytes from which a buffer, or a whole pickle, goes through a segment; below it the pipe is as fast.
BIG = 128 << 10
#: Bytes: views begin at multiples of this, as numpy likes it.
ALIGNMENT = 64
#: Bytes of free segments that a store keeps for reuse.
KEEP_FREE = 256 << 20
#: Segments that a store lets the other side hold while it stays ready to reuse them; each costs a descriptor.
KEEP_LENT = 64

#: Seconds that a reader waits for a descriptor to open a segment with, and between two tries: nobody tells of one.
PATIENCE, PAUSE = 10.0, 0.02

AVAILABLE = sys.platform == "linux"
_serials = itertools.count(1)


class SegmentRef(NamedTuple):
    """A segment's name in a message: good while its writer holds it open."""

    path: str
    serial: int
    size: int


class SegmentGoneError(OSError):
    """The writer of a segment died before the reader had opened it: what it held is lost."""


class Segment:
    """The writer's side. Its descriptor is closed when nobody holds this object any more."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("mpqueue-segment", os.MFD_CLOEXEC)
        self.serial = next(_serials)
        self.capacity = 0
        self._path = f"/proc/{os.getpid()}/fd/{self._fd}"

    def fill(self, buffers: Sequence[memoryview], offsets: Sequence[int], size: int) -> SegmentRef:
        """Write the buffers at these offsets. Raises OSError where there is no memory for it."""
        for buffer, offset in zip(buffers, offsets, strict=True):
            _write_all(self._fd, buffer, offset)
        if size > self.capacity:
            os.ftruncate(self._fd, size)
            self.capacity = size
        return SegmentRef(self._path, self.serial, size)

    def close(self) -> None:
        """Give the descriptor back; mappings of the other side stay valid."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


def _write_all(fd: int, buffer: memoryview, offset: int) -> None:
    while buffer.nbytes:
        written = os.pwrite(fd, buffer, offset)
        buffer, offset = buffer[written:], offset + written


def layout(buffers: Sequence[memoryview]) -> tuple[list[int], int]:
    """Where each buffer begins, and the size of it all."""
    offsets, end = [], 0
    for buffer in buffers:
        offsets.append(end)
        end += -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT
    return offsets, end


class SegmentStore:
    """The segments that one side writes, lends and reuses. Used by one thread at a time."""

    def __init__(self) -> None:
        self._free: list[Segment] = []
        self._lent: OrderedDict[int, Segment] = OrderedDict()

    def lend(self, buffers: Sequence[memoryview]) -> tuple[SegmentRef, list[int]]:
        """Put the buffers into a segment; returns its name and where each begins. Raises OSError without memory."""
        offsets, size = layout(buffers)
        segment = self._take(size)
        ref = segment.fill(buffers, offsets, size)
        self._lent[segment.serial] = segment
        return ref, offsets

    def _take(self, size: int) -> Segment:
        fitting = [segment for segment in self._free if size <= segment.capacity <= max(2 * size, size + BIG)]
        if not fitting:
            return Segment()
        segment = min(fitting, key=lambda found: found.capacity)
        self._free.remove(segment)
        return segment

    def take_back(self, serials: Sequence[int]) -> None:
        """The other side has no view of these any more."""
        for serial in serials:
            segment = self._lent.pop(serial, None)
            if segment is not None:
                self._free.append(segment)
        kept = 0
        for at in range(len(self._free) - 1, -1, -1):
            kept += self._free[at].capacity
            if kept > KEEP_FREE:
                del self._free[: at + 1]
                break

    def give_up(self, serials: Sequence[int]) -> None:
        """Nobody will say when these are free: let go of them."""
        for serial in serials:
            self._lent.pop(serial, None)

    def give_up_oldest(self, known: Callable[[int], bool]) -> None:
        """Let go of what the other side keeps for long, oldest first, where it is known to have mapped it."""
        while len(self._lent) > KEEP_LENT:
            serial = next(iter(self._lent))
            if not known(serial):
                return
            del self._lent[serial]


_libc: Any = None


def _mapper() -> Any:
    """``mmap`` and ``munmap`` of the system: Python's own keeps a descriptor open for each mapping until 3.13."""
    global _libc  # noqa: PLW0603 - loaded once, where it is needed
    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
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
    return _libc


_MAP_FAILED = ctypes.c_void_p(-1).value


def view(ref: SegmentRef, on_free: Callable[[int], object] | None = None) -> memoryview:
    """The reader's side: the segment as writable memory of one's own.

    When the last view of it is gone it is unmapped, and ``on_free`` is called with its serial, on whatever thread drops
    that view. Raises `SegmentGoneError`, or OSError where it can't be mapped. Where this process has no descriptor left
    it waits for one, `PATIENCE` seconds at most: nothing is wrong with what is in there.
    """
    fd = _opened(ref)
    try:
        address = _mapper().mmap(None, ref.size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, fd, 0)
    finally:
        os.close(fd)
    if address == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), f"can't map a segment of {ref.size} bytes")
    memory = (ctypes.c_char * ref.size).from_address(address)
    # Not at exit: there may be arrays that are used until the very end.
    weakref.finalize(memory, _unmap, address, ref, on_free).atexit = False
    return memoryview(memory).cast("B")


def _opened(ref: SegmentRef) -> int:
    for _ in range(int(PATIENCE / PAUSE)):
        try:
            return os.open(ref.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise SegmentGoneError(error.errno, "the writer of a segment is gone", ref.path) from None
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        threading.Event().wait(PAUSE)
    return os.open(ref.path, os.O_RDONLY | os.O_CLOEXEC)


def _unmap(address: int, ref: SegmentRef, on_free: Callable[[int], object] | None) -> None:
    _mapper().munmap(address, ref.size)
    if on_free is not None:
        on_free(ref.serial)
