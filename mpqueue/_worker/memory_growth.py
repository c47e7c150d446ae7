"""The growth of a worker's memory, and what it says about the next item."""

from __future__ import annotations

from mpqueue._os.memory import memory_use as memory
from mpqueue._wire.memory.ledger import MOST, PRIVATE, Ledger


def note_memory(ledger: Ledger) -> int | None:
    """Write the memory with which an item or a setup begins into the ledger, and return it; None without a limit."""
    if not ledger.words[MOST]:
        return None
    ledger.words[PRIVATE] = used = memory.private_bytes() or 0
    return used


class Growth:
    """The growth of a worker's memory from item to item, so that a leak is seen before it is over the limit."""

    def __init__(self) -> None:
        self._used: int | None = None
        self._grown = 0

    def likely(self, used: int) -> int:
        """Return the bytes after the next item, from the ``used`` ones, if it adds what both of the last two added."""
        grown, self._used = 0 if self._used is None else used - self._used, used
        more, self._grown = min(grown, self._grown), grown
        return used + max(0, more)
