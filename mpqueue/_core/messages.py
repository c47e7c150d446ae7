"""The scheduler's messages, in the past tense. Its commands are in `mpqueue._core.commands`.

Plain data, all frozen. A message contains facts only.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.pending import Care
from mpqueue._wire.frames import Ended, RecordFrame, WorkTimes
from mpqueue._wire.memory.ledger import Claim
from mpqueue._wire.parcels import AddedItems

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobBook
    from mpqueue.errors import InternalError


# -- what happened to lanes --------------------------------------------------------------------------------------------


class LaneReady(NamedTuple):
    """A worker answered for the first time. Lanes of one ``dies_with`` die together; None: this one dies alone."""

    lane: int
    generation: int
    pid: int
    dies_with: Hashable = None


class LaneAbsent(NamedTuple):
    """There is no room for this worker; `LaneReady` comes when there is.

    ``awaited``: it comes as soon as others leave, or work waits for it: that is no lack of workers.
    """

    lane: int
    generation: int
    awaited: bool = False


class LaneStartFailed(NamedTuple):
    """A worker could not be started, or made no progress, or died before it answered.

    ``final``: another try would fail too.

    ``lasting``: another try would most likely fail, since the reason is not a temporary one.
    """

    lane: int
    generation: int
    error: BaseException
    final: bool = False
    lasting: bool = False


class LaneDied(NamedTuple):
    """A worker's process has ended; all answers that it had sent came before this message.

    ``exitcode`` and ``signal`` are None if the system did not report them; ``stack`` is its stack, if that was asked
    for; ``claim`` is None if it could not be read. ``alone``: no other busy worker died with it. ``innocent``: it was
    idle, was dismissed, or died because of another one.
    """

    lane: int
    generation: int
    pid: int
    exitcode: int | None = None
    signal: str | None = None
    claim: Claim | None = None
    stack: str | None = None
    alone: bool = True
    innocent: bool = False


class LaneBroken(NamedTuple):
    """A worker sends invalid data, or takes no more frames; ``why`` is for users."""

    lane: int
    generation: int
    why: str


class WorkerMemory(NamedTuple):
    """Bytes of private memory: ``used`` now, ``base`` at the start of the work in its ``claim``."""

    lane: int
    generation: int
    used: int
    base: int
    claim: Claim


class MemoryRead(NamedTuple):
    """A look at the memory of the workers, and of the machine: bytes ``available`` and in total, None if not known."""

    workers: Sequence[WorkerMemory]
    available: int | None = None
    total: int | None = None


class LaneObserved(NamedTuple):
    """The answer to `ObserveLane`: the contents of the lane's ledger.

    ``asked_at``: the time of the question, if the answer took a while. The worker has handled earlier messages.
    ``unpickling_since``: since when an answer of the worker is being unpickled here; None if none is.
    """

    lane: int
    generation: int
    claim: Claim
    asked_at: float | None = None
    unpickling_since: float | None = None


# -- the outcomes of chunks --------------------------------------------------------------------------------------------


class ChunkReported(NamedTuple):
    """Positions ``first`` to ``done`` of a chunk ended. With ``final`` the rest of it comes back unstarted.

    ``results`` has one entry per position, None if it failed; ``failures`` are by position. ``stretches`` are (items,
    seconds per item, CPU seconds per item), in order, with nan for unknown CPU seconds; ``busy`` is the worker's
    seconds for this part of the chunk. ``unreadable``: why the result at ``done`` could not be read here; later ones
    are lost as well.
    """

    lane: int
    generation: int
    chunk: int
    first: int
    done: int
    results: list[Any]
    failures: dict[int, Failure]
    stretches: Sequence[tuple[int, float, float]]
    busy: float
    ended: Ended
    final: bool = True
    setup_failure: Failure | None = None
    returned: Sequence[int] = ()  #: shared segments that the worker no longer uses
    records: Sequence[RecordFrame] = ()  #: log records since the last report
    output: Mapping[int, tuple[str, str]] | None = None  #: by position: the output, if it is kept
    peaks: Mapping[int, int] | None = None  #: by position: the peak of memory in bytes, if known
    times: WorkTimes | None = None
    size: int = 0  #: bytes of the answer
    received: float = 0.0  #: the time of its arrival
    decoded: float = 0.0  #: the time when its results were unpickled
    unreadable: Failure | None = None
    added: Mapping[int, AddedItems] | None = None  #: by position: items that a result adds to its job
    yielded: Mapping[int, int] | None = None  #: by position: how many values a stage's handler has yielded
    has_user_objects: bool = False  #: it has objects of users' classes, which may run code when they are freed
    profile: bytes | None = None  #: the handler's stacks; see `mpqueue._wire.frames`


class ChunkSent(NamedTuple):
    """A chunk was sent: ``size`` bytes of items, which took ``packing`` seconds to pickle.

    ``apart``: each item was pickled by itself, since all together could not be; the worker marks and answers them one
    by one.
    """

    lane: int
    generation: int
    chunk: int
    size: int
    packing: float
    left_at: float
    apart: bool = False


class ChunkPacking(NamedTuple):
    """A chunk was not sent: code of its items' classes has to pickle them first, which may take any time.

    `ChunkPacked` or `ChunkRefused` follows, unless the job drops the chunk meanwhile.
    """

    lane: int
    generation: int
    chunk: int


class ChunkPacked(NamedTuple):
    """The items of the job's first chunk that was being pickled are ready to be sent."""

    job: JobBook


class ChunkRefused(NamedTuple):
    """The job's first chunk that was being pickled is not sent, because these positions of it can't be pickled.

    ``apart``: or because all together take too long; each has to be sent by itself.
    """

    job: JobBook
    failures: dict[int, Failure]
    apart: bool = False


class RecordsLeft(NamedTuple):
    """Log records of a dead worker from a chunk, after its last report."""

    lane: int
    generation: int
    chunk: int
    records: Sequence[RecordFrame]


class JobForgotten(NamedTuple):
    """A worker has dropped a job's handler and finished its ``setup``."""

    lane: int
    generation: int
    job: int


# -- what users did ----------------------------------------------------------------------------------------------------


class JobStartAsked(NamedTuple):
    """`start`, with the wall clock's time (seconds since the epoch).

    ``handler`` is the packed handler for workers from now on; None: the same as before.
    """

    job: JobBook
    wall: float
    handler: Any = None


class JobPaused(NamedTuple):
    """`JobQueue.pause` was called."""

    job: JobBook


class JobResumed(NamedTuple):
    """`JobQueue.resume` was called."""

    job: JobBook


class JobHeldBack(NamedTuple):
    """Too many of the job's results wait to be written (``held``), so that no more items are sent; or not any more.

    Each place where results may wait sends it: the job goes on once none of them holds it.
    """

    job: JobBook
    held: bool


class JobCancelled(NamedTuple):
    """`cancel`; with ``kill`` running items are killed too. ``why``: the reason, if no user asked for it."""

    job: JobBook
    wall: float
    kill: bool = False
    why: str | None = None


class FailedItemsReset(NamedTuple):
    """`retry_failed`, of the items at these ``indices`` (None: of all); ``handler`` as in `JobStartAsked`."""

    job: JobBook
    wall: float
    handler: Any = None
    indices: Sequence[int] | None = None


class ItemsAdded(NamedTuple):
    """A stream or an open job has more items in its table.

    They run, with that much care; or they fail, since they have ended their program too often; or (None) they have
    ended in an earlier run, by a journal.
    """

    job: JobBook
    indices: range
    how: Care | Failure | None = Care.NONE


class JobSealed(NamedTuple):
    """A stream or an open job gets no more items from its user: it ends when all have ended."""

    job: JobBook


class ItemsDropped(NamedTuple):
    """`cancel_items`, or a stream's `drop`: these items must not run; with ``kill`` running ones are killed."""

    job: JobBook
    indices: Sequence[int]
    kill: bool = False


class QueueOpened(NamedTuple):
    """The first job is about to start: workers are wanted."""


class LanesWanted(NamedTuple):
    """At least that many workers are wanted."""

    total: int


class LanesResized(NamedTuple):
    """The wanted number of workers from now on; with ``kill`` surplus workers do not finish their items."""

    total: int
    kill: bool = False


class LaneInitialized(NamedTuple):
    """A new worker has run the pool's initializer; ``error`` is its failure, if any, ``text`` the error for people."""

    lane: int
    generation: int
    failure: Failure | None
    text: str = ""


class QueueClosing(NamedTuple):
    """`close`: paused jobs are cancelled, with ``cancel`` also running ones; with ``kill`` all workers count as dead.

    Then running items are pending again, and the jobs end at once. ``within`` is for `drain`: running jobs are
    cancelled, and items that still run after that many seconds are taken back without losing a try.
    """

    wall: float
    cancel: bool = False
    kill: bool = False
    within: float | None = None


class ModulesReloaded(NamedTuple):
    """The program has newer modules than its workers, which are replaced between two chunks."""


class FaultFound(NamedTuple):
    """mpqueue itself made a mistake, the ``error``: the queue ends. For the coordinator, not for the scheduler."""

    error: InternalError


class TimePassed(NamedTuple):
    """The scheduler's deadline has passed."""


class Slept(NamedTuple):
    """No process could run between these two moments: processes stopped, frozen, or without a CPU."""

    since: float
    until: float


Message = (
    LaneReady
    | LaneStartFailed
    | LaneAbsent
    | LaneDied
    | LaneBroken
    | LaneObserved
    | MemoryRead
    | ChunkReported
    | ChunkSent
    | ChunkPacking
    | ChunkPacked
    | ChunkRefused
    | RecordsLeft
    | JobForgotten
    | JobStartAsked
    | JobPaused
    | JobResumed
    | JobHeldBack
    | JobCancelled
    | FailedItemsReset
    | ItemsAdded
    | JobSealed
    | ItemsDropped
    | QueueOpened
    | LanesWanted
    | LanesResized
    | LaneInitialized
    | QueueClosing
    | ModulesReloaded
    | FaultFound
    | TimePassed
    | Slept
)
