"""A lane on Dask: a worker of the agent in a Dask worker. Frames go there as tasks, all else to its event loop."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpqueue._engines.agent.agent import PACKAGE
from mpqueue._engines.agent.notices import Rest
from mpqueue._engines.dask import dask_side
from mpqueue._engines.hosted_lane import HostedLane
from mpqueue._wire.memory import shared
from mpqueue._wire.memory.shared import Shared, token_of
from mpqueue._worker.elsewhere import hosted

if TYPE_CHECKING:
    from mpqueue._engines.dask.dask_host import Host
    from mpqueue._engines.dask.dask_pool import DaskPool

#: Bytes from which a frame goes to the worker as data of Dask's, and not inside its task.
BIG = 1 << 20
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
        self._ended = asyncio.Event()

    @property
    def key(self) -> tuple[int, int]:
        """Its number and generation, by which its agent knows it."""
        return self.number, self.generation

    # -- from any thread -------------------------------------------------------------------------------------

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
        super().end(error or ChildProcessError(f"the worker {self.pid} on {self.host.address} is gone"))

    def kill_now(self) -> None:
        """See `HostedLane.kill_now`."""
        self._owner.kill(self, False)

    async def fetch(self) -> bytes | None:
        """See `HostedLane.fetch`."""
        early: bytes | None = await self._ask(dask_side.fetch)
        return early

    async def serve(self, number: int, frame: bytes, to_bring: list[Shared[Any]]) -> tuple[bytes | None, bytes | None]:
        """See `HostedLane.serve`: as a task that Dask does not repeat.

        A big frame may come later than a small one that was sent after it: the agent goes by their numbers.
        """
        tokens = [token_of(one) for one in to_bring]
        while True:
            brought = [await self._owner.scatter_shared(one) for one in to_bring]
            try:
                answer = await self._owner.result_of(await self._submit(number, frame, tokens, brought))
            except Exception:
                if self._ended.is_set() or not any(map(is_lost, brought)):
                    raise
                continue  # it has not begun: the only worker that had this data is gone, and so the data did not come
            finally:
                self.host.stirred.set()
            return answer  # type: ignore[no-any-return]

    async def _submit(self, number: int, frame: bytes, tokens: list[shared.Token], brought: list[Any]) -> Any:
        client, host = self._owner.client, self.host
        data = frame
        if len(frame) >= BIG:
            data = await client.scatter(frame, workers=[host.address], hash=False)
        dropped = shared.dropped[host.dropped :]
        host.dropped += len(dropped)
        return client.submit(
            dask_side.serve,
            self.token,
            self.key,
            number,
            data,
            tokens,
            brought,
            dropped,
            workers=[host.address],
            allow_other_workers=False,
            pure=False,
            retries=0,
            key=f"mpqueue-{uuid.uuid4().hex}",
        )

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

    async def _tell_stack(self, tell: Callable[[str | None], object]) -> None:
        try:
            found: tuple[str, str] | None = await self._ask(dask_side.stack_of)
        except Exception:  # its end is reported elsewhere
            found = None
        tell(None if found is None else found[0].replace(found[1], PACKAGE))

    async def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await self._owner.ask(self.host.address, function, self.token, self.key, *arguments)
