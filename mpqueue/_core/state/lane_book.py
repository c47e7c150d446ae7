"""The books of one lane: its state and the chunks that are on it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.pending import Care
from mpqueue._core.state.resources import Grant, Needs
from mpqueue._wire.memory.ledger import Claim
from mpqueue._wire.pace import CHUNK_SECONDS, LIMIT

#: Chunks on a lane at a time: one that runs and one that waits, so that the worker never waits for the parent.
CHUNKS_PER_LANE = 2


class LaneState(Enum):
    """The states of a lane."""

    STARTING = auto()  #: its worker is being started
    READY = auto()  #: its worker takes chunks
    DYING = auto()  #: its worker is being killed
    DOWN = auto()  #: no worker; a timer starts the next one
    ABSENT = auto()  #: no worker, and no room for one; it comes by itself when there is


class Why(Enum):
    """Why a lane is being killed."""

    TIMEOUT = auto()
    SETUP_TIMEOUT = auto()
    CANCEL = auto()
    MEMORY = auto()
    BROKEN = auto()  #: what it sends can't be made sense of, or does not come


class Verdict(NamedTuple):
    """The reason why a lane is being killed, and the items (if they matter): charged only if still so when it dies."""

    why: Why
    chunk: int = 0
    lo: int = 0
    charged: bool = True  #: False where the item was only the last straw
    used: int = 0  #: bytes of private memory that the worker had, where it is killed for them
    reason: str = ""  #: for users, where the lane is broken
    since: float = 0.0  #: when what ran too long, or took too much, had begun


@dataclass(eq=False, slots=True)
class Chunk:
    """Items of one job that are sent together. Positions count within it; ``end`` is where it ends by now."""

    number: int  #: counts the chunks of one generation of one lane
    job: JobBook
    indices: Sequence[int]
    care: Care
    expected: float  #: worker seconds it was expected to take
    sent_at: float
    limit: float = LIMIT * CHUNK_SECONDS  #: seconds after its start at which its worker ends it, between two items
    end: int = 0
    reported: int = 0  #: positions below this have ended
    claimed: int = 0  #: positions below this were claimed when the ledger was last read
    stretch: int = 0  #: how many positions the worker ran under one mark then
    settling: int | None = None  #: a limit that was lowered and not yet read back
    settled_at: float = 0.0  #: when that limit is visible to the worker
    doomed: bool = False  #: its worker is to be killed if it has begun an item that was cancelled meanwhile
    attempts: Sequence[int] = ()  #: the number of the coming try of each item; empty: 1 for all
    packing: float = 0.0  #: seconds that pickling its items took
    left_at: float = 0.0  #: when it had been sent
    size: int = 0  #: bytes of its items
    grant: Grant | None = None  #: what its lane holds for it
    kind: int = 0  #: of its job's needs
    needs: Needs | None = None  #: of each of its items; None: of a job that names none
    unreadable: bool = False  #: results of it could not be had here: what has not ended goes again, each by itself

    def __post_init__(self) -> None:
        self.end = len(self.indices)

    @property
    def may_be_followed(self) -> bool:
        """True where its lane may hold another one behind it, so that its worker need not wait then."""
        if self.care >= Care.ALONE or self.job.in_order:
            return False
        return self.job.sizer.is_short(min(self.expected, self.limit))

    @property
    def careful(self) -> bool:
        """True where each item is packed, marked and answered by itself."""
        return self.care >= Care.CAREFUL

    @property
    def isolated(self) -> bool:
        """True where nothing else runs in what dies with its worker."""
        return self.care is Care.ISOLATED

    @property
    def unclaimed(self) -> int:
        """Number of positions that the worker has perhaps not begun."""
        return max(0, self.end - max(self.reported, self.claimed))


@dataclass(eq=False, slots=True)
class LaneBook:
    """One lane."""

    number: int
    generation: int = 0
    state: LaneState = LaneState.STARTING
    pid: int | None = None
    chunks: list[Chunk] = field(default_factory=list)
    free_at: float = 0.0  #: when it has run them all, by what was known of their items; past where it has none
    next_chunk: int = 1
    last_chunk: int = 0  #: the number of the chunk whose report arrived last; 0: none did
    loaded: dict[int, JobBook] = field(default_factory=dict)  #: jobs whose handler this worker has
    proven: set[int] = field(default_factory=set)  #: jobs of which it has run a chunk
    forgetting: int = 0  #: jobs that this worker is asked to forget and has not yet
    tries: float = 0  #: items that this worker was given, as they count for ``max_items_per_worker``
    is_awaited: bool = False  #: absent, although that is no lack of workers
    started_at: float = 0.0  #: when its start was asked for
    start_failures: int = 0
    hopeless: bool = False  #: the last start failed for a lasting reason
    ready_at: float = 0.0
    fate: Hashable = None  #: lanes that have the same die together; None: this one has its own
    flags: tuple[int, bool, bool] | None = None  #: (job, pause, cancel) as last set; None: clear
    verdict: Verdict | None = None
    check_due: float | None = None  #: when the timer falls due that looks for a timeout
    waiting_since: float = 0.0  #: when it was last asked something while it had nothing to do, or last answered
    overdue: tuple[str, float] | None = None  #: what was seen to take too long, and since when, at the last look
    to_renew: bool = False  #: its worker has more memory than it may, or older modules, and is replaced between items
    over: tuple[int, int, float] | None = None  #: what it was at (chunk, lo, since) when it was seen over its limit
    grant: Grant | None = None  #: what it holds for its chunks
    #: Which units its worker was given before it ran anything: it sees no others. None: of none.
    devices: Sequence[int] | None = None
    bit: int = field(init=False)  #: the set of lanes that has only this one: see `mpqueue._core.state.lane_sets`

    def __post_init__(self) -> None:
        self.bit = 1 << self.number

    @property
    def job(self) -> JobBook | None:
        """The job whose chunks are on the lane; all of them are of one job."""
        return self.chunks[0].job if self.chunks else None

    def asked(self, now: float) -> None:
        """Note that something is about to be sent to the worker."""
        if not self.chunks and not self.forgetting:
            self.waiting_since = now

    def number_chunk(self) -> int:
        """Give the next chunk its number. Two on a lane are one odd and one even: each has its limit in the ledger."""
        number = self.next_chunk
        if any((chunk.number - number) % 2 == 0 for chunk in self.chunks):
            number += 1  # the chunk between them was refused
        self.next_chunk = number + 1
        return number

    def find(self, number: int) -> Chunk | None:
        """The chunk of that number, None where it is not on the lane (any more)."""
        for chunk in self.chunks:
            if chunk.number == number:
                return chunk
        return None

    def find_claimed(self, claim: Claim) -> Chunk | None:
        """The chunk that the claim speaks of, None where it is not on the lane (any more)."""
        return next((chunk for chunk in self.chunks if claim.is_of(chunk.number)), None)

    def renew(self) -> None:
        """Begin the next generation: nothing of the old worker's counts any more."""
        self.generation += 1
        self.pid = None
        self.fate = None
        self.next_chunk = 1
        self.last_chunk = 0
        self.loaded.clear()
        self.proven.clear()
        self.forgetting = 0
        self.tries = 0
        self.flags = None
        self.verdict = None
        self.check_due = None
        self.waiting_since = 0.0
        self.overdue = None
        self.to_renew = False
        self.over = None
        self.devices = None
