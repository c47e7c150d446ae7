"""The scheduler's commands, in the imperative. The code that executes one decides nothing.

Its messages are in `mpqueue._core.messages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mpqueue._core.state.item_table import Failure
from mpqueue._wire.frames import CHUNK_SECONDS
from mpqueue._wire.pickling.packed_handler import HandlerTransport
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
)


class Capabilities(NamedTuple):
    """The facts about all workers of an engine. The defaults are loky's: everything."""

    #: Each worker is a process of its own, without other programs' code. It can be killed while it runs: time limits,
    #: ``cancel(kill=True)``.
    own_processes: bool = True
    #: Its workers are on this machine, whose CPUs, memory and GPUs are counted. Workers elsewhere come and go with the
    #: amount of waiting work, which the engine gets; it measures their memory.
    is_here: bool = True
    #: Big data goes through shared segments. To workers elsewhere without that, lanes carry segments, and bring shared
    #: objects.
    shares_memory: bool = True
    can_fork: bool = False  #: workers can be forked from a process with their imports done: loky's on Linux
    chunk_seconds: float = CHUNK_SECONDS  #: the target length of a chunk: long compared with the cost of sending it
    chunk_bytes: int = 4 << 20  #: the most bytes of items that a chunk aims at; of results twice as many
    chunk_cost: float = 114e-6  #: CPU seconds of a chunk in the process through which all chunks go
    #: Seconds without any worker, and without a start under way, after which waiting jobs are interrupted.
    patience: float = 30.0

    @property
    def carries(self) -> bool:
        """True if its lanes carry big data, beside frames and answers."""
        return not (self.is_here or self.shares_memory)

    @property
    def handler_transport(self) -> HandlerTransport:
        """The way in which its workers get a job's handler."""
        if self.shares_memory:
            return HandlerTransport.IN_MEMORY
        return HandlerTransport.SHARED_APART if self.carries else HandlerTransport.WHOLE
