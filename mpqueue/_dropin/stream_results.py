"""`StreamResults`: the outcomes of a stream as they come. Both imaps, `mpqueue.imap` and that of `Pool`, read by it.

How the input is read is their own: on the consumer's thread (`InputReader`), or on one of its own (`InputFeed`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from mpqueue._queue.growing.stream import Stream
from mpqueue._queue.mailbox import Mailbox
from mpqueue._queue.run import Ended
from mpqueue.errors import QueueClosedError

#: Outcomes are taken, and the window of a reader that met its end is filled, by at least its so many-th part.
PARTS = 4


class StreamResults:
    """Outcomes in the order of the input or in that of their ends, taken in blocks. One consumer at a time.

    So a tiny item costs little more than its place in a list.
    """

    def __init__(
        self,
        open_: Callable[[Callable[[Ended], None]], Stream],
        window: Callable[[Stream], int],
        *,
        ordered: bool,
    ) -> None:
        self.news: Mailbox[Ended] = Mailbox()  #: what ended: waited for here, and taken by `take_block`
        self.is_over = False  #: the stream has ended, by itself or from outside: nothing more will arrive
        #: True while outcomes or items go from one place to another. What interrupts that (Ctrl-C) leaves it so: some
        #: may be lost then, and who reads has to say so instead of going on.
        self.is_torn = False
        self._arrivals = Arrivals(ordered)
        self._window = window
        self.stream = open_(self.news.put)

    def window(self) -> int:
        """How many items should be under way or untaken at most."""
        return self._window(self.stream)

    def _hear(self, indices: Ended) -> None:
        """These have ended; None: the stream has."""
        if indices is None:
            self.is_over = True
        else:
            self._arrivals.add(indices)

    def check(self) -> None:
        """Raise what keeps the next outcome from coming, before it is waited for."""
        self.stream.check()

    def take_block(self) -> list[Any]:
        """The outcomes that come next: a result each, or its `Failure`. Empty where the next one is still to come.

        It `is_torn` until who reads has put them where they stay, and says so.
        """
        self.is_torn = True
        while not self.news.is_empty():
            self._hear(self.news.take())
        indices = self._arrivals.take(max(1, self.window() // PARTS))
        return self.stream.take_all(indices) if indices else []


def not_an_end(error: BaseException, what: str) -> BaseException:
    """What an item or the input raised, as ``next`` may raise it: a StopIteration would look like the end."""
    if not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    wrapped = RuntimeError(f"{what} raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


def torn_error() -> QueueClosedError:
    """What is raised instead of going on, where outcomes may be lost."""
    return QueueClosedError(
        "an interruption, such as a Ctrl-C, came while results were being taken, and some of them may be lost: this "
        "iterator is closed; for all results, make a new one"
    )


class Arrivals:
    """Which items have ended and were not taken yet: in the order of the input, or in that of their ends."""

    def __init__(self, ordered: bool, first: int = 0) -> None:
        self._ordered = ordered
        self._next = first
        self._stretches: dict[int, range] = {}  #: ordered: by their first item
        self._line: deque[Sequence[int]] = deque()  #: unordered

    def add(self, indices: Sequence[int]) -> None:
        """These have ended. A notice of none, which only wakes the consumer, is left out: it would hide later ones."""
        if not indices:
            return
        if not self._ordered:
            self._line.append(indices)
        elif isinstance(indices, range):
            self._stretches[indices.start] = indices
        else:
            self._stretches.update((index, range(index, index + 1)) for index in indices)

    def take(self, most: int) -> Sequence[int]:
        """The next ones, at most so many; none where the next is still to come."""
        if not self._ordered:
            indices: Sequence[int] = self._line.popleft() if self._line else ()
            if len(indices) > most:
                self._line.appendleft(indices[most:])
            return indices[:most]
        lo = hi = self._next
        while hi - lo < most and (stretch := self._stretches.pop(hi, None)) is not None:
            hi = min(stretch.stop, lo + most)
            if hi < stretch.stop:
                self._stretches[hi] = range(hi, stretch.stop)
        self._next = hi
        return range(lo, hi)
