"""What the scheduler hears: messages, in the past tense. What it asks for is in `mpqueue._core.commands`.

Plain data, all frozen. Whoever writes a message fills in facts only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpqueue._core.item_table import Failure
from mpqueue._wire.frames import Ended, RecordFrame
from mpqueue._wire.ledger import Claim

if TYPE_CHECKING:
    from mpqueue._core.job_book import JobBook


# -- what happened to lanes --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LaneReady:
    """A worker answered for the first time."""

    lane: int
    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class LaneStartFailed:
    """A worker could not be started, or died before it answered."""

    lane: int
    generation: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class LaneDied:
    """A worker's process is gone, and every answer that it had sent has been handed in before this message.

    ``exitcode`` and ``signal`` are None where the system did not tell; ``stack`` where it was, if that was asked.
    """

    lane: int
    generation: int
    pid: int
    exitcode: int | None = None
    signal: str | None = None
    claim: Claim | None = None
    stack: str | None = None


@dataclass(frozen=True, slots=True)
class BellRung:
    """A worker in the middle of a long item left finished results of its chunk in its outbox."""

    lane: int
    generation: int


@dataclass(frozen=True, slots=True)
class LaneObserved:
    """The answer to `ObserveLane`: what the lane's ledger says."""

    lane: int
    generation: int
    claim: Claim


# -- what became of chunks ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChunkReported:
    """Positions ``first`` to ``done`` of a chunk ended. With ``final`` the rest of it comes back unstarted.

    ``results`` has one entry a position, None where it failed; ``failures`` are by position. ``stretches`` are
    (items, seconds an item), in order; ``busy`` is the seconds that the worker spent on this part of the chunk.
    """

    lane: int
    generation: int
    chunk: int
    first: int
    done: int
    results: list[Any]
    failures: dict[int, Failure]
    stretches: Sequence[tuple[int, float]]
    busy: float
    ended: Ended
    final: bool = True
    setup_failure: Failure | None = None
    returned: Sequence[int] = ()  #: shared segments that the worker has done with
    records: Sequence[RecordFrame] = ()  #: what was logged since the last report
    output: Mapping[int, tuple[str, str]] | None = None  #: by position: what was written, where that is kept


@dataclass(frozen=True, slots=True)
class ChunkRefused:
    """A chunk was not sent, because these positions of it can't be pickled."""

    lane: int
    generation: int
    chunk: int
    failures: dict[int, Failure]


@dataclass(frozen=True, slots=True)
class JobForgotten:
    """A worker has dropped a job's handler and finished its ``setup``."""

    lane: int
    generation: int
    job: int


# -- what users did ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobStarted:
    """`start`, with the wall clock's time (seconds since the epoch)."""

    job: JobBook
    wall: float


@dataclass(frozen=True, slots=True)
class JobPaused:
    """`pause`."""

    job: JobBook


@dataclass(frozen=True, slots=True)
class JobResumed:
    """`resume`."""

    job: JobBook


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """`cancel`; with ``kill`` the items that run now are ended too."""

    job: JobBook
    wall: float
    kill: bool = False


@dataclass(frozen=True, slots=True)
class FailedItemsReset:
    """`retry_failed`."""

    job: JobBook
    wall: float


@dataclass(frozen=True, slots=True)
class ItemsAdded:
    """A stream has more items."""

    job: JobBook
    indices: range


@dataclass(frozen=True, slots=True)
class StreamSealed:
    """A stream has no more items: it ends when all have."""

    job: JobBook


@dataclass(frozen=True, slots=True)
class ItemDropped:
    """One item is not to run; with ``kill`` also where it runs already."""

    job: JobBook
    index: int
    kill: bool = False


@dataclass(frozen=True, slots=True)
class QueueOpened:
    """The first job is about to start: workers are wanted."""


@dataclass(frozen=True, slots=True)
class LanesWanted:
    """At least so many workers are wanted."""

    count: int


@dataclass(frozen=True, slots=True)
class LaneInitialized:
    """A new worker has run the pool's initializer, which failed or (None) not."""

    lane: int
    generation: int
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class QueueClosing:
    """`close`: paused jobs are cancelled, with ``cancel`` running ones too; with ``kill`` all workers count as dead.

    Then what was running is pending again, and the jobs end at once.
    """

    wall: float
    cancel: bool = False
    kill: bool = False


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The scheduler's deadline has come."""


Message = (
    LaneReady
    | LaneStartFailed
    | LaneDied
    | LaneObserved
    | BellRung
    | ChunkReported
    | ChunkRefused
    | JobForgotten
    | JobStarted
    | JobPaused
    | JobResumed
    | JobCancelled
    | FailedItemsReset
    | ItemsAdded
    | StreamSealed
    | ItemDropped
    | QueueOpened
    | LanesWanted
    | LaneInitialized
    | QueueClosing
    | TimePassed
)
