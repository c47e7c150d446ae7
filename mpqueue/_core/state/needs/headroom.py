"""Headroom: what memory the machine has left, and how many lanes may work for it at a time.

A lane that begins something may come to need as much as the largest worker of the last seconds had. So as many may work
as there is room for such; one always may, since what is short may never come back. What falls is taken to go on falling
until a look and a kill later.
"""

from __future__ import annotations

from mpqueue._core.messages import MemoryRead

#: The machine has little memory left below this part of it, or these bytes where that is less.
SHORT_PART, SHORT_BYTES = 0.1, 1 << 30
#: Next to nothing is left below this part of it, or these bytes.
SCARCE_PART, SCARCE_BYTES = 0.03, 256 << 20
#: It has enough again above so many times what is little.
ENOUGH = 1.5
#: Seconds from a look at what falls until the next one has done something about it.
HORIZON = 0.1
#: Seconds in which the memory of how large workers were fades to a half.
HALF_LIFE = 5.0


class Headroom:
    """The headroom of the machine, or of the control group that this process is in."""

    def __init__(self) -> None:
        self.lanes: int | None = None  #: how many lanes may work at a time; None: all
        self.scarce = False  #: next to nothing is left, or will be
        self._short = False
        self._largest = 0.0
        self._available: int | None = None
        self._looked_at = 0.0

    def look(self, message: MemoryRead, now: float) -> None:
        """Take in a look at the memory; if nothing is known of the machine, nothing changes."""
        available, total = message.available, message.total
        if available is None or total is None:
            return
        passed = now - self._looked_at
        used = [worker.used for worker in message.workers]
        self._largest = max(max(used, default=0), self._largest * 0.5 ** (passed / HALF_LIFE))
        coming = available - self._falls(available, passed)
        little = min(total * SHORT_PART, SHORT_BYTES)
        self._short = coming < (little * ENOUGH if self._short else little)
        self.scarce = coming < min(total * SCARCE_PART, SCARCE_BYTES)
        if self._short:
            self.lanes = 1
        else:
            room = (available + sum(used) - little) // max(1.0, self._largest)
            self.lanes = max(1, int(room))
        self._available, self._looked_at = available, now

    def _falls(self, available: int, passed: float) -> float:
        """Return the bytes by which the available memory will have fallen at the horizon."""
        if self._available is None or passed <= 0:
            return 0.0
        return max(0.0, (self._available - available) * HORIZON / passed)
