"""`InputReader`: reads the input of a stream, only so far ahead of its results as the window says.

mpqueue's own functions read on the consumer's thread: when the consumer stops, so does the reading. `Pool` reads on a
thread of its own, as `multiprocessing.Pool` does: an input may wait for what the consumer does with earlier results (a
crawler's queue), and results never wait for a slow input.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mpqueue._parent.surroundings.replies import SafeEvent
from mpqueue._queue.growing.stream import Stream
from mpqueue.errors import QueueClosedError

#: Outcomes are taken, and the window of a reader that met its end is filled, by at least its so many-th part.
PARTS = 4
#: Seconds that one reading aims at: results that come meanwhile wait so long. A slow input is read item by item.
READ_SECONDS = 0.002
#: One reading is at most so many times as long as the one before.
GROWTH = 8


class InputReader:
    """The reader of a stream's input. ``window`` is how many items may be under way or untaken.

    An error that the input raises is kept, for its place.
    """

    def __init__(
        self, items: Iterator[Any], stream: Stream, window: Callable[[], int], now: Callable[[], float]
    ) -> None:
        self._items = items
        self._stream = stream
        self._window = window
        self._now = now
        self._stride = 1
        self._resume_at = math.inf  #: how many must have been taken before the thread, which waits, looks again
        self._room = SafeEvent()  #: there may be, for the thread
        self._has_thread = False
        self.batch: list[Any] = []  #: what was read, until the stream has it: an interruption (Ctrl-C) costs none
        self.added = 0  #: written by the thread that reads only
        self.taken = 0  #: written by the consumer only
        self.exhausted = False  #: nothing more is read
        self._is_stopped = False
        self.error: BaseException | None = None  #: what the input raised, for its place behind the last item

    @property
    def drained(self) -> bool:
        """True where all of the input was read, and all of its outcomes were taken."""
        return self.exhausted and not self._is_stopped and not self.batch and self.taken == self.added

    def took(self, count: int) -> None:
        """Note that the consumer has had so many outcomes more."""
        self.taken += count
        if self.taken >= self._resume_at:
            self._room.set()

    def stop(self) -> None:
        """Read no more; a generator is closed, unless it is referenced elsewhere."""
        self._is_stopped = True
        self._close()
        self._room.set()

    def _close(self) -> None:
        self.exhausted = True
        self._items = iter(())

    def _room_now(self) -> int:
        """How many items the window has room for; 0 where that is few: a few at a time would be many messages."""
        window = self._window()
        room = window - (self.added - self.taken)
        return room if room >= max(1, window // PARTS) else 0

    # -- on the consumer's thread ----------------------------------------------------------------------------

    def read(self) -> bool:
        """Read a batch, to be added, if the window has room for them; False where it has not, or all was read."""
        if self._has_thread or (self.exhausted and not self.batch):
            return False
        count = min(self._room_now(), self._stride)
        if not count:
            return False
        started = self._now()
        try:
            self._fetch(count)
        except Exception as error:  # noqa: BLE001 - the input's own, to be raised in its place
            self._close()
            self.error = error
        seconds = self._now() - started
        if count == self._stride or seconds > READ_SECONDS:
            self._stride = max(1, int(count * READ_SECONDS / max(seconds, READ_SECONDS / GROWTH)))
        return True

    def add(self) -> None:
        """Give the stream the batch. Where that raises, it is not known which of these it has."""
        self.added += len(self.batch)
        self._stream.add(self.batch)
        self.batch = []

    def _fetch(self, count: int) -> None:
        self.batch.extend(itertools.islice(self._items, max(0, count - len(self.batch))))
        if len(self.batch) < count:
            self._close()

    # -- on a thread of its own ------------------------------------------------------------------------------

    def start(self) -> None:
        """Read on a thread of its own from now on, which ends with the input, or at `stop`; then the stream is sealed.

        One item at a time is added, since the next one may be long in coming.
        """
        self._has_thread = True
        threading.Thread(target=self._run, name="mpqueue-input-reader", daemon=True).start()

    def lift_window(self) -> None:
        """Have the thread read all of the input, whether or not the outcomes are taken."""
        self._window = lambda: sys.maxsize
        self._room.set()

    def _run(self) -> None:
        try:
            while self._may_read():
                item = next(self._items)
                if self._is_stopped:
                    break
                self._stream.add([item])
                self.added += 1
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - the input's own, to be raised in its place
            self.error = error
        self._close()
        with contextlib.suppress(QueueClosedError):
            self._stream.seal()

    def _may_read(self) -> bool:
        """Wait until there is room in the window; False where nothing is to be read any more."""
        window = self._window()
        if self.added - self.taken >= window:
            # Before looking: the consumer counts before it looks at what was written here.
            self._resume_at = self.added - window + max(1, window // PARTS)
            self._room.clear()
            while not self.exhausted and not self._room_now():
                self._room.wait()
                self._room.clear()
            self._resume_at = math.inf
        return not self.exhausted


def read_whole_chunks(items: Iterator[Any], size: int) -> Iterator[Any]:
    """The items, read ``size`` at a time: where the input raises in the middle, the chunk that was begun is dropped."""
    while chunk := [*itertools.islice(items, size)]:
        yield from chunk
