"""A lane on Dask: a worker of the agent in a Dask worker.

Frames go there by a line (`host_line`), and a task has a slot of Dask's while there are any. All else goes to the Dask
worker's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpqueue._engines.agent.agent import PACKAGE
from mpqueue._engines.agent.notices import Rest
from mpqueue._engines.dask import dask_side
from mpqueue._engines.dask.node_line import view_carried
from mpqueue._engines.hosted_lane import HostedLane
from mpqueue._wire.memory import shared
from mpqueue._wire.memory.shared import Shared, token_of
from mpqueue._worker.elsewhere import hosted

if TYPE_CHECKING:
    from mpqueue._engines.dask.dask_host import Host
    from mpqueue._engines.dask.dask_pool import DaskPool

#: Seconds from a failed call to the news that its worker is gone; after that it was something else.
NEWS_LIMIT = 2.0
#: How often orders that did not get through are tried again, with so many seconds between.
ORDER_TRIES, ORDER_PAUSE = 5, 0.2


def is_lost(data: Any) -> bool:
    """Whether scattered data has gone with its worker."""
    return bool(data.status != "finished")


class DaskLane(HostedLane):
    """Satisfies `lane_protocol.Lane`. What has to do with Dask runs on the pool's event loop."""

    def __init__(self, pool: DaskPool, host: Host, number: int, generation: int) -> None:
        super().__init__(pool, number, generation, host.token)
        self.host = host
        self.starting: asyncio.Task[Any] | None = None
        self._owner = pool
        self._unsent = b""
        self._under_way = 0  #: frames that the agent has, or is about to have
        self._is_held = False
        self._is_blind = False
        self._ended = asyncio.Event()

    @property
    def key(self) -> tuple[int, int]:
        """Its number and generation, by which its agent knows it."""
        return self.number, self.generation

    # -- from any thread -------------------------------------------------------------------------------------

    @property
    def shares_memory(self) -> bool:
        """See `lane_protocol.CarryingLane.shares_memory`."""
        return self.host.shares_memory and not self._is_blind

    def take_results_by_pipe(self) -> None:
        """See `lane_protocol.SharingLane.take_results_by_pipe`."""
        self._owner.soon(lambda: self._owner.run(self._take_results_by_pipe()))

    def kill(self, *, dump_stack: bool = False) -> None:
        """See `lane_protocol.Lane.kill`."""
        self._owner.soon(self._owner.kill, self, dump_stack)

    def take_unsent(self) -> bytes:
        """See `lane_protocol.Lane.take_unsent`."""
        return self._unsent

    def tell_stack(self, tell: Callable[[str | None], object]) -> None:
        """See `lane_protocol.TellingLane.tell_stack`."""
        self._owner.soon(lambda: self._owner.run(self._tell_stack(tell)))

    # -- as `HostedLane` wants it ----------------------------------------------------------------------------

    def end(self, error: BaseException | None = None) -> None:
        """See `HostedLane.end`."""
        self._ended.set()
        if error is None:
            error = ChildProcessError(f"the worker {self.pid} on {self.host.address} is gone")
        super().end(error)

    def kill_now(self) -> None:
        """See `HostedLane.kill_now`."""
        self._owner.kill(self, False)

    async def fetch(self) -> bytes | None:
        """See `HostedLane.fetch`."""
        found: tuple[bytes, dict[int, bytes]] | None = await self._ask(dask_side.fetch)
        if found is None:
            return None
        early, carried = found
        self.carried.update(view_carried(carried))
        return early

    async def serve(self, number: int, frame: bytes, to_bring: list[Shared[Any]]) -> tuple[bytes | None, bytes | None]:
        """See `HostedLane.serve`. It is done while a task holds a slot for this lane."""
        for one in to_bring:
            await self._owner.bring(self.host, one)
        dropped = shared.dropped[self.host.dropped :]
        self.host.dropped += len(dropped)
        self._under_way += 1
        if not self._is_held:
            self._is_held = True
            self._run(self._hold())
        try:
            assert self.host.line is not None, "a host has its line as soon as it has its agent"
            tokens = [token_of(one) for one in to_bring]
            served = await self.host.line.serve(self.key, number, frame, tokens, dropped, self.take_to_carry(number))
        finally:
            self._under_way -= 1
            self.host.stirred.set()
        self.carried.update(served.carried)
        self._is_blind |= served.is_blind  # before what it has answered is read, and sent again
        return served.answer, served.early

    async def _hold(self) -> None:
        """One task after the other, as long as there are frames; each of them lets others come in between."""
        try:
            while self._under_way and not self._owner.is_closed:
                await self._owner.have_done(self.host, dask_side.hold, self.token, self.key)
        except Exception as error:
            self._broken = error
            await self.break_off(error)
        finally:
            self._is_held = False

    async def break_off(self, error: Exception) -> None:
        """See `HostedLane.break_off`. The end of its worker is reported elsewhere, soon; otherwise it is of no use."""
        try:
            await asyncio.wait_for(self._ended.wait(), NEWS_LIMIT)
        except TimeoutError:
            self._owner.drop(self, error)

    async def control(self, orders: list[hosted.Order]) -> hosted.Seen | None:
        """See `HostedLane.control`."""
        for left in range(ORDER_TRIES, -1, -1):
            try:
                seen: hosted.Seen | None = await self._ask(dask_side.control, orders)
            except OSError:
                if not left:
                    raise
                await asyncio.sleep(ORDER_PAUSE)
            else:
                return seen
        raise AssertionError("unreachable")

    # -- on the event loop -----------------------------------------------------------------------------------

    async def hand_in_rest(self, rest: Rest) -> None:
        """The worker is dead: what it has left comes before the news of it."""
        async with self._fetching:
            for early in rest.early:
                self._take(early)
        self._unsent = rest.unsent

    async def _take_results_by_pipe(self) -> None:
        with contextlib.suppress(Exception):  # its end is reported elsewhere
            await self._ask(dask_side.take_results_by_pipe)

    async def _tell_stack(self, tell: Callable[[str | None], object]) -> None:
        try:
            found: tuple[str, str] | None = await self._ask(dask_side.stack_of)
        except Exception:  # its end is reported elsewhere
            found = None
        tell(None if found is None else found[0].replace(found[1], PACKAGE))

    async def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await self._owner.ask(self.host.address, function, self.token, self.key, *arguments)
