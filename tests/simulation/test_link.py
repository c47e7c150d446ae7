"""The line between a program and an agent on a node, in histories in which connections break."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from mpqueue._engines.agent.link import Call, Link

pytestmark = pytest.mark.slow

SECRET = b"of both ends"
#: Calls in each direction, and the size of some of these, which go beside their message.
CALLS, BIG = 60, 1 << 17


class Ends:
    """A program and an agent, and what has come to each."""

    def __init__(self, secret: bytes = SECRET) -> None:
        self.came: tuple[list[Call], list[Call]] = ([], [])
        self._news = asyncio.Event()
        self.program = Link(secret, partial(self._take, self.came[0]), beats=False)
        self.agent = Link(SECRET, partial(self._take, self.came[1]), beats=True)

    def _take(self, came: list[Call], call: Call) -> None:
        came.append(call)
        self._news.set()

    async def arrive(self, end: Link, name: str) -> None:
        """Send a call from that end, and wait until it has come to the other."""
        end.send((name,))
        while not any((name,) in came for came in self.came):
            self._news.clear()
            await self._news.wait()

    async def connect(self, cut: Callable[[int], bool]) -> list[Any]:
        """Connect them, by way of two sockets; ``cut`` says after how many bytes that way ends."""
        (one, way), (back, other) = socket.socketpair(), socket.socketpair()
        passing = [asyncio.create_task(_pass(*ends, cut)) for ends in ((way, back), (back, way))]
        following = asyncio.gather(self.program.follow(one), self.agent.follow(other), return_exceptions=True)
        await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
        way.close()
        back.close()
        return [*await following]


async def _pass(source: socket.socket, target: socket.socket, cut: Callable[[int], bool]) -> None:
    loop = asyncio.get_running_loop()
    for one in (source, target):
        one.setblocking(False)
    while data := await loop.sock_recv(source, 1 << 16):
        if cut(len(data)):
            await loop.sock_sendall(target, data[: len(data) // 2])
            return
        await loop.sock_sendall(target, data)


def _calls(chance: random.Random, name: str) -> list[Call]:
    return [
        (name, at, bytes([at]) * (BIG if chance.random() < 0.2 else 100), {at: memoryview(bytes([at]) * 10)})
        for at in range(CALLS)
    ]


def _plain(calls: list[Call]) -> list[Any]:
    return [(name, at, bytes(data), {key: bytes(part) for key, part in more.items()}) for name, at, data, more in calls]


@pytest.mark.parametrize("seed", range(20))
def test_each_call_arrives_once_and_in_order_however_often_connections_break(seed: int) -> None:
    async def play() -> None:
        chance = random.Random(seed)
        ends = Ends()
        sent = _calls(chance, "to the agent"), _calls(chance, "to the program")
        for one, other in zip(*sent, strict=True):
            ends.program.send(one)
            ends.agent.send(other)

        def cut(_: int) -> bool:
            is_over = all(len(came) == CALLS for came in ends.came)
            return is_over or chance.random() < 0.02

        while not all(len(came) == CALLS for came in ends.came):
            await ends.connect(cut)
        assert _plain(ends.came[1]) == _plain(sent[0])
        assert _plain(ends.came[0]) == _plain(sent[1])

    asyncio.run(play())


def test_an_end_that_does_not_know_the_secret_is_not_listened_to() -> None:
    async def play() -> None:
        ends = Ends(secret=b"of another")
        ends.program.send(("begin",))
        found = await ends.connect(lambda _: False)
        assert all(isinstance(one, PermissionError) or one is False for one in found)
        assert any(isinstance(one, PermissionError) for one in found)
        assert ends.came == ([], [])

    asyncio.run(play())


def test_a_newer_connection_takes_the_place_of_one_that_is_still_there() -> None:
    async def play() -> None:
        ends = Ends()
        first = asyncio.create_task(ends.connect(lambda _: False))
        await ends.arrive(ends.program, "first")
        second = asyncio.create_task(ends.connect(lambda _: len(ends.came[1]) == 3))
        await first
        await ends.arrive(ends.program, "second")
        await ends.arrive(ends.program, "third")
        ends.program.send(("lost",))
        await second
        assert ends.came[1] == [("first",), ("second",), ("third",)]

    asyncio.run(play())
