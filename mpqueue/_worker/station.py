"""A worker's station: its lane's number and the things it shares with the parent.

Filled once by the lane's initializer (`mpqueue._worker.first_steps`), read by everything else in the worker. A global,
because Events can only be handed over while the process is spawned, and a handler has no other access to them.

If a process is more than one worker, or is not ours (`mpqueue._worker.exchange`), each worker's threads find their own
station instead.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mpqueue._os import channels
from mpqueue._os.files import write_at
from mpqueue._wire.frames import dump_leaving
from mpqueue._wire.line import encode
from mpqueue._wire.memory.asking import Asking
from mpqueue._wire.memory.ledger import OUTBOX, UNSENT_AT, Ledger
from mpqueue._wire.memory.segments import SegmentRef
from mpqueue._wire.seed import Flags
from mpqueue._worker.memory_growth import Growth


class Outbox(Protocol):
    """A place for finished results and log records in the middle of a chunk."""

    def leave(self, data: bytes) -> None:
        """Put an early report into the outbox, which must be free, and notify the parent. Raises OSError on failure."""

    def leave_unsent(self, data: bytes, at: int) -> None:
        """Put log records there in case this worker dies; ``at`` is how many bytes of them are there already.

        Raises OSError if that fails.
        """


class SharedOutbox:
    """The outbox in a file that the parent has open too, and the pipe that notifies the parent."""

    def __init__(self, file: int, bell: int, ledger: Ledger) -> None:
        self._file = file
        self._bell = bell
        self._ledger = ledger
        self.take_leaving: Callable[[], Sequence[SegmentRef]] = tuple  #: returns segments that a report has to carry

    def leave(self, data: bytes) -> None:
        """Write an early report into the file, and ring the parent's bell (implements `Outbox`)."""
        message = encode(dump_leaving(data, self.take_leaving()))
        self._write(message, 0)
        self._ledger.words[OUTBOX] = len(message)
        with contextlib.suppress(OSError):  # full: the parent is notified already; closed: it looks at the next answer
            channels.write(self._bell, b"!")

    def leave_unsent(self, data: bytes, at: int) -> None:
        """Write log records into the file, behind the room of an early report (implements `Outbox`)."""
        self._write(data, UNSENT_AT + at)

    def _write(self, data: bytes, at: int) -> None:
        if write_at(self._file, data, at) != len(data):
            raise OSError(errno.EFBIG, "expected room for an early report, got part of it")


class BrokenWorkerError(Exception):
    """This process can't go on as a worker."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Station:
    """One worker's place: its numbers, and its channels."""

    lane: int  #: the lane's number, stable over restarts
    generation: int
    ledger: Ledger
    flags_of: Callable[[int], tuple[bool, bool]]  #: (paused, cancelled) of the job of that number
    outbox: Outbox | None  #: None: nothing can be sent in the middle of a chunk
    is_own_process: bool = True  #: no other program's code runs in this process
    carries_segments: bool = False  #: segments that one side can't open are carried, see `mpqueue._worker.exchange`
    flags: Flags | None = None  #: the Events behind ``flags_of``, if there are any
    running: Any = None  #: the current work; see `mpqueue._worker.handlers.current_item`
    uses: Mapping[str, Sequence[int]] = field(default_factory=dict)  #: units of resources that the current items hold
    cpus: int = 1  #: the CPUs that they may use
    threads: dict[str, int] | None = None  #: inner threads that the worker started with, by variable, once they changed
    has_run: bool = False  #: this worker has run an item, or runs its first one
    growth: Growth = field(default_factory=Growth)
    asking: Asking | None = None  #: asks for descriptors of the parent, in a process of its own
    line: int = -1  #: descriptor of the socket for frames and answers, in a process of its own


_sole: Station | None = None
_seated = threading.local()
_any_seated = False


def take(station: Station) -> None:
    """Make this process that worker. Called once, by the initializer."""
    global _sole
    _sole = station


@contextlib.contextmanager
def seated(station: Station) -> Iterator[None]:
    """Make this thread that worker in the block."""
    global _any_seated
    _any_seated = True
    before = getattr(_seated, "station", None)
    _seated.station = station
    try:
        yield
    finally:
        _seated.station = before


def here() -> Station | None:
    """The station of the worker that this thread belongs to; None if it belongs to none."""
    if _any_seated:
        station: Station | None = getattr(_seated, "station", None)
        if station is not None:
            return station
    return _sole
