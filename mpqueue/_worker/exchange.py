"""The worker's side of shared segments: what it lends to the parent, and what it has from there.

One for the worker's life. Used by the main thread, and by the watchdog under the lock of the chunk at hand.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Sequence
from typing import Any

from mpqueue._wire.frames import Passed, all_of
from mpqueue._wire.memory.ledger import PIPED, Ledger
from mpqueue._wire.memory.segments import Part, SegmentRef, SegmentStore
from mpqueue._wire.pickling.payload import Packed, load, load_several


class LentSegments(SegmentStore):
    """The store for results: remembers in which chunk each segment went home."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self._chunk_of: dict[int, int] = {}

    def lend(self, buffers: Sequence[Part]) -> tuple[SegmentRef, list[int]]:
        """See `SegmentStore.lend`. Raises OSError where the parent could not open it."""
        if self._ledger.words[PIPED]:
            raise OSError(errno.EACCES, "the program can't open what its workers share (has it changed its user?)")
        return super().lend(buffers)

    def sent(self, chunk: int, packed: Packed | Sequence[Passed]) -> None:
        """These results are sent with a report on that chunk."""
        for one in [packed] if isinstance(packed, Packed) else all_of(packed):
            if one.segment is not None:
                self._chunk_of[one.segment.serial] = chunk

    def chunk_begins(self, chunk: int, returned: Sequence[int]) -> None:
        """The parent has done with some segments; and it has mapped what went home two chunks ago."""
        self.take_back(returned)
        for serial in returned:
            self._chunk_of.pop(serial, None)
        self.give_up_oldest(lambda serial: self._chunk_of.pop(serial, 0) <= chunk - 2)


class WorkerExchange:
    """What a worker lends to the parent, and has from there. Idle without a ``ledger``: they share no memory."""

    def __init__(self, ledger: Ledger | None) -> None:
        self.store = None if ledger is None else LentSegments(ledger)  #: for results
        self._done_with: deque[int] = deque()

    def sent(self, chunk: int, packed: Packed | Sequence[Passed]) -> None:
        """These results are sent with a report on that chunk."""
        if self.store is not None:
            self.store.sent(chunk, packed)

    def chunk_begins(self, chunk: int, returned: Sequence[int]) -> None:
        """The parent has done with some segments."""
        if self.store is not None:
            self.store.chunk_begins(chunk, returned)

    def load(self, packed: Packed) -> Any:
        """What the parent packed; `done_with` tells when no view of it is left."""
        return load(packed, self._done_with.append)

    def load_several(self, several: Sequence[bytes | Packed]) -> list[Any]:
        """The same for what other workers have packed."""
        return load_several(several, self._done_with.append)

    def done_with(self) -> list[int]:
        """Segments of the parent of which no view is left here, since the last call."""
        return [self._done_with.popleft() for _ in range(len(self._done_with))]
