"""The books of one lane: its state and its chunks; and sets of lanes."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from mpqueue._core.state.pending import Care
from mpqueue._core.state.resources import Grant, Needs
from mpqueue._wire.frames import CHUNK_SECONDS, LIMIT
from mpqueue._wire.memory.ledger import Claim

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobBook

#: The most chunks on a lane: one that runs and one that waits, so that the worker never waits for the parent.
CHUNKS_PER_LANE = 2


class LaneState(Enum):
    """The states of a lane."""

    STARTING = auto()  #: its worker is being started
    READY = auto()  #: its worker takes chunks
    DYING = auto()  #: its worker is being killed
    DOWN = auto()  #: no worker; a timer starts the next one
    ABSENT = auto()  #: no worker, and no room for one; it comes by itself when there is


class Why(Enum):
    """The reason why a lane is being killed."""

    TIMEOUT = auto()
    SETUP_TIMEOUT = auto()
    CANCEL = auto()
    MEMORY = auto()
    BROKEN = auto()  #: its data are invalid, or do not come


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
    """Items of one job that are sent together. Positions count within it; ``end`` is its current end."""

    number: int  #: counts the chunks of one generation of one lane
    job: JobBook
    indices: Sequence[int]
    care: Care
    expected: float  #: the worker seconds that it should take
    sent_at: float
    limit: float = LIMIT * CHUNK_SECONDS  #: seconds after its start at which its worker ends it, between two items
    end: int = 0
    reported: int = 0  #: positions below this have ended
    claimed: int = 0  #: positions below this were claimed when the ledger was last read
    stretch: int = 0  #: how many positions the worker then ran under one mark
    settling: int | None = None  #: a limit that was lowered and not yet read back
    settled_at: float = 0.0  #: when that limit is visible to the worker
    doomed: bool = False  #: kill its worker if it has begun an item that was cancelled meanwhile
    attempts: Sequence[int] = ()  #: the number of each item's next try; empty: 1 for all
    packing: float = 0.0  #: seconds of pickling its items
    left_at: float = 0.0  #: the time when it had been sent
    size: int = 0  #: bytes of its items
    grant: Grant | None = None  #: the resources that its lane holds for it
    needs: Needs | None = None  #: of each of its items; None: its job names none
    unreadable: bool = False  #: its results could not be read here: unfinished items are sent again, each by itself

    def __post_init__(self) -> None:
        self.end = len(self.indices)

    @property
    def may_be_followed(self) -> bool:
        """True if its lane may hold another one behind it, so that its worker need not wait."""
        if self.care >= Care.ALONE or self.job.in_order:
            return False
        return self.job.sizer.is_short(min(self.expected, self.limit))

    @property
    def careful(self) -> bool:
        """True if each item is packed, marked and answered by itself."""
        return self.care >= Care.CAREFUL

    @property
    def isolated(self) -> bool:
        """True if nothing else runs in the workers that die with its own."""
        return self.care is Care.ALONE

    @property
    def unclaimed(self) -> int:
        """The number of positions that the worker may not have begun."""
        return max(0, self.end - max(self.reported, self.claimed))


@dataclass(eq=False, slots=True)
class LaneBook:
    """The books of one lane."""

    number: int
    generation: int = 0
    state: LaneState = LaneState.STARTING
    pid: int | None = None
    chunks: list[Chunk] = field(default_factory=list)
    free_at: float = 0.0  #: when it should have run them all, by the known times of their items; past if it has none
    next_chunk: int = 1
    last_chunk: int = 0  #: the number of the chunk of the last report; 0: there was none
    loaded: dict[int, JobBook] = field(default_factory=dict)  #: jobs whose handler this worker has
    proven: set[int] = field(default_factory=set)  #: jobs of which it has run a chunk
    forgetting: int = 0  #: jobs that this worker was asked to forget and has not yet
    tries: float = 0  #: items that this worker got, as they count for ``max_items_per_worker``
    is_awaited: bool = False  #: absent, although that is no lack of workers
    started_at: float = 0.0  #: when its start was requested
    start_failures: int = 0
    hopeless: bool = False  #: the last start failed for a lasting reason
    ready_at: float = 0.0
    dies_with: Hashable = None  #: shared by lanes that die together; None: it dies alone
    flags: tuple[int, bool, bool] | None = None  #: (job, pause, cancel) as last set; None: clear
    verdict: Verdict | None = None
    check_due: float | None = None  #: the time of the next look for a timeout
    waiting_since: float = 0.0  #: when it last got a message while idle, or last answered
    overdue: tuple[str, float] | None = None  #: the overdue work at the last look, and since when
    to_renew: bool = False  #: its worker has too much memory, or older modules, and is replaced between items
    over: tuple[int, int, float] | None = None  #: its work (chunk, lo, since) when it was seen over its limit
    grant: Grant | None = None  #: the resources that it holds for its chunks
    #: The units that its worker had before its first item: it sees no others. None: of no resource.
    devices: Sequence[int] | None = None
    bit: int = field(init=False)  #: the set of lanes that has only this one: see `mpqueue._core.state.lane_book`

    def __post_init__(self) -> None:
        self.bit = 1 << self.number

    @property
    def job(self) -> JobBook | None:
        """The job whose chunks are on the lane; all of them are of one job."""
        return self.chunks[0].job if self.chunks else None

    def asked(self, now: float) -> None:
        """Note that a message is about to be sent to the worker."""
        if not self.chunks and not self.forgetting:
            self.waiting_since = now

    def number_chunk(self) -> int:
        """Give the next chunk its number. Of two on a lane, one is odd: each has its own limit in the ledger."""
        number = self.next_chunk
        if any((chunk.number - number) % 2 == 0 for chunk in self.chunks):
            number += 1  # the chunk between them was refused
        self.next_chunk = number + 1
        return number

    def find(self, number: int) -> Chunk | None:
        """Return the chunk of that number, None if it is not on the lane (any more)."""
        for chunk in self.chunks:
            if chunk.number == number:
                return chunk
        return None

    def find_claimed(self, claim: Claim) -> Chunk | None:
        """Return the claimed chunk, None if it is not on the lane (any more)."""
        return next((chunk for chunk in self.chunks if claim.is_of(chunk.number)), None)

    def renew(self) -> None:
        """Begin the next generation: of the old worker nothing counts any more, except for starts that have failed."""
        LaneBook.__init__(
            self, self.number, self.generation + 1, start_failures=self.start_failures, hopeless=self.hopeless
        )


# -- Sets of lanes, and their busy times: a step of the scheduler asks about many lanes without looking at each. -------
#
# A set of lanes is an int; bit n stands for lane n. Union, intersection and difference of 1,024 lanes take 60 ns, and
# so does finding the first member; `members` costs 0.3 us per member, and nothing for other lanes.

_NANO = 1_000_000_000
#: Up to this many ends per lane, most of them past, are kept until they are looked through.
FULL = 8


def members(lanes: int) -> Iterator[int]:
    """Return the numbers of the lanes in the set, in order."""
    while lanes:
        first = lanes & -lanes
        yield first.bit_length() - 1
        lanes ^= first


def union(numbers: Iterable[int]) -> int:
    """Return the set of the lanes of these numbers."""
    lanes = 0
    for number in numbers:
        lanes |= 1 << number
    return lanes


class LaneSeconds:
    """The total time of lanes at work. Written by the coordinator's thread, read by any."""

    __slots__ = ("_state",)

    def __init__(self, lanes: int, now: float) -> None:
        self._state = lanes, now, 0.0  #: how many are at work, since when, and the seconds until then

    def change(self, step: int, now: float) -> None:
        """Count that many more lanes as at work from now on."""
        self._state = self._state[0] + step, now, self.until(now)

    def until(self, now: float) -> float:
        """Return the seconds of all lanes, up to now."""
        lanes, since, seconds = self._state
        return seconds + lanes * max(0.0, now - since)


class BusyTime:
    """The time until each lane of a job should have finished its items, and the sum of these times.

    Each call costs O(log lanes).
    """

    __slots__ = ("_ends", "_sum", "_until")

    def __init__(self) -> None:
        self._until: dict[int, int] = {}  #: by lane, in nanoseconds: they are added and subtracted exactly, for ever
        self._sum = 0
        self._ends: list[tuple[int, int]] = []  #: a heap of the same; it still has outdated entries

    def set(self, lane: int, until: float, now: float) -> None:
        """Note that the lane should be busy until then; not at all, if that is not later than now."""
        self._sum -= self._until.pop(lane, 0)
        if until > now:
            end = round(until * _NANO)
            self._until[lane] = end
            self._sum += end
            heapq.heappush(self._ends, (end, lane))
            if len(self._ends) > FULL * len(self._until):
                self._forget_past(round(now * _NANO))

    def left(self, now: float) -> float:
        """Return the seconds left of all lanes together."""
        self._forget_past(round(now * _NANO))
        return self._sum / _NANO - now * len(self._until)

    def _forget_past(self, now: int) -> None:
        """Forget the ends that are past by ``now``, in nanoseconds."""
        ends, until = self._ends, self._until
        while ends and (ends[0][0] <= now or until.get(ends[0][1]) != ends[0][0]):
            end, lane = heapq.heappop(ends)
            if until.get(lane) == end:
                self._sum -= until.pop(lane)
