"""Which items of a job look different from when they were shown last.

Found by comparing the column of statuses with a copy of it, so that a change of an item needs no notice: that costs
the job nothing, and a look 10 us where nothing changed in 100,000 items.
"""

from __future__ import annotations

from collections.abc import Iterable

from mpqueue._core.state.job_book import JobBook
from mpqueue.status import COMPLETED, FAILED, PENDING, PROCESSING, RETRY

#: In the place of a status: never shown; and shown as it is not any more.
_NEVER, _OUTDATED = 255, 254
#: Of a job of more items only those are shown that fail, wait for a retry or run: a browser has room for so many.
MOST_SHOWN = 250_000
#: How many statuses are compared one by one, where a stretch of them is not as it was.
_STRETCH = 256
#: Into how many parts a longer stretch is cut.
_PARTS = 16

#: Statuses of a job too long to be shown whole: items that need no attention look as if they had never changed.
_SELDOM = bytes(_NEVER if status in (PENDING, COMPLETED) else status for status in range(256))
_FAILED_OUTDATED = bytes(_OUTDATED if status == FAILED else status for status in range(256))


class Changes:
    """Remembers how each item of a job was shown last."""

    def __init__(self, book: JobBook) -> None:
        self._book = book
        self._table = book.table
        self._attempts = b""
        self._retries, self._epoch = -1, book.epoch
        self.forget()

    @property
    def sparse(self) -> bool:
        """True where only items that need attention are shown."""
        return len(self._table) > MOST_SHOWN

    def forget(self) -> None:
        """Nothing has been shown."""
        self._shown = bytearray([_NEVER]) * len(self._table)
        self._as_shown = bytes(self._shown)
        self._start = 0

    def look(self, processing: Iterable[int], most: int) -> list[tuple[int, int]]:
        """Up to ``most`` items that changed, as (index, status); they count as shown now, the others will come.

        ``processing``: the indices of those that run now, which the column does not say.
        """
        self._look_at_tries()
        now = bytearray(self._table.status)
        if len(now) > len(self._shown):
            self._shown += bytes([_NEVER]) * (len(now) - len(self._shown))
            self._as_shown = bytes(self._shown)
        for index in processing:
            if now[index] not in (COMPLETED, FAILED):
                now[index] = PROCESSING
        current = bytes(now.translate(_SELDOM) if self.sparse else now)
        changed: list[int] = []
        count = len(current)
        # From where the last look stopped, so that changes at the beginning don't keep the rest from being shown.
        for lo, hi in ((self._start, count), (0, self._start)):
            if len(changed) < most:
                _differences(self._as_shown, current, lo, hi, most, changed)
        del changed[most:]
        self._start = changed[-1] + 1 if len(changed) == most else 0
        for index in changed:
            self._shown[index] = current[index]
        if changed:
            self._as_shown = bytes(self._shown)
        return [(index, now[index]) for index in changed]

    def _look_at_tries(self) -> None:
        """A status may have come back to what it was: after one more try, or when failed items ran again."""
        if self._epoch != self._book.epoch:
            self._epoch = self._book.epoch
            self._shown = self._shown.translate(_FAILED_OUTDATED)
            self._as_shown = bytes(self._shown)
        if self._retries == self._book.retries:
            return
        self._retries = self._book.retries
        before, self._attempts = self._attempts, bytes(self._table.attempts)
        differences: list[int] = []
        if before:
            _differences(before, self._attempts[: len(before)], 0, len(before), len(before), differences)
        for index in {at // self._table.attempts.itemsize for at in differences}:
            if self._shown[index] == RETRY:
                self._shown[index] = _OUTDATED
        self._as_shown = bytes(self._shown)


def _differences(old: bytes, new: bytes, lo: int, hi: int, most: int, found: list[int]) -> None:
    """Append the positions from ``lo`` to ``hi`` where ``old`` and ``new`` differ, in order; stop beyond ``most``."""
    if old[lo:hi] == new[lo:hi]:
        return
    if hi - lo <= _STRETCH:
        found += [lo + at for at, (a, b) in enumerate(zip(old[lo:hi], new[lo:hi], strict=True)) if a != b]
        return
    step = max(-(-(hi - lo) // _PARTS), _STRETCH)
    for start in range(lo, hi, step):
        if len(found) >= most:
            return
        _differences(old, new, start, min(start + step, hi), most, found)
