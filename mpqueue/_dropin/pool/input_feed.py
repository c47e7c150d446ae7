"""`InputFeed`: reads a pool's input on a thread of its own, as `multiprocessing.Pool` does, but only so far ahead.

So an input may wait for what the consumer does with earlier results (a crawler's queue), and results never wait for a
slow input. One item at a time is handed on, since the next one may be long in coming.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mpqueue._dropin.stream_results import PARTS
from mpqueue._parent.surroundings.replies import SafeEvent
from mpqueue._queue.growing.stream import Stream
from mpqueue.errors import QueueClosedError


class InputFeed:
    """The input's half of an iterator over results. Its thread ends with the input, or at `stop`."""

    def __init__(self, items: Iterator[Any], stream: Stream, window: Callable[[], int]) -> None:
        self._items = items
        self._stream = stream
        self._window = window
        self._room = SafeEvent()  #: there may be
        self._stopped = False
        self._unbounded = False
        self._resume_at: int | None = None  #: how many must have been taken before the reader goes on; None: it does
        self.added = 0  #: written by the reader only
        self.taken = 0  #: written by the consumer only
        self.exhausted = False
        self.error: BaseException | None = None  #: what the input raised, for its place behind the last item

    def start(self) -> None:
        """Begin to read."""
        threading.Thread(target=self._read, name="mpqueue-input-reader", daemon=True).start()

    @property
    def drained(self) -> bool:
        """True where all of the input was read, and all of its outcomes were taken."""
        return self.exhausted and self.taken == self.added

    def took(self, count: int) -> None:
        """The consumer has had so many outcomes more."""
        self.taken += count
        resume_at = self._resume_at
        if resume_at is not None and self.taken >= resume_at:
            self._room.set()

    def lift_window(self) -> None:
        """Read all of the input, whether or not the outcomes are taken."""
        self._unbounded = True
        self._room.set()

    def stop(self) -> None:
        """Read no more, and end the work: what waits does not run, what runs is ended."""
        self._stopped = True
        self._room.set()
        with contextlib.suppress(QueueClosedError):
            self._stream.cancel(kill=True)

    def _read(self) -> None:
        """The thread."""
        try:
            while self._may_read():
                item = next(self._items)
                if self._stopped:
                    break
                self._stream.add([item])
                self.added += 1
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - the input's own, to be raised in its place
            self.error = error
        self.exhausted = True
        self._items = iter(())
        with contextlib.suppress(QueueClosedError):
            self._stream.seal()

    def _may_read(self) -> bool:
        """Wait until there is room in the window; False where nothing is to be read any more."""
        window = self._window()
        if self.added - self.taken < window or self._unbounded:
            return not self._stopped
        # Before looking: the consumer counts before it looks at what was written here.
        self._resume_at = resume_at = self.added - window + max(1, window // PARTS)
        self._room.clear()
        while not self._may_go_on(resume_at):
            self._room.wait()
            self._room.clear()
        self._resume_at = None
        return not self._stopped

    def _may_go_on(self, resume_at: int) -> bool:
        return self._stopped or self._unbounded or self.taken >= resume_at


def read_whole_chunks(items: Iterator[Any], size: int) -> Iterator[Any]:
    """The items, read ``size`` at a time: where the input raises in the middle, the chunk that was begun is dropped."""
    while True:
        chunk: list[Any] = []
        for item in items:
            chunk.append(item)
            if len(chunk) == size:
                break
        if not chunk:
            return
        yield from chunk


def read_late(items: Any) -> Iterator[Any]:
    """The items; that they are no iterable is found where the first one is read."""
    yield from items
