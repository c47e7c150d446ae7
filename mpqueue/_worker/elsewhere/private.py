"""A worker in a process that is not ours alone: its ledger, flags and outbox are that process's own memory.

The code that drives it reads and writes these through what the engine offers for it; see `mpqueue.backends`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from mpqueue._wire.memory.ledger import OUTBOX, Ledger
from mpqueue._wire.memory.segments import NOTHING_CARRIED, Carried
from mpqueue._worker.main import Worker
from mpqueue._worker.seat import take_seat
from mpqueue._worker.station import Outbox, Station


class Leaving(NamedTuple):
    """What leaves a worker in one: a frame, and what an engine has to carry beside it."""

    frame: bytes
    carried: Carried = NOTHING_CARRIED


class PrivateOutbox:
    """An outbox that keeps what is left there until it is fetched; ``ring`` tells that there is something."""

    def __init__(self, ledger: Ledger, ring: Callable[[], object]) -> None:
        self._ledger = ledger
        self._ring = ring
        self.take_carried: Callable[[], Carried] = dict  #: what is to be carried with what is left
        self._kept: Leaving | None = None
        self._lock = threading.Lock()  #: two may fetch at a time, and only one of them has found it

    def leave(self, data: bytes, *, plain: bool = False) -> None:  # noqa: ARG002 - there is one thread
        """See `mpqueue._worker.station.Outbox.leave`."""
        self._kept = Leaving(data, self.take_carried())
        self._ledger.words[OUTBOX] = len(data)
        self._ring()

    def leave_unsent(self, data: bytes, at: int) -> None:
        """It is not found there when this process is dead."""

    def fetch_whole(self) -> Leaving | None:
        """What lies there, which is free again; None where nothing does. On any thread."""
        with self._lock:
            left, self._kept = self._kept, None
            if left is not None:
                self._ledger.words[OUTBOX] = 0
            return left

    def fetch(self) -> bytes | None:
        """The same where nothing is carried."""
        left = self.fetch_whole()
        return None if left is None else left.frame


def private_worker(
    lane: int,
    generation: int,
    parent: int,
    ledger: Ledger,
    outbox: Outbox | None,
    *,
    flags_of: Callable[[int], tuple[bool, bool]] | None = None,
    is_own_process: bool = False,
    is_at_home: bool = False,
    carries: bool = False,
) -> Worker:
    """A worker at that ledger; to be called inside `station.seated`. ``is_at_home``: in the parent's own process.

    ``carries``: segments are carried to it and from it, or opened, as the ledger says.
    """
    station = Station(
        lane=lane,
        generation=generation,
        parent=parent,
        ledger=ledger,
        flags_of=flags_of or ledger.flags_of,
        outbox=outbox,
        is_own_process=is_own_process,
        carries_segments=carries,
    )
    return Worker(take_seat(station, shares_memory=carries, is_at_home=is_at_home))
