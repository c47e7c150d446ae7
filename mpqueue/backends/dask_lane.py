"""A lane on Dask: a worker in a slot of a Dask worker, and the two ways to it, by tasks and by its guardian."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from mpqueue._core.messages import BellRung
from mpqueue._engine.calls import Call, Calls
from mpqueue._wire.ledger import Claim, Phase
from mpqueue._wire.shared import Shared
from mpqueue._worker import dask_side, hosted

if TYPE_CHECKING:
    from mpqueue.backends.dask_host import Host
    from mpqueue.backends.dask_pool import DaskPool

#: Bytes from which a frame goes to the worker as data of Dask's, and not inside its task.
BIG = 1 << 20
#: Seconds from a failed call to the news that its worker is gone; after that it was something else.
NEWS_LIMIT = 2.0
#: How often orders that did not get through are tried again, with so many seconds between.
ORDER_TRIES, ORDER_PAUSE = 5, 0.2


def claim_of(seen: hosted.Seen, now: float) -> Claim:
    """What a ledger elsewhere says, by the clock here."""
    chunk, phase, lo, hi, age, fraction = seen
    return Claim(chunk, Phase(phase), lo, hi, now - age, fraction)


def is_lost(data: Any) -> bool:
    """Whether scattered data has gone with its worker."""
    return bool(data.status != "finished")


class DaskLane:
    """Satisfies `protocol.Lane`. What has to do with Dask runs on the pool's event loop."""

    def __init__(self, pool: DaskPool, host: Host, number: int, generation: int, token: str) -> None:
        self.number = number
        self.generation = generation
        self.pid = 0
        self.host = host
        self.token = token
        self.has_guardian = False  #: the nanny has the ledger
        self.is_ready = False
        self.starting: asyncio.Task[Any] | None = None
        self.lifeline: Any = None  #: as long as somebody holds this, the worker lives
        self._pool = pool
        self._calls = Calls()
        self._numbers = itertools.count()
        self._to_bring: set[Shared[Any]] = set()  #: shared objects that no answered frame has brought
        self._early: deque[bytes] = deque()
        self._fetching = asyncio.Lock()
        self._orders: list[hosted.Order] = []
        self._tells: list[Callable[[Claim], None]] = []
        self._is_controlling = False
        self._last: Claim | None = None
        self._broken: Exception | None = None  #: why nothing that it says counts any more
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_busy(self) -> bool:
        """True where something is under way."""
        return len(self._calls) > 0

    # -- from any thread -------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> Future[bytes]:
        """See `protocol.Lane.send`."""
        call = self._calls.begin()
        if not call.done():
            self._pool.soon(self._send, call, frame)
        return call

    def bring(self, shared: Shared[Any]) -> None:
        """See `protocol.BringingLane.bring`. By `Client.scatter`: workers have it from each other."""
        self._pool.soon(self._to_bring.add, shared)

    def set_flags(self, job: int, *, pause: bool, cancel: bool) -> None:
        """See `protocol.Lane.set_flags`."""
        self._pool.soon(self._order, hosted.SetFlags(job, pause, cancel), None)

    def set_limit(self, chunk: int, position: int) -> None:
        """See `protocol.Lane.set_limit`."""
        self._pool.soon(self._order, hosted.SetLimit(chunk, position), None)

    def observe(self, tell: Callable[[Claim], None]) -> None:
        """See `protocol.Lane.observe`. Never where the worker holds its global lock and has no nanny."""
        self._pool.soon(self._order, None, tell)

    def peek(self) -> Claim | None:
        """See `protocol.Lane.peek`: what was seen last; a newer look is on its way."""
        if not self._is_controlling:
            self._pool.soon(self._order, None, None)
        return self._last

    def peek_last(self) -> Claim | None:
        """What was seen last."""
        return self._last

    def take_early(self) -> bytes | None:
        """See `protocol.Lane.take_early`."""
        return self._early.popleft() if self._early else None

    def take_unsent(self) -> bytes:
        """See `protocol.Lane.take_unsent`. Nobody knows."""
        return b""

    def kill(self, *, dump_stack: bool = False) -> None:  # noqa: ARG002 - the protocol's
        """See `protocol.Lane.kill`: the whole process, which is the nanny's to do."""
        self._pool.soon(self._kill)

    # -- on the event loop -----------------------------------------------------------------------------------

    def end(self) -> None:
        """The worker is gone: fail what is under way, and what is yet to come."""
        self.is_ready = False
        self.lifeline = None
        self._ended.set()
        error = ChildProcessError(f"the Dask worker {self.host.address} is gone")
        self._calls.close(error)
        self._calls.fail_all(error)
        for task in self._tasks:
            task.cancel()

    def fetch_soon(self) -> None:
        """The worker has left something early."""
        self._run(self._fetch())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._pool.run(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _kill(self) -> None:
        self._pool.run(self._pool.kill(self))

    def _send(self, call: Call, frame: bytes) -> None:
        self._run(self._do(call, next(self._numbers), frame))

    async def _do(self, call: Call, number: int, frame: bytes) -> None:
        answer = None
        try:
            answer, early = await self._have_served(number, frame)
            async with self._fetching:  # what is being fetched comes before this
                self._take(early)
        except Exception as error:  # noqa: BLE001 - a worker that is gone, or an engine that can't
            self._broken = error
        if self._broken is None:
            self._calls.settle(call, answer, None)
        else:
            await self._break(self._broken)

    async def _have_served(self, number: int, frame: bytes) -> tuple[bytes, bytes | None]:
        """Have the worker do what the frame says, as a task of Dask's that nobody repeats.

        A big frame may come later than a small one that was sent after it: the worker goes by their numbers.
        """
        to_bring = list(self._to_bring)
        while True:
            brought = [await self._pool.scatter_shared(shared) for shared in to_bring]
            try:
                answer = await self._pool.result_of(await self._submit(number, frame, brought))
            except Exception:
                if self._ended.is_set() or not any(map(is_lost, brought)):
                    raise
                continue  # it has not begun: the only worker that had this data is gone, and so the data did not come
            self._to_bring.difference_update(to_bring)
            return answer  # type: ignore[no-any-return]

    async def _submit(self, number: int, frame: bytes, brought: list[Any]) -> Any:
        client, address = self._pool.client, self.host.address
        data = frame
        if len(frame) >= BIG:
            data = await client.scatter(frame, workers=[address], hash=False)
        return client.submit(
            dask_side.serve,
            self.token,
            number,
            data,
            brought,
            workers=[address],
            allow_other_workers=False,
            pure=False,
            retries=0,
            key=f"mpqueue-{uuid.uuid4().hex}",
        )

    async def _break(self, error: Exception) -> None:
        """That its worker is gone is told elsewhere, in a moment; where that is not so, this lane is of no use."""
        try:
            await asyncio.wait_for(self._ended.wait(), NEWS_LIMIT)
        except TimeoutError:
            self._pool.drop(self, error)

    async def _fetch(self) -> None:
        async with self._fetching:
            try:
                early = await self._pool.ask(self.host.address, hosted.fetch, self.token)
            except Exception as error:  # noqa: BLE001 - what was left there may be lost on its way,
                # and the final report would leave it out: that must not be believed, and all of it runs again
                self._broken = error
            else:
                self._take(early)
        if self._broken is not None:
            await self._break(self._broken)

    def _take(self, early: bytes | None) -> None:
        if early is not None:
            self._early.append(early)
            self._pool.post(BellRung(self.number, self.generation))

    def _order(self, order: hosted.Order | None, tell: Callable[[Claim], None] | None) -> None:
        """One call after the other, so that what is told first is known first."""
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
                self._last = claim_of(await self._order_now(orders), self._pool.now())
                for tell in tells:
                    tell(self._last)
                if not self._orders and not self._tells:
                    return
        except Exception as error:  # noqa: BLE001 - it is gone, or can't be told anything any more
            self._broken = error
            await self._break(error)
        finally:
            self._is_controlling = False

    async def _order_now(self, orders: list[hosted.Order]) -> hosted.Seen:
        """Tell the worker, or its guardian, and see what it is at. Orders that come twice do no harm."""
        address = self.host.nanny if self.has_guardian and self.host.nanny else self.host.address
        for left in range(ORDER_TRIES, -1, -1):
            try:
                seen: hosted.Seen | None = await self._pool.ask(address, hosted.control, self.token, orders)
            except OSError:
                if not left:
                    raise
                await asyncio.sleep(ORDER_PAUSE)
            else:
                if seen is None:
                    raise LookupError("this worker is gone")
                return seen
        raise AssertionError("unreachable")
