"""A segment of one worker, held open by the parent for other workers to map.

The parent neither maps nor copies it. Its writer may be gone meanwhile; it fills the segment again once it has been
notified that it is no longer needed, and the kernel says that no process has it open.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from mpqueue._os.descriptors import descriptor_limits
from mpqueue._wire.memory.segments import SegmentRef, enter, open_to_read, strike_out

#: How many are held at a time, at most, and the part of the descriptors that the process may have.
MOST, PART = 1024, 1 / 4
_held: set[int] = set()  #: their serials


def may_hold_more() -> bool:
    """Return False where so many segments are held that others would have no descriptors left. 1 us."""
    return len(_held) < min(MOST, PART * descriptor_limits().now)


class HeldSegment:
    """A segment held open. ``ref`` is its name for others while this is referenced; then ``on_free`` gets the serial.

    Costs a descriptor. Raises `SegmentGoneError`, or OSError where it can't be opened.
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
