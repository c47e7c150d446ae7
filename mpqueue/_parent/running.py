"""What runs now, read from the lanes' ledgers: the items and their progress, and the memory of the workers.

Items are read on demand, on any thread. Memory is read by the sampler, a thread that exists only if that is limited.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol, cast

from mpqueue._core.messages import MemoryRead, WorkerMemory
from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk, LaneBook, LaneState
from mpqueue._core.state.resources import SHORT_BYTES, SHORT_PART
from mpqueue._os.process_facts import MachineMemory, MemoryGauge
from mpqueue._parent.inbox import found
from mpqueue._parent.lane_protocol import Lane, LanePool, Post, TellingLane
from mpqueue._parent.replies import SafeEvent
from mpqueue._wire.memory.ledger import MEMORY_USED, Claim, Ledger, Phase


def running_items(books: Books, lane_of: Callable[[int], Lane | None], job: JobBook) -> Mapping[int, float]:
    """Return the indices of the job's running items, each with the progress that its handler reported, 0 to 1."""
    running: dict[int, float] = {}
    for book in books.lanes:
        lane = lane_of(book.number)
        for chunk in list(book.chunks):
            if chunk.job is job and (claim := _claim_of(lane)) is not None and claim.is_of(chunk.number):
                running.update(dict.fromkeys(*_claimed(claim, chunk)))
    return running


def _claim_of(lane: Lane | None) -> Claim | None:
    return None if lane is None else lane.peek()


def _claimed(claim: Claim, chunk: Chunk) -> tuple[Sequence[int], float]:
    match claim.phase:
        case Phase.RUNNING if claim.hi - claim.lo == 1:
            return chunk.indices[claim.lo : claim.hi], claim.fraction
        case Phase.RUNNING | Phase.UNPACKING:  # of many items, it is unknown which one reported
            return chunk.indices[claim.lo : claim.hi], 0.0
        case Phase.PACKING:
            return chunk.indices[claim.lo : claim.lo + 1], 1.0
    return (), 0.0


class LaneNow(NamedTuple):
    """The state of a lane. ``job`` is the number of the job whose items it has, None if it has none."""

    number: int
    state: LaneState
    pid: int | None
    job: int | None = None
    phase: Phase = Phase.IDLE
    #: the indices that it may be running now: one, or several very short ones
    items: Sequence[int] = ()
    since: float = 0.0  #: since when, by the monotonic clock
    fraction: float = 0.0  #: the progress of a single one, by its handler's `report`

    @property
    def doing(self) -> str:
        """``busy``, ``idle``, ``starting`` or, without room for a worker, ``absent``: as it is counted everywhere."""
        if self.state is LaneState.READY:
            return "idle" if self.job is None else "busy"
        return "absent" if self.state is LaneState.ABSENT else "starting"


def lanes_now(books: Books, lane_of: Callable[[int], Lane | None]) -> list[LaneNow]:
    """Return the work of each lane, without unwanted lanes whose workers have ended.

    Costs 2 us per lane; each is consistent, or slightly later, as another thread changes them.
    """
    there = [book for book in list(books.lanes) if not (book.state is LaneState.ABSENT and books.is_surplus(book))]
    return [_lane_now(book, lane_of(book.number)) for book in there]


def _lane_now(book: LaneBook, lane: Lane | None) -> LaneNow:
    number, state, pid, chunks, claim = book.number, book.state, book.pid, list(book.chunks), _claim_of(lane)
    if claim is None or not chunks:
        return LaneNow(number, state, pid)
    job = chunks[0].job.number
    for chunk in chunks:
        if claim.is_of(chunk.number):
            items, fraction = _claimed(claim, chunk)
            return LaneNow(number, state, pid, job, claim.phase, items, claim.since, fraction)
    return LaneNow(number, state, pid, job)


class LaneStack(NamedTuple):
    """The stack of a lane's worker, innermost frame first; None if there is none, empty between two items."""

    number: int
    stack: str | None


def stacks_now(books: Books, lane_of: Callable[[int], Lane | None], patience: float) -> list[LaneStack]:
    """Return the stack of each worker, from the handler inward. All are asked at once.

    For an engine with ``own_processes``. Takes milliseconds, at most ``patience`` seconds, on a thread that may wait.
    """
    numbers = [book.number for book in list(books.lanes) if book.state is LaneState.READY]
    found: dict[int, str | None] = {}
    all_told = SafeEvent()

    def tell(number: int, text: str | None) -> None:
        found[number] = text
        if len(found) == len(numbers):
            all_told.set()

    for number in numbers:
        lane = lane_of(number)
        if lane is None:
            tell(number, None)
        else:
            cast("TellingLane", lane).tell_stack(partial(tell, number))
    if numbers:
        all_told.wait(patience)
    texts = [(number, found.get(number)) for number in numbers]
    return [LaneStack(number, None if text is None else handlers_part(text)) for number, text in texts]


_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
#: The file of the frame outside of which a worker's main thread does not serve.
_SERVING = os.path.join(_OURS, "_worker", "serving.py")
_WORKERS = os.path.join(_OURS, "_worker") + os.sep
#: Stands for the stack of a thread that has just begun, or is about to end; it may be ours.
_NO_FRAME = "  <no Python frame>"


def handlers_part(text: str) -> str:
    """Return `faulthandler`'s text without our own frames and threads; the thread that runs the items comes first."""
    main, others = "", []
    for thread in filter(None, text.strip().split("\n\n")):
        title, *frames = thread.splitlines()
        serving = next((at for at, frame in enumerate(frames) if _SERVING in frame), None)
        theirs = [frame for frame in frames[:serving] if _OURS not in frame]
        if serving is not None:
            main = "\n".join(theirs)
        elif _NO_FRAME not in theirs and not any(_WORKERS in frame for frame in frames):
            others.append("\n".join([title, *theirs]))
    return "\n\n".join(filter(None, (main, *others)))


#: Seconds between two looks at the workers. A worker fills about 30 MB meanwhile, at 1 GB/s.
LOOK_SECONDS = 0.025
#: Every this many looks, the machine is looked at.
MACHINE_EVERY = 2


class LedgerLane(Lane, Protocol):
    """A lane whose ledger this process has mapped, and whose worker is a process of this machine."""

    ledger: Ledger


class Sampler:
    """The thread that looks at memory: started at once, ended by `stop`. ``lanes`` gives the numbers of the lanes.

    ``busy`` returns whether anything can run; there is no look while nothing can. The kernel does not report when a
    process grows, so a thread has to look repeatedly; the scheduler decides. Between two looks, an item can exceed its
    limit.
    """

    def __init__(
        self, lanes: Callable[[], Iterable[int]], pool: LanePool, post: Post, busy: Callable[[], bool], name: str
    ) -> None:
        self._lanes = lanes
        self._pool = pool
        self._post = post
        self._busy = busy
        self._machine = MachineMemory()
        self._gauges: dict[int, tuple[LedgerLane, MemoryGauge]] = {}  #: each with the lane whose worker it reads
        self._wake = SafeEvent()
        self._running = True
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Wake the thread, since items may run from now on. On any thread; costs nothing."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._running = False
        self._wake.set()
        self._thread.join()

    def _loop(self) -> None:
        look = 0
        while self._running:
            if not self._busy():
                self._wake.wait()
                self._wake.clear()
                continue
            try:
                memory = self._machine.memory() if look % MACHINE_EVERY == 0 else None
                available, total = (None, None) if memory is None else memory
                self._post(MemoryRead(self._look(), available, total))
            except Exception as error:  # without it memory has no limit any more
                self._post(found("while it looked at the workers' memory", error))
            look += 1
            threading.Event().wait(LOOK_SECONDS)
        for _, gauge in self._gauges.values():
            gauge.close()

    def _look(self) -> list[WorkerMemory]:
        seen = []
        for number in self._lanes():
            lane = cast("LedgerLane | None", self._pool.lane(number))
            if number in self._gauges and self._gauges[number][0] is not lane:
                self._gauges.pop(number)[1].close()
            if lane is not None and (read := self._read(lane)) is not None:
                seen.append(read)
        return seen

    def _read(self, lane: LedgerLane) -> WorkerMemory | None:
        """Return the worker's memory and its claim; None if the claim changed meanwhile, or the worker has ended."""
        try:
            if lane.number not in self._gauges:
                self._gauges[lane.number] = lane, MemoryGauge(lane.pid)
            claim, base = lane.ledger.read(), lane.ledger.words[MEMORY_USED]
            used = self._gauges[lane.number][1].read()
            again = lane.ledger.read()
        except (OSError, ValueError):
            return None
        if claim[:5] != again[:5]:
            return None
        return WorkerMemory(lane.number, lane.generation, used, base, claim)


# -- The memory that items may need together: the machine's, less the rest of the machine's use. -----------------------


def memory_supply() -> int | None:
    """Return the bytes of the machine, or of the tightest control group; None if not reported. 0.3 ms."""
    found = MachineMemory().memory()
    return None if found is None else int(found.total - min(found.total * SHORT_PART, SHORT_BYTES))
