"""What a page sees of a queue, and may do to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mpqueue._core.state.job_book import JobBook
from mpqueue._parent.running import LaneNow, LaneStack


class Served(Protocol):
    """A queue, from a page's side. Every method may be called on the page's threads."""

    can_resize: bool  #: its workers are its own, and can be asked where they are

    @property
    def concurrency(self) -> int:
        """How many workers it is to have."""
        ...

    def books(self) -> Sequence[JobBook] | None:
        """The jobs, in the order they were created; None if the queue is no longer referenced."""
        ...

    def lanes(self) -> Sequence[LaneNow]:
        """What each worker is at."""
        ...

    def stacks(self) -> Sequence[LaneStack]:
        """Where each worker is. Takes milliseconds, two seconds at most. Raises `MPQueueError` if none can be asked."""
        ...

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...

    def resize(self, concurrency: int) -> None:
        """Have so many workers. Raises ValueError for what is no such number, `MPQueueError`."""
        ...

    def act(self, number: int, action: str, *, kill: bool = False) -> None:
        """Do one of `ACTIONS` to the job of that number. Raises `MPQueueError`: no such job, not in this state."""
        ...


#: What a page may do to a job.
ACTIONS = ("pause", "resume", "cancel", "retry-failed")
