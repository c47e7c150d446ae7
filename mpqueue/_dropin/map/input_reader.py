"""`InputReader`: reads an iterator a few items at a time, whatever it yields them at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

#: Seconds that one reading aims at: results that come meanwhile wait so long. A slow input is read item by item.
READ_SECONDS = 0.002
#: One reading is at most so many times as long as the one before.
GROWTH = 8


class InputReader:
    """Reads on the thread that calls it. What the input raises is kept, for its place behind the last item."""

    def __init__(self, items: Iterator[Any], now: Callable[[], float]) -> None:
        self._items = items
        self._now = now
        self._stride = 1
        self._batch: list[Any] = []  #: what was read, until it is where it stays
        self.exhausted = False
        self.error: BaseException | None = None

    def read(self, most: int) -> list[Any]:
        """The next items, at most so many; the same ones until `kept`, so that an interruption (Ctrl-C) costs none."""
        count, batch = min(most, self._stride), self._batch
        started = self._now()
        try:
            batch.extend(itertools.islice(self._items, max(0, count - len(batch))))
            if len(batch) < count:
                self.close()
        except Exception as error:  # noqa: BLE001 - the input's own, to be raised in its place
            self.close()
            self.error = error
        seconds = self._now() - started
        if count == self._stride or seconds > READ_SECONDS:
            self._stride = max(1, int(count * READ_SECONDS / max(seconds, READ_SECONDS / GROWTH)))
        return batch

    def kept(self) -> None:
        """What was read is where it stays."""
        self._batch = []

    @property
    def is_over(self) -> bool:
        """True where all was read, and is where it stays."""
        return self.exhausted and not self._batch

    def close(self) -> None:
        """Read no more; a generator is closed, unless it is referenced elsewhere."""
        self.exhausted = True
        self._items = iter(())
