"""The program's end of the line to its agent in a Dask worker: frames go there, and their answers come back.

By a connection to the Dask worker, where there is one, and through the scheduler else: see `node_line`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from distributed.comm import connect

from mpqueue._engines.agent.agent import Answered
from mpqueue._engines.dask import dask_side
from mpqueue._engines.dask.node_line import Numbered, copied, pack, unpack, view_carried
from mpqueue._wire.memory.segments import Carried
from mpqueue._wire.memory.shared import Token

if TYPE_CHECKING:
    from mpqueue._engines.dask.dask_pool import DaskPool

#: Seconds that a connection may take, and from one try to the next, doubled up to the last figure.
CONNECT_LIMIT, FIRST_PAUSE, LONGEST_PAUSE = 10.0, 1.0, 60.0
#: How often what did not get through the scheduler is tried again, with so many seconds between.
TRIES, TRY_PAUSE = 5, 0.2
#: Bytes of answers that the agent keeps for this end at most, before this end says at once that they have arrived.
MOST_KEPT = 1 << 18

Turn = tuple[int, int, int]  #: a lane's number and generation, and a frame's number there


class HostLine:
    """Made, used and closed on the pool's event loop. It goes on until `close`, whatever happens to its connections."""

    def __init__(self, pool: DaskPool, address: str, token: str) -> None:
        self._pool = pool
        self._address = address
        self._token = token
        self._comm: Any = None
        self._seen = 0  #: the number of the last answer
        self._kept = 0  #: bytes of the answers of which the agent does not know yet that they have arrived
        self._under_way: dict[Turn, tuple[Sequence[Any], asyncio.Future[Answered]]] = {}
        self._unsent: list[Sequence[Any]] = []
        self._sending: asyncio.Task[Any] | None = None
        self._collecting: asyncio.Task[Any] | None = None
        self._is_asked = False  #: there is something to collect
        self._is_closed = False
        direct = pool.client.direct_to_workers
        self._connecting = None if direct is False else pool.run(self._stay_connected())

    async def serve(
        self,
        lane: tuple[int, int],
        turn: int,
        frame: bytes,
        tokens: Sequence[Token],
        dropped: Sequence[Token],
        carried: Carried,
    ) -> Answered:
        """Have `Agent.take_in` called, and wait for what comes of it. Raises what keeps it from getting there."""
        if self._is_closed:
            raise ConnectionError(f"the line to {self._address} is closed")
        key = (*lane, turn)
        message = (*key, frame, tokens, dropped, dict(carried))
        answer: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._under_way[key] = message, answer
        self._send([message])
        try:
            return await answer
        finally:
            self._under_way.pop(key, None)

    @property
    def is_connected(self) -> bool:
        """False while all goes through the scheduler."""
        return self._comm is not None

    def collect(self) -> None:
        """There are answers, for which the agent has no connection."""
        self._is_asked = True
        if self._collecting is None and not self._is_closed:
            self._collecting = self._pool.run(self._collect())

    def close(self) -> None:
        """Nothing is sent, or taken, any more."""
        self._is_closed = True
        for task in (self._connecting, self._sending, self._collecting):
            if task is not None:
                task.cancel()
        comm, self._comm = self._comm, None
        if comm is not None:
            comm.abort()
        self._unsent.clear()

    # -- frames --------------------------------------------------------------------------------------------------

    def _send(self, frames: Iterable[Sequence[Any]]) -> None:
        self._unsent += frames
        if self._sending is None and not self._is_closed:
            self._sending = self._pool.run(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._unsent:
                frames, self._unsent = self._unsent, []
                if (comm := self._comm) is None:
                    await self._relay(frames)
                else:
                    await self._write(comm, frames)
        except Exception as error:
            self._fail(error)
        finally:
            self._sending = None

    async def _write(self, comm: Any, frames: Sequence[Sequence[Any]]) -> None:
        self._kept = 0
        try:
            await comm.write(pack(self._seen, frames))
        except Exception:  # whatever it is, what has arrived of these is not known
            self._lose_connection(comm)

    async def _relay(self, frames: Sequence[Sequence[Any]]) -> None:
        await self._ask(dask_side.receive, lambda: (self._seen, [copied(frame) for frame in frames]))

    async def _ask(self, function: Callable[..., Any], arguments: Callable[[], Sequence[Any]]) -> Any:
        """Through the scheduler, as often as it takes, within reason: nothing is done twice there."""
        for left in range(TRIES, -1, -1):
            try:
                return await self._pool.ask(self._address, function, self._token, *arguments())
            except OSError:
                if not left:
                    raise
                await asyncio.sleep(TRY_PAUSE)
        raise AssertionError("unreachable")

    def _fail(self, error: Exception) -> None:
        for _, answer in list(self._under_way.values()):
            if not answer.done():
                answer.set_exception(error)

    # -- answers -------------------------------------------------------------------------------------------------

    async def _collect(self) -> None:
        try:
            while self._is_asked:  # perhaps again, after the agent has answered this
                self._is_asked = False
                self._take(await self._ask(dask_side.collect, lambda: (self._seen,)))
        except Exception as error:
            self._fail(error)
        finally:
            self._collecting = None

    def _take(self, answers: Iterable[Numbered]) -> None:
        """Answers in their order; some may have come before, by another way."""
        for number, *parts in answers:
            if number == self._seen + 1:
                self._seen = number
                served = Answered(*parts)
                served = served._replace(carried=view_carried(served.carried))
                self._kept += len(served.answer or b"") + len(served.early or b"")
                self._kept += sum(contents.nbytes for contents in served.carried.values())
                _, answer = self._under_way.get(served[:3], (None, None))
                if answer is not None and not answer.done():
                    answer.set_result(served)
        if self._kept > MOST_KEPT and self._comm is not None:
            self._pool.run(self._write(self._comm, ()))

    # -- the connection --------------------------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                comm = await connect(self._address, timeout=CONNECT_LIMIT, **self._pool.client.connection_args)
            except Exception:  # it can't be reached from here: so be it
                comm = None
            if comm is not None and await self._follow(comm):
                pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    async def _follow(self, comm: Any) -> bool:
        """Use this connection until it is lost; False where it was of no use."""
        try:
            await comm.write({"op": dask_side.CONNECT, "token": self._token, "seen": self._seen, "reply": False})
            async with asyncio.timeout(CONNECT_LIMIT):  # `wait_for` may swallow that this is cancelled
                if await comm.read() != "connected":
                    return False
            self._comm = comm
            while True:
                self._take(unpack(await comm.read())[1])
        except Exception:
            return self._comm is comm
        finally:
            comm.abort()
            self._lose_connection(comm)

    def _lose_connection(self, comm: Any) -> None:
        """All that has no answer goes through the scheduler then, once more."""
        if comm is not None and self._comm is comm:
            self._comm = None
            comm.abort()
            self._unsent.clear()
            self._send([message for message, _ in self._under_way.values()])
            self.collect()
