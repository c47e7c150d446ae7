"""What the scheduler hears (messages, past tense) and what it asks for (commands, imperative).

Plain data, all frozen. Whoever writes a message fills in facts only; whoever carries out a command decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpqueue._core.item_table import Failure
from mpqueue._wire.frames import Ended
from mpqueue._wire.ledger import Claim
from mpqueue.status import JobStatus

if TYPE_CHECKING:
    from mpqueue._core.job_book import JobBook
    from mpqueue._core.lane_book import Chunk


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
class QueueOpened:
    """The first job is about to start: workers are wanted."""


@dataclass(frozen=True, slots=True)
class QueueClosing:
    """`close`: paused jobs are cancelled; with ``cancel`` running ones too, with ``kill`` their items are ended."""

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
    | QueueOpened
    | QueueClosing
    | TimePassed
)


# -- commands ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartLane:
    """Start a worker for this lane."""

    lane: int
    generation: int


@dataclass(frozen=True, slots=True)
class RecycleLane:
    """Let this idle lane's worker end; `StartLane` of the next generation follows."""

    lane: int


@dataclass(frozen=True, slots=True)
class RetireLane:
    """This lane's death has been dealt with: free what belonged to it."""

    lane: int


@dataclass(frozen=True, slots=True)
class KillLane:
    """Kill this lane's worker; with ``dump_stack`` ask it first where it is."""

    lane: int
    dump_stack: bool = False


@dataclass(frozen=True, slots=True)
class SendChunk:
    """Pack this chunk's items and send them; with the job's handler where this worker has not got it yet."""

    lane: int
    generation: int
    chunk: Chunk
    with_handler: bool


@dataclass(frozen=True, slots=True)
class ForgetJob:
    """Tell this lane's worker to drop a job's handler."""

    lane: int
    generation: int
    job: JobBook


@dataclass(frozen=True, slots=True)
class SetFlags:
    """Make the lane's flags say this, of this job."""

    lane: int
    job: int
    pause: bool
    cancel: bool


@dataclass(frozen=True, slots=True)
class LowerLimit:
    """Let the worker claim nothing from ``position`` on in this chunk."""

    lane: int
    chunk: int
    position: int


@dataclass(frozen=True, slots=True)
class ObserveLane:
    """Read this lane's ledger and answer with `LaneObserved`."""

    lane: int
    generation: int


@dataclass(frozen=True, slots=True)
class Warn:
    """Log a warning."""

    text: str


@dataclass(frozen=True, slots=True)
class Retrying:
    """In an `AnnounceItems`: this try failed, and another one follows in ``delay`` seconds."""

    attempt: int
    delay: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class AnnounceStarted:
    """Tell listeners that the job started."""

    job: JobBook


@dataclass(frozen=True, slots=True)
class AnnounceItems:
    """Tell listeners what became of these items, in this order.

    An index in ``retrying`` waits for its next try, one in ``failed`` has failed, every other one completed.
    ``completed_before``, ``failed_before`` and ``status`` are the job's as of the first of them.
    """

    job: JobBook
    indices: Sequence[int]
    failed: frozenset[int]
    retrying: dict[int, Retrying]
    completed_before: int
    failed_before: int
    status: JobStatus


@dataclass(frozen=True, slots=True)
class AnnounceState:
    """Tell listeners that the job was paused or resumed (``event`` is the event's name)."""

    job: JobBook
    event: str
    status: JobStatus
    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class AnnounceFinished:
    """Tell listeners that the job ended, and resolve its run."""

    job: JobBook
    status: JobStatus
    completed: int
    failed: int
    duration: float


Command = (
    StartLane
    | RecycleLane
    | RetireLane
    | KillLane
    | SendChunk
    | ForgetJob
    | SetFlags
    | LowerLimit
    | ObserveLane
    | Warn
    | AnnounceStarted
    | AnnounceItems
    | AnnounceState
    | AnnounceFinished
)
