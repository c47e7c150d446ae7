"""The worker's side of shared segments: what it lends to the parent, and what it has from there.

One for the worker's life. Used by the main thread, and by the watchdog under the lock of the chunk at hand.
"""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mpqueue._wire.frames import Passed, all_of
from mpqueue._wire.memory.ledger import BLIND, PIPED, Ledger
from mpqueue._wire.memory.segments import (
    NOTHING_CARRIED,
    Carried,
    Part,
    SegmentGoneError,
    SegmentRef,
    SegmentStore,
    can_lend,
)
from mpqueue._wire.memory.shared import Shared, Token
from mpqueue._wire.pickling.payload import Packed, load, load_several
from mpqueue._worker.chunk.log_records import RecordsHome
from mpqueue._worker.station import Station


class LentSegments(SegmentStore):
    """The store for results: remembers in which chunk each segment went home.

    ``carries``: also where the parent can't open them.
    """

    def __init__(self, ledger: Ledger, *, carries: bool) -> None:
        super().__init__()
        self._ledger = ledger
        self._carries = carries
        self._chunk_of: dict[int, int] = {}

    def lend(self, buffers: Sequence[Part]) -> tuple[SegmentRef, list[int]]:
        """Put buffers into a segment, see `SegmentStore.lend`. Raises OSError if the parent could not open it."""
        if self._ledger.words[PIPED] and not self._carries:
            raise OSError(errno.EACCES, "the program can't open what its workers share (has it changed its user?)")
        return super().lend(buffers)

    def sent(self, chunk: int, refs: Sequence[SegmentRef]) -> None:
        """Note that results in these segments are sent with a report on that chunk."""
        for ref in refs:
            self._chunk_of[ref.serial] = chunk

    def chunk_begins(self, chunk: int, returned: Sequence[int]) -> None:
        """Take back segments that the parent has done with; it has mapped those that went home two chunks ago."""
        self.take_back(returned)
        for serial in returned:
            self._chunk_of.pop(serial, None)
        self.give_up_oldest(lambda serial: self._chunk_of.pop(serial, 0) <= chunk - 2)


class WorkerExchange:
    """Segments that a worker lends to the parent, and has from there. Idle without a ``ledger``: they share no memory.

    ``carries``: what it can't open of an item comes once more, carried with its frame; and its own segments are carried
    to the parent as long as the ledger says that the parent can't open them.
    """

    def __init__(self, ledger: Ledger | None, *, carries: bool) -> None:
        self.store = (
            LentSegments(ledger, carries=carries) if ledger is not None and can_lend() else None
        )  #: for results
        self.carried: Carried = NOTHING_CARRIED  #: what has come with the frame at hand
        self._done_with: deque[int] = deque()
        self._ledger = ledger
        self._carries = carries
        self._leaving: list[SegmentRef] = []

    @contextlib.contextmanager
    def having(self, carried: Carried) -> Iterator[None]:
        """Use what has been carried with the frame at hand meanwhile."""
        self.carried = carried
        try:
            yield
        finally:
            self.carried = NOTHING_CARRIED

    def sent(self, chunk: int, packed: Packed | Sequence[Passed]) -> None:
        """Note that these results are sent with a report on that chunk."""
        if self.store is None:
            return
        each = [packed] if isinstance(packed, Packed) else all_of(packed)
        refs = [one.segment for one in each if one.segment is not None]
        self.store.sent(chunk, refs)
        if self._carries and self._ledger is not None and self._ledger.words[PIPED]:
            self._leaving += refs

    def take_leaving(self) -> Sequence[SegmentRef]:
        """The segments that are to be carried with the reports that were made since the last call."""
        leaving, self._leaving = self._leaving, []
        return leaving

    def is_carried_next(self, error: BaseException) -> bool:
        """True where an item could not be had since this worker can't open it (any more): so it is to come again."""
        return self._carries and isinstance(error, SegmentGoneError)

    def chunk_begins(self, chunk: int, returned: Sequence[int]) -> None:
        """Take back segments that the parent has done with."""
        if self.store is not None:
            self.store.chunk_begins(chunk, returned)

    def load(self, packed: Packed) -> Any:
        """Load what the parent has packed; `done_with` tells when no view of it is left."""
        try:
            return load(packed, self._done_with.append, self.carried)
        except SegmentGoneError:
            self._note_blind()
            raise

    def load_several(self, several: Sequence[bytes | Packed]) -> list[Any]:
        """Load what other workers have packed; `done_with` tells when no view of it is left."""
        try:
            return load_several(several, self._done_with.append, self.carried)
        except SegmentGoneError:
            self._note_blind()
            raise

    def _note_blind(self) -> None:
        if self._carries and self._ledger is not None:
            self._ledger.words[BLIND] = 1

    def done_with(self) -> list[int]:
        """Segments of the parent of which no view is left here, since the last call."""
        return [self._done_with.popleft() for _ in range(len(self._done_with))]


# -- A worker's seat: its station, its way home for log records, and its side of the shared segments. ------------------


class Seat(NamedTuple):
    """One worker's seat. A process of ours has one; one of another engine has as many as there are lanes in it."""

    station: Station
    home: RecordsHome
    exchange: WorkerExchange
    is_at_home: bool  #: in the parent's own process, whose loggers and imports are the parent's
    brought: dict[Token, Shared[Any]]  #: shared objects that are kept for this worker


def take_seat(station: Station, *, shares_memory: bool = True, is_at_home: bool = False) -> Seat:
    """Return a seat for the worker of that station. ``shares_memory``: its results go through segments."""
    exchange = WorkerExchange(station.ledger if shares_memory else None, carries=station.carries_segments)
    return Seat(station, RecordsHome(station), exchange, is_at_home, {})
