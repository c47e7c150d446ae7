"""The lane protocol: mpqueue's interface to an engine. The coordinator and the scheduler know this page, and no engine.

An engine runs workers somewhere. A `Backend` describes it: its capabilities (`Capabilities`, plain data), its room for
workers, and how to open a `LanePool` of *lanes* on it. A lane is one worker with its resources; lanes are numbered from
0. A lane's worker may die and be replaced: each worker is a new *generation* of its lane.

The calls of a pool and its lanes, and their answers::

    pool.start(lane, generation)        ->  LaneReady | LaneStartFailed | LaneAbsent (no room for it now)
    lane.send(frame, tell)              ->  tell(answer): the worker calls `mpqueue._worker.main` with the frame
    lane.set_flags / set_limit          ->  nothing: sent to the worker, in the order of the calls
    lane.observe(tell)                  ->  tell(claim): what the worker's ledger says, after all that it was sent
    (the worker finished some items of  ->  `Answers.tell_early` gets the results
     a chunk that goes on)
    lane.kill()                         ->  LaneDied, as for any death
    pool.recycle / retire / close       ->  no more messages about that lane

What happens to lanes comes as messages of `mpqueue._core.messages`, posted to the coordinator's inbox from any thread.
What a worker answers may be users' objects, and unpickling these may never end. So each lane hands its answers over on
a thread of its own (`Answers`), unless they are plain. The order for one generation is: LaneReady, then answers and
early results, then LaneDied when all that came is handed in.

Every engine must keep four promises:

1. *A frame runs at most once.* An engine's own retries are switched off; if a worker is lost, its calls fail.
2. *Answers are handed in in the order in which the worker gave them*: early results before the final report of their
   chunk. If a report came too early, the items before it would run again.
3. *An observation is newer than all messages before it*: the worker sees a limit that was set, or the parent sees its
   claim.
4. *A lane runs one frame at a time*, in the order of the calls: the second begins when the first is answered. Resources
   that items hold (units, a job's ``concurrency``) are counted by lanes.

An engine's capabilities show what it can't do; mpqueue does not call for that. `tests/contract` checks every engine
against this page.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from mpqueue._core.commands import Capabilities
from mpqueue._core.messages import Message
from mpqueue._parent.inbox import Inbox, found
from mpqueue._parent.users_threads import Errands
from mpqueue._wire.line import Answer
from mpqueue._wire.memory.ledger import Claim
from mpqueue._wire.memory.segments import Carried
from mpqueue._wire.memory.shared import Shared
from mpqueue._wire.pickling.payload import Packed
from mpqueue._wire.pickling.script import Script

__all__ = [
    "Backend",
    "Capabilities",
    "CarryingLane",
    "DemandPool",
    "Lane",
    "LanePool",
    "LaneSettings",
    "Post",
    "SharingLane",
    "TellingLane",
]

Post = Callable[[Message], None]


NO_VARIABLES: Mapping[str, str] = {}


class LaneSettings(NamedTuple):
    """The settings that every worker of a pool starts with."""

    concurrency: int
    threads_per_worker: int | None = None  #: None: CPUs / workers, at least 1
    may_grow: bool = False  #: no number of workers was given: as many as there is room for, also later
    max_memory: int | None = None  #: bytes of private memory that a worker may have
    #: Modules that are imported, or a function that is called, before everything; or the program's main module,
    #: imported.
    preload: tuple[str, ...] | Packed | Script | None = None
    variables: Mapping[str, str] = NO_VARIABLES  #: environment variables
    #: Frames come from a program elsewhere. The contents of segments that one side can't open are carried.
    carries_segments: bool = False
    can_open_results: bool = True  #: it can open segments of workers, as far as known when one starts


class Lane(Protocol):
    """One generation of a lane, for the coordinator. No method blocks."""

    number: int
    generation: int
    pid: int  #: the worker's process id, wherever that is
    answers: Answers

    def send(self, frame: bytes, tell: Tell) -> None:
        """Send ``frame`` to the worker, and call ``tell`` with its answer, on any thread; at most two at a time.

        If the worker is dead or dies, ``tell`` gets an exception instead; `LaneDied` follows. Never raises.
        """

    def set_flags(self, job: int, *, pause: bool, cancel: bool) -> None:
        """Set the flags for the job of that number, in call order, on a thread that may be abandoned."""

    def set_limit(self, chunk: int, position: int) -> None:
        """Forbid the worker to claim positions from ``position`` on in that chunk."""

    def observe(self, tell: Callable[[Claim], None]) -> None:
        """Call ``tell`` with the contents of the worker's ledger: at once, or on another thread, or never."""

    def peek(self) -> Claim | None:
        """Return what is known of the worker's ledger, perhaps slightly old, or None. On any thread."""

    def take_unsent(self) -> bytes:
        """Return a dead worker's unsent log records; empty if not known, as by default."""
        return b""

    def kill(self, *, dump_stack: bool = False) -> None:
        """Kill the worker and its process group now; with ``dump_stack``, ask for its stacks first (at most 50 ms)."""


class CarryingLane(Lane, Protocol):
    """A lane of an engine that ``carries``."""

    #: Data that came beside the worker's answers and was not read yet, by the serials of its segments.
    carried: dict[int, memoryview]

    @property
    def shares_memory(self) -> bool:
        """True if its worker can open our segments."""

    def carry(self, contents: Carried) -> None:
        """Send these contents, by the segments' serials, with the next frame. Never raises.

        They stay unchanged until the worker has reported that it no longer uses these segments.
        """

    def bring(self, shared: Shared[Any]) -> None:
        """Make the worker `bring` this in before all frames sent from now on. Once per object, never raises.

        If many workers need it, it is sent from this process once, if the engine can do so.
        """


class SharingLane(Lane, Protocol):
    """A lane of an engine that ``shares_memory`` or ``carries``."""

    def take_results_by_pipe(self) -> None:
        """Let results be sent without segments from now on: the parent can't open this worker's."""


class TellingLane(Lane, Protocol):
    """A lane of an engine with ``own_processes``."""

    def tell_stack(self, tell: Callable[[str | None], object]) -> None:
        """Call ``tell`` with the worker's stacks, in the form of `faulthandler`; None if there are none.

        Once, within about a second, on any thread; or never, if the pool is being closed. The worker goes on. From any
        thread; never blocks.
        """


class LanePool(Protocol):
    """The lanes of a queue."""

    def start(self, number: int, generation: int) -> None:
        """Start a worker in the background; posts `LaneReady` or `LaneStartFailed`, without a time limit.

        If there is no room for it, it posts `LaneAbsent`, and `LaneReady` when there is, which may be never. If all
        lanes are absent, or have failed to start, for the engine's ``patience``, jobs are interrupted, unless one is
        ``awaited``.
        """

    def await_starts(self) -> None:
        """Wait until each worker to be started exists, answering or not, or can't for now; or until this is closed."""

    def lane(self, number: int) -> Lane | None:
        """Return the live lane of that number, None while it has none. Also after `LaneDied`, until `retire`."""

    def recycle(self, number: int) -> None:
        """Let an idle lane's worker end by itself (its `LaneDied` is not posted) and free the lane's resources."""

    def retire(self, number: int) -> None:
        """Free the resources of a lane whose `LaneDied` has been handled."""

    def close(self, *, kill: bool) -> None:
        """End every worker (by itself if it is idle, else by a kill) and every thread.

        Returns when all have ended, or after 5 s with a logged warning that names the rest. Idempotent, callable from
        any thread.
        """


class DemandPool(LanePool, Protocol):
    """A lane pool of an engine whose workers are elsewhere."""

    def tell_demand(self, lanes: int, seconds: float) -> None:
        """Report for how many more lanes items wait, and how many seconds these take, as far as known.

        Called again when it has halved or doubled; with 0 if no items wait, as at the start. On the coordinator's
        thread; never blocks.
        """


class Backend(Protocol):
    """The description of an engine: the value of ``JobQueue(backend=...)``. Each queue opens its own pool on it."""

    capabilities: Capabilities

    def count_workers(self) -> int:
        """Return how many workers there is room for now, if ``concurrency`` is None. May take a look, and raise."""

    def open(self, settings: LaneSettings, inbox: Inbox) -> LanePool:
        """Open the lanes of a queue whose first job is about to start; they post their messages to ``inbox``.

        Raises `WorkerStartError` if there can't be any. On the coordinator's thread, so it takes at most milliseconds.
        """


# -- The frames under way in one lane, and the thread on which what comes of them is handed over. ----------------------

#: Gets a frame's answer; or an exception, if its worker has ended and none comes.
Tell = Callable[[Answer | BaseException], object]


class Answers(Errands):
    """The frames of one lane that have no answer yet, and the thread that hands over what its worker says, in order.

    Any thread may call any method. The first answer is that of the first frame. No lock: each step is one operation on
    a deque, and of several threads one gets what is removed. The lane calls `end` when no answer is wanted any more.
    """

    def __init__(self, inbox: Inbox, number: int) -> None:
        tell_fault = partial(_tell_fault, inbox.post, number)
        super().__init__(f"mpqueue-answers-{number}", tell_fault, inbox.call_later)
        #: Gets what a worker reports in the middle of its chunk. Set before a chunk is sent.
        self.tell_early: Tell | None = None
        self._open: deque[Tell] = deque()
        self._closed: BaseException | None = None

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_closed(self) -> bool:
        """True once `close` was called: the worker is known to be dead."""
        return self._closed is not None

    def begin(self, tell: Tell) -> bool:
        """Open a frame. False if `close` was called: then it has failed already."""
        self._open.append(tell)
        if self._closed is None:
            return True
        with contextlib.suppress(ValueError):  # `fail_all` was first
            self._open.remove(tell)
            tell(self._closed)
        return False

    def answered(self, answer: Answer | BaseException) -> bool:
        """Hand over the answer to the first open frame, a plain one as `put_plain` does; False if there is none."""
        try:
            tell = self._open.popleft()
        except IndexError:
            return False
        put = self.put_plain if isinstance(answer, Answer) and answer.plain else self.put
        put(partial(tell, answer))
        return True

    def early(self, report: Answer) -> None:
        """Tell what the worker has reported in the middle of its chunk, here and now."""
        if (tell := self.tell_early) is not None:
            tell(report)

    def put_plain(self, errand: Callable[[], object]) -> None:
        """Do what runs no code of the user's after all that was put before: here and now, if that is done."""
        if self.busy:
            self.put(errand)
        else:
            errand()

    def close(self, error: BaseException) -> None:
        """Fail all frames that are sent from now on; those under way go on."""
        self._closed = error

    def fail_all(self, error: BaseException) -> None:
        """Fail the frames that are still open."""
        with contextlib.suppress(IndexError):
            while True:
                self._open.popleft()(error)

    def die(self, error: BaseException, then: Callable[[], object] = lambda: None) -> None:
        """Fail all frames, those under way once what came is handed over; then call ``then``."""
        self.close(error)
        self.put_plain(partial(self.fail_all, error))
        self.put_plain(then)

    def end(self) -> None:
        """End the thread once it has handed over what came before."""
        super().end()
        self.tell_early = None  # what goes round is collected late


def _tell_fault(post: Post, number: int, error: BaseException) -> None:
    """Report a mistake of ours on one of a lane's threads.

    Knows nothing of the lane: what goes round is collected late.
    """
    post(found(f"on a thread of worker {number}", error))
