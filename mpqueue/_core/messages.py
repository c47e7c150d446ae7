"""The messages that the scheduler gets, in the past tense. What it requests is in `mpqueue._core.commands`.

Plain data, all frozen. A message contains facts only.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.pending import Care
from mpqueue._wire.added_items import AddedItems
from mpqueue._wire.frames import Ended, RecordFrame, WorkTimes
from mpqueue._wire.memory.ledger import Claim

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobBook
    from mpqueue.errors import InternalError


# -- what happened to lanes --------------------------------------------------------------------------------------


class LaneReady(NamedTuple):
    """A worker answered for the first time. Lanes of one ``fate`` die together; None: this one dies alone."""

    lane: int
    generation: int
    pid: int
    fate: Hashable = None


class LaneAbsent(NamedTuple):
    """There is no room for this worker; `LaneReady` comes when there is.

    ``awaited``: it has its place as soon as others leave it, or work waits for it: that is no lack of workers.
    """

    lane: int
    generation: int
    awaited: bool = False


class LaneStartFailed(NamedTuple):
    """A worker could not be started, or did not get on, or died before it answered.

    ``final``: it would be no better the next time.

    ``lasting``: most likely it would not, since the reason is none of those that pass by themselves.
    """

    lane: int
    generation: int
    error: BaseException
    final: bool = False
    lasting: bool = False


class LaneDied(NamedTuple):
    """A worker's process is gone, and every answer that it had sent has been handed in before this message.

    ``exitcode`` and ``signal`` are None where the system did not tell; ``stack`` where it was, if that was asked;
    ``claim`` is None if it could not be read. ``alone``: no other worker that had something to do died with it.
    ``innocent``: it had nothing to do, was sent away, or died of what another one did.
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
    """A worker sends data that can't be understood, or takes no more frames; ``why`` is for users."""

    lane: int
    generation: int
    why: str


class WorkerMemory(NamedTuple):
    """Bytes of private memory: ``used`` now, ``base`` when the worker began what its ``claim`` says."""

    lane: int
    generation: int
    used: int
    base: int
    claim: Claim


class MemoryRead(NamedTuple):
    """A look at the memory of the workers, and of the machine: bytes ``available`` and in all, None where not told."""

    workers: Sequence[WorkerMemory]
    available: int | None = None
    total: int | None = None


class LaneObserved(NamedTuple):
    """The answer to `ObserveLane`: what the lane's ledger says.

    ``asked_at``: when that was asked, if the answer took a while. It includes messages sent to the worker before.
    ``unpickling_since``: since when an answer of the worker is being unpickled here; None where none is.
    """

    lane: int
    generation: int
    claim: Claim
    asked_at: float | None = None
    unpickling_since: float | None = None


# -- the outcomes of chunks --------------------------------------------------------------------------------------


class ChunkReported(NamedTuple):
    """Positions ``first`` to ``done`` of a chunk ended. With ``final`` the rest of it comes back unstarted.

    ``results`` has one entry a position, None where it failed; ``failures`` are by position. ``stretches`` are
    (items, seconds an item, CPU seconds an item), in order, CPU seconds as nan where not known; ``busy`` is the seconds
    that the worker spent on this part of the chunk. ``unreadable``: why the result at ``done`` could not be had here;
    what was behind it is lost as well.
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
    returned: Sequence[int] = ()  #: shared segments that the worker has done with
    records: Sequence[RecordFrame] = ()  #: what was logged since the last report
    output: Mapping[int, tuple[str, str]] | None = None  #: by position: what was written, where that is kept
    peaks: Mapping[int, int] | None = None  #: by position: the peak of memory in bytes, where that is known
    times: WorkTimes | None = None
    size: int = 0  #: bytes of the answer
    received: float = 0.0  #: when it was here
    decoded: float = 0.0  #: when its results were unpickled
    unreadable: Failure | None = None
    added: Mapping[int, AddedItems] | None = None  #: by position: the items that a result brings for its job
    yielded: Mapping[int, int] | None = None  #: by position: how many values a stage's handler has yielded
    foreign: bool = False  #: objects of users' classes are in it: to free them may run any code
    profile: bytes | None = None  #: where the handler was; see `mpqueue._wire.sampled_stacks`


class ChunkSent(NamedTuple):
    """A chunk is on its way: ``size`` bytes of items, which took ``packing`` seconds to pickle.

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
    """A chunk is not on its way: code of its items' classes has to pickle them first, which may take any time.

    `ChunkPacked` or `ChunkRefused` follows, unless the job does without it meanwhile.
    """

    lane: int
    generation: int
    chunk: int


class ChunkPacked(NamedTuple):
    """The items of the job's first chunk of which that was said are pickled: it can go out."""

    job: JobBook


class ChunkRefused(NamedTuple):
    """The job's first chunk that was being pickled is not sent, because these positions of it can't be pickled.

    ``apart``: or because all together take too long; each is to go by itself.
    """

    job: JobBook
    failures: dict[int, Failure]
    apart: bool = False


class RecordsLeft(NamedTuple):
    """A worker that died had logged these while it ran a chunk, after its last report."""

    lane: int
    generation: int
    chunk: int
    records: Sequence[RecordFrame]


class JobForgotten(NamedTuple):
    """A worker has dropped a job's handler and finished its ``setup``."""

    lane: int
    generation: int
    job: int


# -- what users did ----------------------------------------------------------------------------------------------


class JobStartAsked(NamedTuple):
    """`start`, with the wall clock's time (seconds since the epoch).

    ``handler`` is the packed handler, as workers are to get it from now on; None: as it was.
    """

    job: JobBook
    wall: float
    handler: Any = None


class JobPaused(NamedTuple):
    """`pause`."""

    job: JobBook


class JobResumed(NamedTuple):
    """`resume`."""

    job: JobBook


class JobHeldBack(NamedTuple):
    """Too much of what the job has done waits to be written (``held``), so that no more is sent; or not any more.

    Each place where it may wait says so by itself: the job goes on once none of them holds it.
    """

    job: JobBook
    held: bool


class JobCancelled(NamedTuple):
    """`cancel`; with ``kill`` the items that run now are ended too. ``why``: the reason, where no user asked for it."""

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
    """A stream or an open job has more items, in its table, each to be handled with that much care.

    Or they have ended in an earlier run, as a journal knows, and so many ``failed``.
    """

    job: JobBook
    indices: range
    care: Care = Care.NONE
    failed: int | None = None  #: None: they are to run


class JobSealed(NamedTuple):
    """A stream, or an open job, gets no more items from its user: it ends when all have."""

    job: JobBook


class ItemsDropped(NamedTuple):
    """`cancel_items`, or a stream's `drop`: these items are not to run; with ``kill`` those that run are ended."""

    job: JobBook
    indices: Sequence[int]
    kill: bool = False


class QueueOpened(NamedTuple):
    """The first job is about to start: workers are wanted."""


class LanesWanted(NamedTuple):
    """At least so many workers are wanted."""

    total: int


class LanesResized(NamedTuple):
    """So many workers are wanted from now on, no more; with ``kill`` the others do not end what they run."""

    total: int
    kill: bool = False


class LaneInitialized(NamedTuple):
    """A new worker has run the pool's initializer, which failed or (None) not. ``text`` shows the error to people."""

    lane: int
    generation: int
    failure: Failure | None
    text: str = ""


class QueueClosing(NamedTuple):
    """`close`: paused jobs are cancelled, with ``cancel`` running ones too; with ``kill`` all workers count as dead.

    Then what was running is pending again, and the jobs end at once. ``within`` is `drain`: running jobs are cancelled,
    and items that still run after so many seconds are taken back without losing a try.
    """

    wall: float
    cancel: bool = False
    kill: bool = False
    within: float | None = None


class ModulesReloaded(NamedTuple):
    """The program has modules by now of which its workers have older ones: they are replaced, between two chunks."""


class FaultFound(NamedTuple):
    """mpqueue itself made a mistake, which ``error`` tells; see `mpqueue._core.rules.distrust` for what follows.

    It touched ``job``, where one is named; else the job whose items are on ``lane``, where that is named and has any;
    else all jobs. No ``generation`` means the lane's worker of now.
    """

    error: InternalError
    job: JobBook | None = None
    lane: int | None = None
    generation: int | None = None


class TimePassed(NamedTuple):
    """The scheduler's deadline has come."""


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
