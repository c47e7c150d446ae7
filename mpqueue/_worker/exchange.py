"""The worker's side of shared segments: those that it lends to the parent, and those that it has from there.

It lives as long as the worker. The main thread uses it, and the chunk timer under the lock of the current chunk.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from mpqueue._wire.frames import Passed, all_of
from mpqueue._wire.memory.ledger import PIPED, Ledger
from mpqueue._wire.memory.segments import (
    NOTHING_CARRIED,
    Carried,
    Part,
    SegmentRef,
    SegmentStore,
    can_lend,
)
from mpqueue._wire.memory.shared import Shared, Token
from mpqueue._wire.pickling.payload import Packed, load, load_several
from mpqueue._worker.log_records import LogOutlet
from mpqueue._worker.worker_links import WorkerLinks


class ResultStore(SegmentStore):
    """The store for results. ``carries``: even if the parent can't open its segments."""

    def __init__(self, ledger: Ledger, *, carries: bool) -> None:
        super().__init__()
        self._ledger = ledger
        self._carries = carries

    def lend(self, buffers: Sequence[Part]) -> tuple[SegmentRef, list[int]]:
        """Put buffers into a segment, see `SegmentStore.lend`. Raises OSError if the parent can't open it."""
        if self._ledger.words[PIPED] and not self._carries:
            raise OSError(errno.EACCES, "the program can't open what its workers share (has it changed its user?)")
        return super().lend(buffers)


class WorkerExchange:
    """Segments that a worker lends to the parent, and has from there. Without a ``ledger``, no memory is shared.

    ``carries``: its own segments are sent in reports as long as the ledger says that the parent can't open them; and if
    it can't open an item's segment, it ends: it can't ask the program for it.
    """

    def __init__(self, ledger: Ledger | None, *, carries: bool) -> None:
        #: For results.
        self.store = ResultStore(ledger, carries=carries) if ledger is not None and can_lend() else None
        self.carried: Carried = NOTHING_CARRIED  #: the segments carried by the current frame
        self._done_with: deque[int] = deque()
        self._ledger = ledger
        self._carries = carries
        self._leaving: list[SegmentRef] = []
        self._chunk_of: dict[
            int, int
        ] = {}  #: by the serials of lent segments: the chunk with whose report each was sent

    def sent(self, chunk: int, packed: Packed | Sequence[Passed]) -> None:
        """Note that these results are sent with a report on that chunk."""
        if self.store is None:
            return
        each = [packed] if isinstance(packed, Packed) else all_of(packed)
        refs = [one.segment for one in each if one.segment is not None]
        self._chunk_of.update((ref.serial, chunk) for ref in refs)
        if self._carries and self._ledger is not None and self._ledger.words[PIPED]:
            self._leaving += refs

    def take_carried(self) -> Sequence[SegmentRef]:
        """Take the segments to be carried by the reports that were made since the last call."""
        leaving, self._leaving = self._leaving, []
        return leaving

    def chunk_begins(self, chunk: int, returned: Sequence[int]) -> None:
        """Take back segments that the parent no longer uses; it has mapped those that were sent two chunks ago."""
        if self.store is None:
            return
        self.store.take_back(returned)
        for serial in returned:
            self._chunk_of.pop(serial, None)
        self.store.give_up_oldest(lambda serial: self._chunk_of.pop(serial, 0) <= chunk - 2)

    def load(self, packed: Packed) -> Any:
        """Unpickle an object from the parent; `done_with` lists its segments once no view of them is left."""
        return load(packed, self._done_with.append, self.carried)

    def load_several(self, several: Sequence[bytes | Packed]) -> list[Any]:
        """Unpickle objects from other workers; `done_with` lists their segments once no view of them is left."""
        return load_several(several, self._done_with.append, self.carried)

    def done_with(self) -> list[int]:
        """Return the parent's segments whose last view has gone since the last call."""
        return [self._done_with.popleft() for _ in range(len(self._done_with))]


# -- A worker's context: its links, its log records for the parent, and its side of the shared segments. ---------------


class WorkerContext(NamedTuple):
    """One worker's context. Its process has one; in the program's own process, each inline lane has one."""

    links: WorkerLinks
    logs: LogOutlet
    exchange: WorkerExchange
    brought: dict[Token, Shared[Any]]  #: shared objects kept for this worker


def make_context(links: WorkerLinks) -> WorkerContext:
    """Return a context for the worker of these links. Its results use segments if it is a process of its own."""
    exchange = WorkerExchange(links.ledger if links.is_own_process else None, carries=links.carries_segments)
    return WorkerContext(links, LogOutlet(links), exchange, {})
