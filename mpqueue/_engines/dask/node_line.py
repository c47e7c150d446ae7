"""The node's end of the line between a program and its agent in a Dask worker: what the agent answers.

The program connects to the Dask worker, as Dask's own workers do among themselves. Where it can't, what it has to say
comes through the scheduler, and it asks for answers the same way, as soon as an event tells that there are some. It may
change from one to the other at any moment, so nothing depends on a connection: frames have the numbers of their turns,
answers are numbered here, and both are sent again until they have arrived (`host_line`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pickle
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed.protocol import ToPickle
from tornado.ioloop import IOLoop

from mpqueue._engines.agent.agent import Answered
from mpqueue._wire.memory.segments import Carried

#: Bytes from which data is a part of its own in a message, and not copied into it.
APART = 1 << 16

#: An answer with its number, from 1, as it is sent.
Numbered = tuple[Any, ...]


def pack(seen: int, messages: Sequence[Sequence[Any]]) -> list[Any]:
    """Messages as one is written to a connection of Dask's; ``seen`` is the last answer that has arrived.

    What is big of them, and what is carried (a dict), is not copied. All else is in one: Dask looks at each part of
    what it sends, which takes longer.
    """
    beside: list[pickle.PickleBuffer] = []
    marked = [tuple(map(_mark, message)) for message in messages]
    data = pickle.dumps((seen, marked), pickle.HIGHEST_PROTOCOL, buffer_callback=beside.append)
    return [data, *map(ToPickle, beside)]


def unpack(packed: Sequence[Any]) -> tuple[int, list[tuple[Any, ...]]]:
    """The same again; what is big is any kind of buffer. Between parts of one process nothing has been pickled."""
    data, *beside = packed
    buffers = [memoryview(one.data if isinstance(one, ToPickle) else one) for one in beside]
    unpacked: tuple[int, list[tuple[Any, ...]]] = pickle.loads(data, buffers=buffers)
    return unpacked


def _mark(part: Any) -> Any:
    if isinstance(part, dict):
        return {serial: pickle.PickleBuffer(contents) for serial, contents in part.items()}
    return pickle.PickleBuffer(part) if isinstance(part, bytes) and len(part) >= APART else part


def copied(message: Sequence[Any]) -> Numbered:
    """A message as it goes through the scheduler, with copies of what is carried: Dask's pickles may be old ones."""
    return tuple(copy_carried(part) if isinstance(part, dict) else part for part in message)


def copy_carried(carried: Carried) -> dict[int, bytes]:
    """The same of what is carried alone."""
    return {serial: bytes(contents) for serial, contents in carried.items()}


def view_carried(carried: Mapping[int, Any]) -> Carried:
    """What was carried, where it has arrived."""
    return {serial: memoryview(contents) for serial, contents in carried.items()}


class NodeLine:
    """All of it but `put` is called on the Dask worker's event loop, which is ``loop``.

    ``announce`` tells the program that there is something to be collected.
    """

    def __init__(self, loop: IOLoop, announce: Callable[[], object]) -> None:
        self._loop = loop
        self._announce = announce
        self._numbers = itertools.count(1)
        self._kept: deque[Numbered] = deque()  #: what the program has not said that it has
        self._comm: Any = None
        self._sent = 0  #: the number of the last one that went to this connection
        self._writing: asyncio.Task[None] | None = None
        self._is_announced = False

    def put(self, served: Answered) -> None:
        """On any thread, in the order of the calls."""
        with contextlib.suppress(RuntimeError):  # the Dask worker is gone
            self._loop.add_callback(self._put, served)

    def _put(self, served: Answered) -> None:
        self._kept.append((next(self._numbers), *served))
        self._push()

    def attach(self, comm: Any, seen: int) -> None:
        """From now on answers go to this connection, those that the program has not seen first."""
        self.note_seen(seen)
        self._comm, self._sent = comm, seen
        self._push()

    def detach(self, comm: Any) -> None:
        """This connection is no more."""
        if self._comm is comm:
            self._comm = None
            self._push()

    def note_seen(self, number: int) -> None:
        """The program has all answers up to that one."""
        while self._kept and self._kept[0][0] <= number:
            self._kept.popleft()

    def collect(self, seen: int) -> list[Numbered]:
        """The answers after that one."""
        self._is_announced = False
        self.note_seen(seen)
        return [copied(answer) for answer in self._kept]

    def _push(self) -> None:
        if self._comm is None:
            if self._kept and not self._is_announced:
                self._is_announced = True
                self._announce()
        elif self._writing is None and self._unsent():
            self._writing = asyncio.ensure_future(self._write())

    def _unsent(self) -> list[Numbered]:
        if not self._kept or self._kept[-1][0] <= self._sent:
            return []
        return [answer for answer in self._kept if answer[0] > self._sent]

    async def _write(self) -> None:
        try:
            while (comm := self._comm) is not None and (unsent := self._unsent()):
                self._sent = unsent[-1][0]
                try:
                    await comm.write(pack(0, unsent))
                except Exception:
                    comm.abort()
                    if self._comm is comm:
                        self._comm = None
        finally:
            self._writing = None
        self._push()
