"""Shared segments: unnamed files in memory that carry big data, and their recycling.

One process writes a segment and names it in a message; the other maps it privately, so that it may change its view, and
reports when its last view is gone. Then the writer fills the segment again: writing to existing pages costs a fifth of
making new ones.

A private mapping shows later writes to pages that its owner has not touched, so a segment is filled again only when no
process maps it. The reader's report is not enough for that: its forks have the same mappings. So the kernel is asked
before each reuse, see `Segment.is_unshared`. A segment that is still mapped somewhere is dropped, and its memory is
freed with its last mapping.

==================  ==========================  ======================================================
what                made and written by         mapped by
==================  ==========================  ======================================================
items               the parent                  the one worker that runs them
results             a worker                    the parent; of a stage: a worker of the next one
handlers            the caller of `create_job`  every worker that needs them; never filled again
`share`             its caller                  the same
==================  ==========================  ======================================================

A segment is a memfd: it has no name, so no death can leave it behind, and it does not count against the size of
/dev/shm. The other side opens it through ``/proc``. It is first filled by ``write``, which reports a full memory as an
error, while a mapping would kill the process; later, and if it could be allocated in huge pages, through a mapping.

On Windows it is a temporary file that is deleted with its last handle. The other side opens it by its name and maps it;
Windows does not report mappings, so it is filled only once.

If the other side is on another machine, an engine may carry the contents of a segment there (`Carried`): its reader
copies them, and then the segment may be filled again.

If files in memory have no path (on other systems, without ``/proc``, or if memfds are refused), items and results are
sent through the pipe. Handlers and shared objects are in temporary files, which workers ask for and copy, see
`mpqueue._wire.memory.asking`: so they are sent once.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from mpqueue._os import memory_files
from mpqueue._os.descriptors import descriptor_limits, reopen_to_read
from mpqueue._os.files import open_unseen, read_into, write_at
from mpqueue._os.memory_files import (
    HUGE_PAGE,
    allocate_huge,
    can_be_opened_by_others,
    is_open_once,
    leases_tell,
    make_leasable,
    make_sealable,
    map_file,
    may_be_one,
    may_map_more,
    path_of,
    populate,
    seal,
)
from mpqueue._os.process_handle import process_name

log = logging.getLogger("mpqueue")

#: Bytes from which a whole pickle uses a segment: it costs one copy more, so below, the pipe is as fast.
BIG = 128 << 10
#: Bytes from which a buffer uses a segment: it costs two copies less. A single buffer of 20 kB takes 50 us more than
#: through the pipe, one of 40 kB the same; if a chunk has several, one of 40 kB takes a third.
BIG_BUFFER = 32 << 10
#: Views begin at multiples of this, in bytes, as is best for numpy.
ALIGNMENT = 64
#: The most bytes of free segments that a store keeps for reuse: a worker's for its results, and a program's for the
#: items of all its workers, of which two may have some of 100 MB each, with the next on their way.
KEEP_FREE, KEEP_FREE_FOR_ITEMS = 256 << 20, 512 << 20
#: The most segments that the other side may hold while the store can reuse them; each costs a descriptor.
KEEP_LENT = 64

#: Bytes that are copied at a time, in 1 ms.
PIECE = 8 << 20

#: Seconds that a reader waits for a descriptor to open a segment, and between two tries: a free one is not notified.
DESCRIPTOR_WAIT_S, DESCRIPTOR_RETRY_S = 10.0, 0.02

_serials = itertools.count(1)


class SegmentRef(NamedTuple):
    """A segment's name in a message: valid while its writer holds it open."""

    path: str  #: a path; if it can't be opened by one, the name of its process: see `process_identity`
    serial: int
    size: int
    inode: int  #: distinguishes it from other files under this path

    @property
    def has_path(self) -> bool:
        """True if it is opened by its path, and mapped; otherwise its writer is asked for it, and it is copied."""
        return self.path[:1] in ("/", "\\")


class Pieces(NamedTuple):
    """Bytes that are made while they are written: their number, and pieces that are valid until the next is taken."""

    nbytes: int
    make: Callable[[], Iterator[memoryview]]

    def whole(self) -> memoryview:
        """Return all pieces in one. Costs a copy."""
        made = bytearray()
        for piece in self.make():
            made += piece
        return memoryview(made)


#: Data written into a segment in one go.
Part: TypeAlias = memoryview | Pieces

#: Contents of another process's segments, by their serials there, carried here by an engine.
Carried: TypeAlias = Mapping[int, memoryview]
#: No carried segments.
NOTHING_CARRIED: Carried = {}


class SegmentGoneError(OSError):
    """The writer of a segment died before the reader had opened it, or the reader can't open it at all."""


def _ask_nobody(_: SegmentRef) -> int | None:
    return None


#: Returns a descriptor of a segment that can't be opened by its name, or None. Set in workers.
ask_writer: Callable[[SegmentRef], int | None] = _ask_nobody


#: The descriptors of this process's segments, by serial.
_descriptors: dict[int, int] = {}


class Segment:
    """A segment, for its writer. Its descriptor is closed when this object is no longer referenced."""

    _fd = -1  #: before it has one: a segment that could not be made is closed too

    def __init__(self) -> None:
        self._has_path = can_be_opened_by_others()
        self._fd = make_sealable("segment")
        self._can_be_leased = False  #: once it is reopened
        self._is_populated = False  #: our mapping has pages
        self.serial = next(_serials)
        self.capacity = 0
        self._path = path_of(self._fd) if self._has_path else process_name()
        self._inode = os.fstat(self._fd).st_ino
        _descriptors[self.serial] = self._fd
        self._memory: Any = None  #: our own mapping, the only way to write to it once it is sealed

    def fill(self, buffers: Sequence[Part], offsets: Sequence[int], size: int) -> SegmentRef:
        """Write the buffers at these offsets, with no gap of a page. Raises OSError if there is no memory for it.

        Its size is fixed when it is filled first.
        """
        if not self.capacity and size >= HUGE_PAGE and self._has_path and may_map_more():
            with contextlib.suppress(OSError):  # writing meets the same obstacle
                self._memory = allocate_huge(size, self._fd)
        memory = self._mapped()
        write = functools.partial(_write_all, self._fd) if memory is None else functools.partial(_copy_all, memory)
        for buffer, offset in zip(buffers, offsets, strict=True):
            if type(buffer) is memoryview:
                write(buffer, offset)
                continue
            at = offset
            for piece in buffer.make():
                write(piece, at)
                at += piece.nbytes
            if at != offset + buffer.nbytes:
                raise ValueError(f"expected {buffer.nbytes} bytes to write, got {at - offset}")
        if not self.capacity:
            os.ftruncate(self._fd, size)
            self.capacity = size
            if self._has_path:
                self._seal()
        return SegmentRef(self._path, self.serial, size, self._inode)

    def _seal(self) -> None:
        """Forbid writing by the descriptor, which a handler may find: only this mapping may write.

        The other side maps the file, and would see other bytes than those that it was sent; and a truncated file would
        end it. If sealing is not supported (many mappings, Linux before 5.1), nothing happens.
        """
        if self._memory is None and may_map_more():
            self._memory = map_file(self.capacity, memory_files.SHARED, self._fd)
        if self._memory is not None:
            with contextlib.suppress(OSError):
                seal(self._fd)

    def _mapped(self) -> memoryview | None:
        """Return all of it for writing; None if not mapped. Its pages exist, so memory can't run out."""
        if self._memory is None:
            return None
        if not self._is_populated:
            # At once, which costs a quarter of adding page after page.
            populate(self._memory)
            self._is_populated = True
        return memoryview(self._memory).cast("B")

    def contents(self) -> memoryview:
        """Return the content, valid until the segment is filled again; a copy if not mapped. Raises OSError."""
        if self._memory is not None:
            return memoryview(self._memory).cast("B").toreadonly()
        copy = memoryview(bytearray(self.capacity))
        _read_all(self._fd, copy, 0)
        return copy

    def is_unshared(self) -> bool:
        """True if no process but the writing one maps this segment or has it open; false if in doubt. 3 us.

        The kernel knows, see `mpqueue._os.memory_files`.
        """
        if not leases_tell() or not _is_segment(self._fd, self._inode):  # a handler may have closed it, or worse
            return False
        if not self._can_be_leased:
            self._can_be_leased = make_leasable(self._fd)
        return self._can_be_leased and is_open_once(self._fd)

    def close(self) -> None:
        """Close the descriptor and the mapping; mappings of the other side stay valid."""
        fd, self._fd, self._memory = self._fd, -1, None
        if fd >= 0:
            _descriptors.pop(self.serial, None)
            if _is_segment(fd, self._inode):
                os.close(fd)

    __del__ = close


def enter(ref: SegmentRef, fd: int) -> SegmentRef:
    """Return the name by which others can open that segment of this process, until `strike_out`."""
    serial = next(_serials)
    _descriptors[serial] = fd
    return SegmentRef(path_of(fd), serial, ref.size, ref.inode)


def strike_out(serial: int) -> None:
    """Remove the segment of that serial from those that other processes may ask for."""
    _descriptors.pop(serial, None)


def own_descriptor(serial: int, inode: int) -> int | None:
    """Return this process's own descriptor of its segment; None if there is no such segment any more."""
    fd = _descriptors.get(serial)
    return fd if fd is not None and _is_segment(fd, inode) else None


def reopen(serial: int, inode: int) -> int | None:
    """Open this process's segment again, for its reader; None if there is no such segment any more.

    None also if it can't be reopened: a lease would not notice a duplicate, which is the writer's own open file.
    """
    fd = _descriptors.get(serial)
    if fd is None:
        return None
    try:
        reader = reopen_to_read(fd)
    except OSError:
        return None
    if _is_segment(reader, inode):
        return reader
    os.close(reader)  # closed meanwhile, and its number is another file's
    return None


def _is_segment(fd: int, inode: int) -> bool:
    """Tell whether the descriptor is of that segment, and not of another file that its name may lead to. 1 us."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return found.st_ino == inode and may_be_one(found)


def _write_all(fd: int, buffer: memoryview, offset: int) -> None:
    while buffer.nbytes:
        written = write_at(fd, buffer, offset)
        buffer, offset = buffer[written:], offset + written


def _copy_all(memory: memoryview, buffer: memoryview, offset: int) -> None:
    """Copy the buffer in pieces, between which other threads may have the interpreter."""
    for at in range(0, buffer.nbytes, PIECE):
        piece = buffer[at : at + PIECE]
        memory[offset + at : offset + at + piece.nbytes] = piece


def layout(buffers: Sequence[Part]) -> tuple[list[int], int]:
    """Return the offset of each buffer in a segment, and the total size."""
    offsets, end = [], 0
    for buffer in buffers:
        offsets.append(end)
        end += -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT
    return offsets, end


def _best(free: Iterable[Segment], size: int) -> Segment | None:
    """Return the smallest of these with enough room, unless it is far too big."""
    fitting = [segment for segment in free if size <= segment.capacity <= max(2 * size, size + BIG)]
    return min(fitting, key=lambda found: found.capacity, default=None)


def can_lend() -> bool:
    """Tell whether other processes can open the segments of a `SegmentStore`; if not, a store is of no use."""
    try:
        return can_be_opened_by_others()
    except OSError:  # no descriptor left: it can't be tried now
        return True


class SegmentStore:
    """The segments that one side writes, lends and reuses. Any thread may use it; a writing thread blocks no other."""

    def __init__(self, keep_free: int = KEEP_FREE) -> None:
        self._keep_free = keep_free
        self._free: list[Segment] = []
        self._lent: OrderedDict[int, Segment] = OrderedDict()
        self._lock = threading.Lock()

    def lend(self, buffers: Sequence[Part]) -> tuple[SegmentRef, list[int]]:
        """Put the buffers into a segment; returns its name and each one's offset. Raises OSError without memory."""
        offsets, size = layout(buffers)
        segment = self._take(size)
        ref = segment.fill(buffers, offsets, size)
        with self._lock:
            self._lent[segment.serial] = segment
        return ref, offsets

    def _take(self, size: int) -> Segment:
        while (segment := self._take_free(size)) is not None:
            if segment.is_unshared():
                return segment
        return Segment()

    def _take_free(self, size: int) -> Segment | None:
        with self._lock:
            segment = _best(self._free, size)
            if segment is not None:
                self._free.remove(segment)
            return segment

    def contents(self, ref: SegmentRef) -> memoryview:
        """Return the content of a lent segment, valid until it is taken back. Raises OSError."""
        with self._lock:
            segment = self._lent[ref.serial]
        return segment.contents()[: ref.size]

    def take_back(self, serials: Sequence[int]) -> None:
        """Take back segments of which the other side has no view any more; its children may still have one."""
        with self._lock:
            for serial in serials:
                segment = self._lent.pop(serial, None)
                if segment is not None and leases_tell():  # otherwise it is never known to be unshared
                    self._free.append(segment)
            kept = 0
            for at in range(len(self._free) - 1, -1, -1):
                kept += self._free[at].capacity
                if kept > self._keep_free:
                    del self._free[: at + 1]
                    break

    def give_up(self, serials: Sequence[int]) -> None:
        """Drop these segments: it will not be known when they are free."""
        with self._lock:
            for serial in serials:
                self._lent.pop(serial, None)

    def give_up_oldest(self, known: Callable[[int], bool]) -> None:
        """Drop segments that the other side keeps for long, oldest first, if it is known to have mapped them."""
        with self._lock:
            while len(self._lent) > KEEP_LENT:
                serial = next(iter(self._lent))
                if not known(serial):
                    return
                del self._lent[serial]


class CommonSegment:
    """A segment that any number of workers map, filled once, with the big parts of a handler or a shared object.

    The code that lends it holds it until a worker has mapped it.
    """

    def __init__(self, buffers: Sequence[Part]) -> None:
        self.offsets, size = layout(buffers)
        self._segment = Segment()
        self.ref = self._segment.fill(buffers, self.offsets, size)


def view(
    ref: SegmentRef, on_free: Callable[[int], object] | None = None, begin: int = 0, end: int | None = None
) -> memoryview:
    """Map the segment, or a part of it, as writable memory of the reader's own.

    When its last view is gone it is unmapped, and ``on_free`` is called with its serial, on the thread that drops that
    view. If this process has many mappings, or the segment has no path, it is copied, and free at once.

    Raises `SegmentGoneError`, or OSError if it can't be opened or read. If this process has no descriptor left it waits
    for one, at most `DESCRIPTOR_WAIT_S` seconds, since the data are fine.
    """
    free = None if on_free is None else functools.partial(on_free, ref.serial)
    fd = open_to_read(ref)
    try:
        memory = map_file(ref.size, memory_files.PRIVATE, fd, free) if ref.has_path and may_map_more() else None
        if memory is not None:
            return memoryview(memory).cast("B")[begin:end]
        copy = memoryview(bytearray((ref.size if end is None else end) - begin))
        _read_all(fd, copy, begin)
    finally:
        os.close(fd)
    if free is not None:
        free()
    return copy


def _read_all(fd: int, memory: memoryview, begin: int) -> None:
    """Fill the memory in pieces: one call returns at most 2 GB."""
    offset = 0
    while offset < memory.nbytes:
        count = read_into(fd, memory[offset : offset + PIECE], begin + offset)
        if not count:
            raise OSError(errno.EIO, "a segment is shorter than it should be")
        offset += count


def open_to_read(ref: SegmentRef) -> int:
    """Return a descriptor of another process's segment, to be closed by the caller. Raises and waits like `view`."""
    for _ in range(int(DESCRIPTOR_WAIT_S / DESCRIPTOR_RETRY_S)):
        try:
            return _open(ref)
        except OSError as error:
            if error.errno not in _PASSES:
                raise
        threading.Event().wait(DESCRIPTOR_RETRY_S)
    return _open(ref)


def make_anchor() -> CommonSegment | None:
    """Make a small segment with which other processes can try to open segments; None if there is no room for it."""
    try:
        return CommonSegment([memoryview(b"anchor")])
    except OSError:
        return None


def can_be_opened(ref: SegmentRef) -> bool:
    """Tell whether this process can open another one's segment by its name. Waits like `view`."""
    if not ref.has_path:
        return False
    try:
        os.close(open_to_read(ref))
    except OSError:
        return False
    return True


#: Errors that may pass in a moment.
_PASSES = (errno.EMFILE, errno.ENFILE, errno.EAGAIN)


def _open(ref: SegmentRef) -> int:
    """Open the segment by its name, if that leads to it; else take this process's own, or ask its writer."""
    fd, why = None, "is gone, or has other rights than this process"
    try:
        # If the name leads to another file, opening it must not wait for another process, nor give us a terminal.
        fd = open_unseen(ref.path) if ref.has_path else None
    except OSError as error:
        if error.errno in _PASSES:
            raise
        why = f"can't be reached: {error}"
    if fd is not None and _is_segment(fd, ref.inode):
        return fd
    if fd is not None:
        os.close(fd)
    if ref.path == process_name() and (own := own_descriptor(ref.serial, ref.inode)) is not None:
        return os.dup(own)
    fd = ask_writer(ref)
    if fd is not None and _is_segment(fd, ref.inode):
        return fd
    if fd is not None:
        os.close(fd)
    raise SegmentGoneError(errno.ENOENT, f"the writer of a segment {why}", ref.path)


# -- A segment of one worker, held open by the parent for other workers to map. ----------------------------------------
#
# The parent neither maps nor copies it. Its writer may end meanwhile; it fills the segment again once it is notified
# that it is no longer needed, and the kernel reports that no process has it open.

#: The most segments that are held at a time, and the part of the process's descriptors that they may take.
MAX_HELD, MAX_HELD_PART = 1024, 1 / 4
_held: set[int] = set()  #: their serials


def may_hold_more() -> bool:
    """Return False if more held segments would leave too few descriptors. 1 us."""
    return len(_held) < min(MAX_HELD, MAX_HELD_PART * descriptor_limits().now)


class HeldSegment:
    """A segment held open. ``ref`` is its name for others while this is referenced; then ``on_free`` gets the serial.

    Costs a descriptor. Raises `SegmentGoneError`, or OSError if it can't be opened.
    """

    _fd = -1

    def __init__(self, ref: SegmentRef, on_free: Callable[[int], object]) -> None:
        self._fd = open_to_read(ref)
        self._on_free = on_free
        self._writers_serial = ref.serial
        self.ref = enter(ref, self._fd)
        _held.add(self.ref.serial)

    def __del__(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            strike_out(self.ref.serial)
            _held.discard(self.ref.serial)
            os.close(fd)
            self._on_free(self._writers_serial)
