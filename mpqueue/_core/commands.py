"""The scheduler's commands, in the imperative. The code that executes one decides nothing.

Its messages are in `mpqueue._core.messages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mpqueue._core.state.item_table import Failure
from mpqueue.status import JobStatus

if TYPE_CHECKING:
    from mpqueue._core.state.item_table import ItemTable
    from mpqueue._core.state.job_book import JobBook
    from mpqueue._core.state.lane_book import Chunk
    from mpqueue._wire.frames import RecordFrame


class StartLane(NamedTuple):
    """Start a worker for this lane."""

    lane: int
    generation: int


class InitializeLane(NamedTuple):
    """Let this new worker run the pool's initializer."""

    lane: int
    generation: int


class RecycleLane(NamedTuple):
    """Let this idle lane's worker end; `StartLane` of the next generation follows."""

    lane: int


class RetireLane(NamedTuple):
    """Free the lane's resources; its death has been handled."""

    lane: int


class KillLane(NamedTuple):
    """Kill this lane's worker; with ``dump_stack`` ask for its stack first."""

    lane: int
    dump_stack: bool = False


class TellDemand(NamedTuple):
    """Report for how many more lanes items wait, and the seconds that these take (0: not known)."""

    lanes: int = 0
    seconds: float = 0.0


class SendChunk(NamedTuple):
    """Pack this chunk's items and send them; with the job's handler if this worker does not have it yet."""

    lane: int
    generation: int
    chunk: Chunk
    with_handler: bool


class ForgetJob(NamedTuple):
    """Tell this lane's worker to drop a job's handler: at once, which it answers, or with its next chunk."""

    lane: int
    generation: int
    job: JobBook
    at_once: bool


class SetFlags(NamedTuple):
    """Set the lane's flags for this job."""

    lane: int
    job: int
    pause: bool
    cancel: bool


class LowerLimit(NamedTuple):
    """Forbid the worker to claim positions from ``position`` on in this chunk."""

    lane: int
    chunk: int
    position: int


class ObserveLane(NamedTuple):
    """Read this lane's ledger and answer with `LaneObserved`."""

    lane: int
    generation: int


class GiveUpAnswer(NamedTuple):
    """Report the finished part of an answer of this lane's worker, which has been unpickled for too long."""

    lane: int
    generation: int


class Warn(NamedTuple):
    """Log a warning. ``with_load``: add this machine's load, if it is busy."""

    text: str
    with_load: bool = False


class Retrying(NamedTuple):
    """In an `AnnounceItems`: this try failed, and another one follows in ``delay`` seconds."""

    attempt: int
    delay: float
    failure: Failure


class AnnounceStarted(NamedTuple):
    """Report to listeners that the job started. ``ended``: the items that had ended before, if results go to a sink."""

    job: JobBook
    ended: Sequence[range] = ()


class AnnounceItems(NamedTuple):
    """Report the outcomes of these items to listeners, in this order.

    An item in ``retrying`` waits for its next try, one in ``failed`` has failed, all others completed.
    ``completed_before``, ``failed_before`` and ``status`` are the job's before the first of them. ``size``: bytes of
    their results. ``rows`` are the failed and retrying items as of then, if the announcement is delivered later.
    """

    job: JobBook
    indices: Sequence[int]
    failed: frozenset[int]
    retrying: dict[int, Retrying]
    completed_before: int
    failed_before: int
    status: JobStatus
    size: int = 0
    rows: dict[int, ItemTable] | None = None


class AnnounceRecords(NamedTuple):
    """Pass on the log records of this job's handlers in this lane's worker."""

    job: JobBook
    lane: int
    records: Sequence[RecordFrame]


class AnnounceState(NamedTuple):
    """Report to listeners that the job was paused or resumed (``event`` is the event's name)."""

    job: JobBook
    event: str
    status: JobStatus
    completed: int
    failed: int


class AnnounceFinished(NamedTuple):
    """Report to listeners that the job ended, and resolve its run."""

    job: JobBook
    status: JobStatus
    completed: int
    failed: int
    duration: float


class HurryJob(NamedTuple):
    """Write what the job has ended soon, or not at all: it, and the jobs of its pipeline, are killed."""

    job: JobBook


class GiveUpJob(NamedTuple):
    """Resolve at once the run of this job, which ended; an internal error came before its run was resolved."""

    job: JobBook


Command = (
    StartLane
    | InitializeLane
    | RecycleLane
    | RetireLane
    | KillLane
    | TellDemand
    | SendChunk
    | ForgetJob
    | SetFlags
    | LowerLimit
    | ObserveLane
    | GiveUpAnswer
    | Warn
    | AnnounceStarted
    | AnnounceItems
    | AnnounceRecords
    | AnnounceState
    | AnnounceFinished
    | HurryJob
    | GiveUpJob
)
