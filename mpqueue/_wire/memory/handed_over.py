"""Segments that their writers have handed over to this process, until they are read.

Where a segment can't be opened by a name, a worker sends its descriptor ahead of the message that names it, see
`mpqueue._wire.memory.asking`. The message may be read first, on another thread: then `take` looks at all that workers
have sent meanwhile.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from mpqueue._os.descriptors import close_all


class HandedName(NamedTuple):
    """Which segment."""

    process: str  #: its writer, see `mpqueue._os.process.process_identity`
    serial: int
    inode: int


class Source(Protocol):
    """Where descriptors come from: the parent's end of the socket to one worker."""

    def look(self) -> None:
        """Read what is there, and `put` it. On any thread; never blocks."""


class HandedOver:
    """Used on any thread. The code that puts a descriptor in takes it out again, unless other code has."""

    def __init__(self) -> None:
        self._descriptors: dict[HandedName, int] = {}
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()
        self._lock = threading.Lock()

    def add_source(self, source: Source) -> None:
        """More may come from there, as long as it lives."""
        with self._lock:
            self._sources.add(source)

    def put(self, name: HandedName, fd: int) -> None:
        """It belongs to this from now on."""
        with self._lock:
            before, self._descriptors[name] = self._descriptors.get(name, -1), fd
        if before >= 0:
            close_all(before)

    def take(self, name: HandedName, *, again: bool = False) -> int | None:
        """Its descriptor, the caller's to close; None where it has not been handed over.

        ``again``: it will be taken once more, for another part. Raises OSError where there is no descriptor left.
        """
        if (fd := self._get(name, again)) is None:
            with self._lock:
                sources = list(self._sources)
            for source in sources:
                source.look()
            fd = self._get(name, again)
        return fd

    def _get(self, name: HandedName, again: bool) -> int | None:
        with self._lock:
            if again and name in self._descriptors:
                return os.dup(self._descriptors[name])
            return self._descriptors.pop(name, None)

    def drop(self, names: Iterable[HandedName]) -> None:
        """These will not be read."""
        close_all(*(fd for name in names if (fd := self._get(name, again=False)) is not None))


handed_over = HandedOver()
