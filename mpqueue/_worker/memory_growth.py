"""The growth of a worker's memory, and the prediction for the next item."""

from __future__ import annotations

from mpqueue._os.memory import memory_use as memory
from mpqueue._wire.memory.ledger import MEMORY_LIMIT, MEMORY_USED, Ledger


def note_memory(ledger: Ledger) -> int | None:
    """Write the memory at the start of an item or a setup into the ledger, and return it; None without a limit."""
    if not ledger.words[MEMORY_LIMIT]:
        return None
    ledger.words[MEMORY_USED] = used = memory.private_bytes() or 0
    return used


class Growth:
    """The growth of a worker's memory from item to item, which shows a leak before it exceeds the limit."""

    def __init__(self) -> None:
        self._used: int | None = None
        self._grown = 0

    def likely(self, used: int) -> int:
        """Return the likely bytes after the next item: ``used``, and the amount that both of the last two added."""
        grown, self._used = 0 if self._used is None else used - self._used, used
        more, self._grown = min(grown, self._grown), grown
        return used + max(0, more)
