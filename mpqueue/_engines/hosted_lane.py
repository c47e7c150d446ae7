"""Lanes whose workers are hosted by a cluster's engine, and their pool: what is the same for all of these.

There are two ways to such a worker, see `mpqueue._worker.elsewhere.hosted`: frames go to the process that it is in,
and what has to reach it while it runs (flags, limits, a look at its ledger) goes to its guardian, where it has one. An
engine says how to go them. All of it happens on an event loop, the pool's, so there is no lock.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from mpqueue._core.messages import BellRung
from mpqueue._parent.lane_protocol import Lane, Post
from mpqueue._parent.open_calls import Calls, Tell
from mpqueue._parent.own_faults import found
from mpqueue._parent.surroundings.clock import SystemClock
from mpqueue._wire.memory.ledger import Claim, Phase
from mpqueue._wire.memory.segments import NOTHING_CARRIED, Carried
from mpqueue._wire.memory.shared import Shared
from mpqueue._worker.elsewhere import hosted


def claim_of(seen: hosted.Seen | None, now: float) -> Claim:
    """What a ledger elsewhere says, by the clock here. Raises LookupError if it is not known."""
    if seen is None:
        raise LookupError("this worker is gone")
    chunk, phase, lo, hi, age, fraction = seen
    return Claim(chunk, Phase(phase), lo, hi, now - age, fraction)


def call_guarded(post: Post, call: Callable[..., object], *arguments: Any) -> None:
    """Make the call on an event loop, which would keep what it raises to itself: that is a mistake of ours."""
    try:
        call(*arguments)
    except Exception as error:
        post(found("on the event loop of its workers", error))


def tell_fault(post: Post, task: asyncio.Task[Any]) -> None:
    """A task has ended: what it raised is a mistake of ours."""
    if not task.cancelled() and (error := task.exception()) is not None:
        post(found("in a task of its workers", error))


def _take_error(task: asyncio.Task[Any]) -> None:
    """Where what awaited a task was cancelled, asyncio would print what the task raised."""
    if not task.cancelled():
        task.exception()


L = TypeVar("L", bound="HostedLane")


class HostedPool(abc.ABC, Generic[L]):
    """Of a `LanePool`, what is the same for all: its lanes, and the event loop."""

    def __init__(self, thread: str, post: Post) -> None:
        """``thread`` is the name of the event loop's thread, which begins here."""
        self.post = post  #: notifies the coordinator, on any thread
        self.now = SystemClock().now
        self._loop = asyncio.new_event_loop()
        self._lanes: dict[int, L] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run_loop, name=thread, daemon=True)
        self._thread.start()

    def _run_loop(self) -> None:
        self._loop.run_forever()
        self.close_loop()

    def close_loop(self) -> None:
        """On its thread, when it has ended."""
        self._loop.close()

    # -- from any thread -------------------------------------------------------------------------------------

    def soon(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have something called on the event loop, in the order of the calls."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call_guarded, self.post, call, *arguments)

    @property
    def is_loop_thread(self) -> bool:
        """True on the event loop's own thread, where a finalizer may run too: it must not wait for the loop."""
        return threading.current_thread() is self._thread

    def end_loop(self, limit: float) -> None:
        """End the event loop, and wait for its thread for so many seconds."""
        self.soon(self._loop.stop)
        if not self.is_loop_thread:
            self._thread.join(limit)

    def await_starts(self) -> None:
        """There is nothing to wait for: workers are there already, or come when there is room for them."""

    def lane(self, number: int) -> L | None:
        """See `LanePool.lane`."""
        return self._lanes.get(number)

    def recycle(self, number: int) -> None:
        """See `LanePool.recycle`."""
        self.retire(number)

    @abc.abstractmethod
    def retire(self, number: int) -> None:
        """See `LanePool.retire`."""

    # -- on the event loop -----------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Have a coroutine run beside all else. It must not raise: that is a mistake of ours."""
        task = self.begin_task(work)
        task.add_done_callback(functools.partial(tell_fault, self.post))
        return task

    def begin_task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine whose value, or what it raises, is awaited elsewhere, or is of no use any more."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_take_error)
        return task


class HostedLane(Lane, abc.ABC):
    """A lane, but for what an engine has to say."""

    def __init__(self, pool: HostedPool[Any], number: int, generation: int, token: str) -> None:
        self.number = number
        self.generation = generation
        self.pid = 0
        self.token = token
        self.is_ready = False
        self.used_at = 0.0  #: when it answered last
        self._pool = pool
        self._calls = Calls()
        self._early: deque[bytes] = deque()
        self._fetching = asyncio.Lock()
        self._orders: list[hosted.Order] = []
        self._tells: list[Callable[[Claim], None]] = []
        self._is_controlling = False
        self._last: Claim | None = None
        self._numbers = itertools.count()
        self.to_bring: set[Shared[Any]] = set()  #: shared objects that no answered frame has brought
        self.carried: dict[int, memoryview] = {}  #: see `lane_protocol.CarryingLane`
        self._to_carry: dict[int, memoryview] = {}  #: with the next frame
        self._carrying: dict[int, dict[int, memoryview]] = {}  #: by the number of a frame
        self._unanswered: set[asyncio.Future[None]] = set()  #: frames that it may yet answer
        self._broken: Exception | None = None  #: why nothing that it says counts any more
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- what an engine has to say ---------------------------------------------------------------------------

    @abc.abstractmethod
    async def serve(self, number: int, frame: bytes, to_bring: list[Shared[Any]]) -> tuple[bytes | None, bytes | None]:
        """Have the worker's process call `hosted.serve`, once at most. Like the next two, raises whatever it likes.

        No answer: the worker is gone, which is about to be reported.
        """

    @abc.abstractmethod
    async def fetch(self) -> bytes | None:
        """Have the worker's process call `hosted.fetch`, once at most."""

    @abc.abstractmethod
    async def control(self, orders: list[hosted.Order]) -> hosted.Seen | None:
        """Have the guardian, or the worker's process, call `hosted.control`; orders that come twice do no harm."""

    @abc.abstractmethod
    async def break_off(self, error: Exception) -> None:
        """One of these has failed, so nothing that the worker says counts any more: make sure that `end` is called."""

    @abc.abstractmethod
    def kill_now(self) -> None:
        """See `lane_protocol.Lane.kill`."""

    # -- from any thread -------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """True once its worker is known to be gone."""
        return self._calls.is_closed

    @property
    def is_busy(self) -> bool:
        """True where something is under way."""
        return len(self._calls) > 0

    def send(self, frame: bytes, tell: Tell) -> None:
        """See `lane_protocol.Lane.send`."""
        if self._calls.begin(tell):
            self._pool.soon(self._send_next, tell, frame)

    def bring(self, shared: Shared[Any]) -> None:
        """See `lane_protocol.BringingLane.bring`."""
        self._pool.soon(self.to_bring.add, shared)

    def carry(self, contents: Carried) -> None:
        """See `lane_protocol.CarryingLane.carry`."""
        if contents:
            self._pool.soon(self._to_carry.update, contents)

    def set_flags(self, job: int, *, pause: bool, cancel: bool) -> None:
        """See `lane_protocol.Lane.set_flags`."""
        self._pool.soon(self._order, hosted.TellFlags(job, pause, cancel), None)

    def set_limit(self, chunk: int, position: int) -> None:
        """See `lane_protocol.Lane.set_limit`."""
        self._pool.soon(self._order, hosted.SetLimit(chunk, position), None)

    def observe(self, tell: Callable[[Claim], None]) -> None:
        """See `lane_protocol.Lane.observe`. Never where the worker holds its global lock and has no guardian."""
        self._pool.soon(self._order, None, tell)

    def peek(self) -> Claim | None:
        """See `lane_protocol.Lane.peek`: what was seen last; a newer look is on its way."""
        if not self._is_controlling:
            self._pool.soon(self._order, None, None)
        return self._last

    def take_early(self) -> bytes | None:
        """See `lane_protocol.Lane.take_early`."""
        return self._early.popleft() if self._early else None

    def kill(self, *, dump_stack: bool = False) -> None:  # noqa: ARG002 - the protocol's
        """See `lane_protocol.Lane.kill`. Where the worker was is not told."""
        self._pool.soon(self.kill_now)

    # -- on the event loop -----------------------------------------------------------------------------------

    def end(self, error: BaseException) -> None:
        """The worker is gone: fail what is under way, and what is yet to come."""
        self.is_ready = False
        self._calls.close(error)
        self._calls.fail_all(error)
        for task in self._tasks:
            task.cancel()
        self._to_carry.clear()
        self._carrying.clear()

    def take_to_carry(self, number: int) -> Carried:
        """What is to be carried with the frame of that number, once."""
        return self._carrying.pop(number, NOTHING_CARRIED)

    def fetch_soon(self) -> None:
        """The worker has left something early."""
        self._run(self._fetch())

    def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self._pool.run(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send_next(self, tell: Tell, frame: bytes) -> None:
        number = next(self._numbers)
        if self._to_carry:
            self._carrying[number], self._to_carry = self._to_carry, {}
        self._run(self._do(tell, number, frame))

    async def answered(self, limit: float) -> None:
        """Until no answer is on its way any more, within reason."""
        if self._unanswered:
            await asyncio.wait(self._unanswered, timeout=limit)

    async def _do(self, tell: Tell, number: int, frame: bytes) -> None:
        gone: Exception | None = None
        under_way = asyncio.get_running_loop().create_future()
        self._unanswered.add(under_way)
        try:
            to_bring = list(self.to_bring)
            answer, early = await self.serve(number, frame, to_bring)
            self.to_bring.difference_update(to_bring)
            async with self._fetching:  # what is being fetched comes before this
                self._take(early)
            # Where there is none, that says nothing of frames before this one: their answers may yet come.
            if answer is None:
                gone = ChildProcessError(f"the worker {self.pid} is gone")
            elif self._broken is None:
                self._calls.settle(tell, answer)
        except Exception as error:
            self._broken = error
        finally:
            self.used_at = self._pool.now()
            self._unanswered.discard(under_way)
            if not under_way.done():
                under_way.set_result(None)
        if (why := self._broken or gone) is not None:
            await self.break_off(why)

    async def _fetch(self) -> None:
        async with self._fetching:
            try:
                early = await self.fetch()
            except Exception as error:
                # and the final report would leave it out: that must not be believed, and all of it runs again
                self._broken = error
            else:
                self._take(early)
        if self._broken is not None:
            await self.break_off(self._broken)

    def _take(self, early: bytes | None) -> None:
        if early is not None:
            self._early.append(early)
            self._pool.post(BellRung(self.number, self.generation))

    def _order(self, order: hosted.Order | None, tell: Callable[[Claim], None] | None) -> None:
        """One call after the other, so that they arrive in order."""
        if order is not None:
            self._orders.append(order)
        if tell is not None:
            self._tells.append(tell)
        if not self._is_controlling and self.is_ready:
            self._is_controlling = True
            self._run(self._control())

    async def _control(self) -> None:
        try:
            while True:
                orders, self._orders = self._orders, []
                tells, self._tells = self._tells, []
                seen = await self.control(orders)
                self._last = claim_of(seen, self._pool.now())
                for tell in tells:
                    tell(self._last)
                if not self._orders and not self._tells:
                    return
        except Exception as error:
            self._broken = error
            await self.break_off(error)
        finally:
            self._is_controlling = False
