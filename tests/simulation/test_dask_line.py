"""The line between a program and an agent on Dask, in histories in which connections break and calls get lost."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import Coroutine, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from distributed.comm import CommClosedError

from mpqueue._engines.agent.agent import Agent, Answered
from mpqueue._engines.dask import dask_side, host_line
from mpqueue._engines.dask.host_line import HostLine
from mpqueue._engines.dask.node_line import NodeLine
from mpqueue._wire.memory.segments import Carried

pytestmark = pytest.mark.slow

#: Lanes, frames of each, and the size of some of these, which go beside their message.
LANES, FRAMES, BIG = 3, 12, 1 << 17
#: Calls in a row that may get lost: with more of them the lane is given up.
MOST_LOST = 3


class End:
    """One end of a connection. What is written may be the last that arrives, or the first that does not."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._came: asyncio.Queue[Any] = asyncio.Queue()
        self._other: End | None = None
        self._is_cut = False

    def join(self, other: End) -> None:
        """These two are the ends of one."""
        self._other, other._other = other, self

    async def write(self, message: Any) -> None:
        """See `distributed.comm.Comm.write`."""
        assert self._other is not None
        await asyncio.sleep(0)
        fate = self._chance.random()
        if self._is_cut or fate < 0.04:
            self.abort()
            raise CommClosedError
        self._other._came.put_nowait(message)
        if fate < 0.08:
            self.abort()

    async def read(self) -> Any:
        """See `distributed.comm.Comm.read`."""
        message = await self._came.get()
        if message is None:
            raise CommClosedError
        return message

    def abort(self) -> None:
        """See `distributed.comm.Comm.abort`."""
        assert self._other is not None
        for end in (self, self._other):
            if not end._is_cut:
                end._is_cut = True
                end._came.put_nowait(None)

    async def close(self) -> None:
        """See `distributed.comm.Comm.close`."""
        self.abort()


class Worlds:
    """Stands for the program's pool and for the agent on the node, and loses what there is between them."""

    def __init__(self, seed: int, direct: bool | None) -> None:
        self.chance = random.Random(seed)
        self.client = SimpleNamespace(direct_to_workers=direct, connection_args={})
        self.done: Counter[tuple[int, int, int]] = Counter()
        self._lost = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self.node = NodeLine(cast("Any", self), self._announce)
        dask_side._agents["token"], dask_side._lines["token"] = cast("Agent", self), self.node
        self.host = HostLine(cast("Any", self), "address", "token")

    def _announce(self) -> None:
        self.host.collect()

    def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """See `HostedPool.run`."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        return task

    def add_callback(self, call: Any, *arguments: Any) -> None:
        """As the loop of the Dask worker."""
        asyncio.get_running_loop().call_soon(call, *arguments)

    async def ask(self, address: str, function: Any, *arguments: Any) -> Any:
        """See `DaskPool.ask`. It may fail before it has done anything, or after."""
        await asyncio.sleep(0)
        fate = self.chance.random()
        if fate < 0.1 and self._lost < MOST_LOST:
            self._lost += 1
            raise CommClosedError
        told = function(*arguments)
        told = await told if inspect.iscoroutine(told) else told
        await asyncio.sleep(0)
        if fate < 0.2 and self._lost < MOST_LOST:
            self._lost += 1
            raise CommClosedError
        self._lost = 0
        return told

    async def connect(self, address: str, **_: Any) -> End:
        """See `distributed.comm.connect`."""
        await asyncio.sleep(0)
        if self.chance.random() < 0.2:
            raise CommClosedError
        here, there = End(self.chance), End(self.chance)
        here.join(there)
        self.run(self._accept(there))
        return here

    async def _accept(self, end: End) -> None:
        try:
            hello = await end.read()
            await dask_side.connected(end, hello["token"], hello["seen"])
        except CommClosedError:
            end.abort()

    def take_in(
        self,
        lane: tuple[int, int],
        turn: int,
        frame: bytes,
        tokens: Sequence[Any],
        dropped: Sequence[Any],
        carried: Carried,
    ) -> None:
        """See `Agent.take_in`: what comes again is left alone."""
        key = (*lane, turn)
        if not self.done[key]:
            self.done[key] += 1
            self.run(self._do(key, frame, carried))

    async def _do(self, key: tuple[int, int, int], frame: bytes, carried: Carried) -> None:
        for _ in range(self.chance.randrange(8)):
            await asyncio.sleep(0)
        early = None if not carried else bytes(carried[key[2]])
        self.node.put(Answered(*key, bytes(frame)[::-1], early))

    async def end(self) -> None:
        """Nothing is left."""
        self.host.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        dask_side._take_out("token")


@pytest.mark.parametrize("direct", [None, False], ids=["direct", "through the scheduler"])
def test_each_frame_is_done_once_and_answered_whatever_gets_lost(
    direct: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "TRY_PAUSE"):
        monkeypatch.setattr(host_line, name, 0.0)
    for seed in range(150):
        asyncio.run(asyncio.wait_for(_history(seed, direct, monkeypatch), 60))


async def _history(seed: int, direct: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = Worlds(seed, direct)
    monkeypatch.setattr(host_line, "connect", worlds.connect)
    try:
        lanes = [_work(worlds.host, number, part) for number in range(LANES) for part in range(2)]
        assert all(await asyncio.gather(*lanes)), seed
        assert set(worlds.done.values()) == {1}
        assert len(worlds.done) == LANES * FRAMES
    finally:
        await worlds.end()


async def _work(line: HostLine, number: int, part: int) -> bool:
    """As a lane does, with two frames under way at a time."""
    for turn in range(part, FRAMES, 2):
        frame = b"%d of %d" % (turn, number) + bytes(BIG if turn % 5 == 4 else 0)
        big = bytes(BIG) + frame if turn % 3 == 1 else None
        carried = {} if big is None else {turn: memoryview(big)}
        served = await line.serve((number, 0), turn, frame, (), (), carried)
        if served.answer is None or bytes(served.answer) != frame[::-1] or served.early != big:
            return False
    return True
