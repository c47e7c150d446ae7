"""Where this worker stands: its lane's number and the things it shares with the parent.

Filled once by the lane's initializer (`mpqueue._worker.guard`), read by everything else in the worker. A global,
because Events can only be handed over while the process is spawned, and a handler finds no other way back to them.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field

from mpqueue._wire.flags import Flags
from mpqueue._wire.ledger import OUTBOX, Ledger
from mpqueue._worker.memory import Growth


@dataclass(slots=True)
class Station:
    """One worker's place: who it is, what it writes to and reads from."""

    lane: int  #: the lane's number, stable over restarts
    generation: int
    parent: int  #: the parent's process id
    ledger: Ledger
    flags: Flags
    outbox: int  #: descriptor of the file for early results
    bell: int  #: descriptor of the pipe that tells the parent to look into the outbox
    has_run: bool = False  #: this worker has run an item
    growth: Growth = field(default_factory=Growth)

    def leave(self, data: bytes) -> None:
        """Put an early report into the outbox, which must be free, and tell the parent."""
        os.pwrite(self.outbox, data, 0)
        self.ledger.words[OUTBOX] = len(data)
        with contextlib.suppress(BlockingIOError):  # a full pipe: the parent is told already
            os.write(self.bell, b"!")


_station: Station | None = None


def take(station: Station) -> None:
    """Called once, by the initializer."""
    global _station
    _station = station


def here() -> Station | None:
    """This worker's station; None in any process that is no worker."""
    return _station
