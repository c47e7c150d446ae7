"""A lane on Dask: a worker in a slot of a Dask worker, and the two ways to it, by tasks and by its guardian."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

from mpqueue._engines.hosted_lane import HostedLane
from mpqueue._wire.memory.shared import Shared
from mpqueue._worker.elsewhere import dask_side, hosted

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

    def __init__(self, pool: DaskPool, host: Host, number: int, generation: int, token: str) -> None:
        super().__init__(pool, number, generation, token)
        self.host = host
        self.has_guardian = False  #: the nanny has the ledger
        self.starting: asyncio.Task[Any] | None = None
        self.lifeline: Any = None  #: as long as this is referenced, the worker lives
        self._owner = pool
        self._ended = asyncio.Event()

    # -- as `HostedLane` wants it ----------------------------------------------------------------------------

    def end(self, error: BaseException | None = None) -> None:
        """See `HostedLane.end`."""
        self.lifeline = None
        self._ended.set()
        super().end(error or ChildProcessError(f"the Dask worker {self.host.address} is gone"))

    def kill_now(self) -> None:
        """See `HostedLane.kill_now`: the whole process, which is the nanny's to do."""
        self._owner.run(self._owner.kill(self))

    async def fetch(self) -> bytes | None:
        """See `HostedLane.fetch`."""
        early: bytes | None = await self._owner.ask(self.host.address, hosted.fetch, self.token)
        return early

    async def serve(self, number: int, frame: bytes, to_bring: list[Shared[Any]]) -> tuple[bytes, bytes | None]:
        """See `HostedLane.serve`: as a task that Dask does not repeat.

        A big frame may come later than a small one that was sent after it: the worker goes by their numbers.
        """
        while True:
            brought = [await self._owner.scatter_shared(shared) for shared in to_bring]
            try:
                answer = await self._owner.result_of(await self._submit(number, frame, brought))
            except Exception:
                if self._ended.is_set() or not any(map(is_lost, brought)):
                    raise
                continue  # it has not begun: the only worker that had this data is gone, and so the data did not come
            finally:
                self.host.stirred.set()
            return answer  # type: ignore[no-any-return]

    async def _submit(self, number: int, frame: bytes, brought: list[Any]) -> Any:
        client, address = self._owner.client, self.host.address
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

    async def break_off(self, error: Exception) -> None:
        """See `HostedLane.break_off`. The end of its worker is reported elsewhere, soon; otherwise it is of no use."""
        try:
            await asyncio.wait_for(self._ended.wait(), NEWS_LIMIT)
        except TimeoutError:
            self._owner.drop(self, error)

    async def control(self, orders: list[hosted.Order]) -> hosted.Seen | None:
        """See `HostedLane.control`. Its guardian is the nanny, where that has the ledger."""
        address = self.host.nanny if self.has_guardian and self.host.nanny else self.host.address
        for left in range(ORDER_TRIES, -1, -1):
            try:
                seen: hosted.Seen | None = await self._owner.ask(address, hosted.control, self.token, orders)
            except OSError:
                if not left:
                    raise
                await asyncio.sleep(ORDER_PAUSE)
            else:
                return seen
        raise AssertionError("unreachable")
