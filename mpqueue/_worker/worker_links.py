"""A worker's links: its lane's number and the things it shares with the parent.

Filled once by the lane's initializer (`mpqueue._worker.serving`), read by everything else in the worker. A global,
because Events can only be handed over while the process is spawned, and a handler has no other access to them.

If the program's own process is a worker, or several (`mpqueue._engines.inline`), each worker's threads find their own
links instead.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mpqueue._os.files import write_at
from mpqueue._wire.frames import dump_with_segments
from mpqueue._wire.line import encode, write_whole
from mpqueue._wire.memory.asking import Asking
from mpqueue._wire.memory.ledger import Ledger
from mpqueue._wire.memory.segments import SegmentRef


class Outbox(Protocol):
    """A way for finished results and log records in the middle of a chunk."""

    def leave(self, data: bytes) -> None:
        """Send an early report, after all that was sent before. Raises OSError on failure."""

    def leave_unsent(self, data: bytes, at: int) -> None:
        """Put log records there in case this worker dies; ``at`` is how many bytes of them are there already.

        Raises OSError if that fails.
        """


class SharedOutbox:
    """The line to the parent, and a file that the parent has open too."""

    def __init__(self, line: int, file: int) -> None:
        self.line = line
        self._file = file
        self._lock = threading.Lock()  # held while a message is written
        self.take_carried: Callable[[], Sequence[SegmentRef]] = tuple  #: returns segments that a report has to carry

    def say(self, data: bytes, *, plain: bool = False, early: bool = False) -> None:
        """Write a message to the line. On any thread. Raises OSError."""
        message = encode(data, plain=plain, early=early)
        with self._lock:
            write_whole(self.line, message)

    def leave(self, data: bytes) -> None:
        """Write an early report to the line (implements `Outbox`)."""
        self.say(dump_with_segments(data, self.take_carried()), early=True)

    def leave_unsent(self, data: bytes, at: int) -> None:
        """Write log records into the file (implements `Outbox`)."""
        if write_at(self._file, data, at) != len(data):
            raise OSError(errno.EFBIG, "expected room for log records, got part of it")


class BrokenWorkerError(Exception):
    """This process can't go on as a worker."""


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


@dataclass(slots=True, eq=False, weakref_slot=True)
class WorkerLinks:
    """One worker's numbers, and its channels to the parent."""

    lane: int  #: the lane's number, stable over restarts
    ledger: Ledger
    flags_of: Callable[[int], tuple[bool, bool]]  #: (paused, cancelled) of the job of that number
    outbox: Outbox | None  #: None: nothing can be sent in the middle of a chunk
    is_own_process: bool = True  #: False: the worker is in the program's process, with its loggers and imports
    carries_segments: bool = False  #: segments that one side can't open are carried, see `mpqueue._worker.exchange`
    running: Any = None  #: the current work; see `mpqueue._worker.handlers.current_item`
    uses: Mapping[str, Sequence[int]] = field(default_factory=dict)  #: units of resources that the current items hold
    cpus: int = 1  #: the CPUs that they may use
    threads: dict[str, int] | None = None  #: inner threads that the worker started with, by variable, once they changed
    has_run: bool = False  #: this worker has run an item, or runs its first one
    growth: Growth = field(default_factory=Growth)
    asking: Asking | None = None  #: asks for descriptors of the parent, in a process of its own


_sole: WorkerLinks | None = None
_of_thread = threading.local()


def take(links: WorkerLinks) -> None:
    """Make this process that worker. Called once, by the initializer."""
    global _sole
    _sole = links


@contextlib.contextmanager
def as_worker(links: WorkerLinks) -> Iterator[None]:
    """Make this thread that worker in the block."""
    before = getattr(_of_thread, "links", None)
    _of_thread.links = links
    try:
        yield
    finally:
        _of_thread.links = before


def here() -> WorkerLinks | None:
    """The links of the worker that this thread belongs to; None if it belongs to none."""
    links: WorkerLinks | None = getattr(_of_thread, "links", None)
    return _sole if links is None else links
