"""The line between a program and its agent on a node, for both ends: calls arrive once, and in order.

It uses a connection, which may break at any moment: directly to the agent, or through the engine. Calls are numbered,
kept until the other end has confirmed them, and sent again on the next connection. So only the time of arrival depends
on the connection.

Before anything else, both ends prove that they know the secret that the engine has handed over: calls are pickles.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import importlib
import importlib.metadata
import itertools
import os
import pickle
import platform
import secrets
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mpqueue._core.messages import FaultFound, LaneDied, LaneStartFailed, Message
from mpqueue._os.process_handle import process_name
from mpqueue._parent.inbox import text_of
from mpqueue._wire.memory.ledger import Claim
from mpqueue.errors import InternalError, WorkerStartError

#: Bytes from which data is a separate part of a message, and not copied into it.
APART = 1 << 16
#: Seconds that a connection and its first messages may take.
CONNECT_LIMIT = 5.0
#: Seconds without a call after which an end sends a sign of life; the number of these intervals that may pass without
#: one.
BEAT, MOST_MISSED = 3.0, 4
#: Seconds without a connection after which the other end counts as gone.
AWAY_LIMIT = 20.0
#: The most bytes of calls that the other end keeps before this one confirms their arrival at once.
MOST_KEPT = 1 << 18

_NONCE = 32
#: The number of parts after a message's pickle, and its length; then the length of each part.
_HEAD = struct.Struct("!IQ")
_SIZE = struct.Struct("!Q")

Call = tuple[Any, ...]  #: the name of the function at the other end, and its arguments


class Link:
    """One end of the line. Everything happens on the event loop on which it is made.

    ``take`` gets each call, and must not raise. ``beats``: this end sends a sign of life every 3 s; a program does not,
    since it may hold its global lock, or be stopped, for any time.
    """

    def __init__(self, secret: bytes, take: Callable[[Call], object], *, beats: bool) -> None:
        self._secret = secret
        self._take = take
        self._beats = beats
        self._numbers = itertools.count(1)
        self._kept: deque[tuple[int, Call]] = deque()  #: calls that the other end has not confirmed
        self._seen = 0  #: the number of the last call received
        self._unsaid = 0  #: bytes of received calls that are not confirmed yet
        self._sent = 0  #: the number of the last call sent on this connection
        self._missed = 0
        self._stirred = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    def send(self, call: Call) -> None:
        """Send a call to the other end, where it arrives after all earlier ones."""
        self._kept.append((next(self._numbers), call))
        self._stirred.set()

    async def follow(self, connection: socket.socket) -> bool:
        """Use this connection until it breaks, or a newer one replaces it; False if it was of no use.

        Closes it. Raises PermissionError if the other end does not know the secret.
        """
        connection.setblocking(False)
        with contextlib.suppress(OSError):  # a connection within this machine
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                seen = await self._greet(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, PermissionError) or not isinstance(error, OSError):
                raise
            return False
        if self._following is not None:
            self._following.cancel()
        following = self._following = asyncio.create_task(self._use(connection, seen))
        following.add_done_callback(lambda _: connection.close())  # not earlier: the event loop watches it
        try:
            await asyncio.wait([following])
        finally:
            following.cancel()
            if self._following is following:
                self._following = None
        return True

    # -- first words -------------------------------------------------------------------------------------------------

    async def _greet(self, connection: socket.socket) -> int:
        loop = asyncio.get_running_loop()
        own = secrets.token_bytes(_NONCE)
        await loop.sock_sendall(connection, own)
        other = bytes(await _read(connection, _NONCE))
        await loop.sock_sendall(connection, self._proof(other, own, of_agent=self._beats))
        proof = bytes(await _read(connection, hashlib.sha256().digest_size))
        if not hmac.compare_digest(proof, self._proof(own, other, of_agent=not self._beats)):
            raise PermissionError("the other end of the connection is not what the engine has named")
        await loop.sock_sendall(connection, _SIZE.pack(self._seen))
        return int(_SIZE.unpack(await _read(connection, _SIZE.size))[0])

    def _proof(self, first: bytes, second: bytes, *, of_agent: bool) -> bytes:
        """Return this end's proof, which differs from the other end's, so that neither can repeat the other's."""
        return hmac.digest(self._secret, (b"agent" if of_agent else b"program") + first + second, "sha256")

    # -- calls -------------------------------------------------------------------------------------------------------

    async def _use(self, connection: socket.socket, seen: int) -> None:
        self._note_arrived(seen)
        self._sent, self._missed = seen, 0
        tasks = [asyncio.create_task(self._write_all(connection)), asyncio.create_task(self._read_all(connection))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not isinstance(error := task.exception(), OSError | None):
                    raise error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write_all(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            unsent = [kept for kept in self._kept if kept[0] > self._sent] if self._has_more() else []
            for part in _pack(self._seen, unsent):
                await loop.sock_sendall(connection, part)
            self._unsaid = 0
            if unsent:
                self._sent = unsent[-1][0]
            while not self._has_more() and self._unsaid <= MOST_KEPT:
                self._stirred.clear()
                try:
                    async with asyncio.timeout(BEAT):
                        await self._stirred.wait()
                except TimeoutError:
                    if self._beats:
                        break
                    self._missed += 1  # counted by this end's own rounds: it may have been stopped itself
                    if self._missed > MOST_MISSED:
                        return

    def _has_more(self) -> bool:
        return bool(self._kept) and self._kept[-1][0] > self._sent

    async def _read_all(self, connection: socket.socket) -> None:
        while True:
            parts, size = _HEAD.unpack(await _read(connection, _HEAD.size))
            data = memoryview(await _read(connection, parts * _SIZE.size + size))
            sizes = [_SIZE.unpack_from(data, at * _SIZE.size)[0] for at in range(parts)]
            beside = [memoryview(await _read(connection, each)) for each in sizes]
            seen, calls = pickle.loads(data[parts * _SIZE.size :])
            self._missed = 0
            self._note_arrived(seen)
            for number, call in calls:
                if number == self._seen + 1:  # otherwise it had come by an earlier connection
                    self._seen = number
                    self._take(_restored(call, beside))
            self._unsaid += len(data) + sum(sizes)
            if self._unsaid > MOST_KEPT:
                self._stirred.set()

    def _note_arrived(self, number: int) -> None:
        while self._kept and self._kept[0][0] <= number:
            self._kept.popleft()


async def _read(connection: socket.socket, size: int) -> bytearray:
    loop, data = asyncio.get_running_loop(), bytearray(size)
    rest = memoryview(data)
    while rest:
        count = await loop.sock_recv_into(connection, rest)
        if not count:
            raise ConnectionResetError("the other end has closed the connection")
        rest = rest[count:]
    return data


class _Beside(NamedTuple):
    """A stand-in for a part behind the pickle: CPython 3.11 may crash if those of `pickle` are garbage."""

    at: int


def _pack(seen: int, calls: Sequence[tuple[int, Call]]) -> list[Any]:
    """Pack a message as it is written; ``seen`` is the last call received. No big or carried part is copied."""
    beside: list[memoryview] = []

    def mark(part: Any) -> Any:
        if isinstance(part, memoryview) or (isinstance(part, bytes) and len(part) >= APART):
            beside.append(memoryview(part).cast("B"))
            return _Beside(len(beside) - 1)
        return part

    marked = [(number, _mapped(mark, [*call])) for number, call in calls]
    data = pickle.dumps((seen, marked), pickle.HIGHEST_PROTOCOL)
    sizes = b"".join(_SIZE.pack(part.nbytes) for part in beside)
    return [_HEAD.pack(len(beside), len(data)) + sizes + data, *beside]


def _restored(call: list[Any], beside: Sequence[memoryview]) -> Call:
    return tuple(_mapped(lambda part: beside[part.at] if isinstance(part, _Beside) else part, call))


def _mapped(change: Callable[[Any], Any], part: Any) -> Any:
    """Return the part with each of its own parts changed, in lists and dictionaries."""
    if isinstance(part, dict):
        return {key: _mapped(change, contents) for key, contents in part.items()}
    if isinstance(part, list):
        return [_mapped(change, one) for one in part]
    return change(part)


# -- through the engine ------------------------------------------------------------------------------------------------


async def pump(
    connection: socket.socket,
    write: Callable[[bytes], Any],
    read: Callable[[], Any],
) -> None:
    """Copy data from this connection to ``write``, and from ``read`` to it, until one of them ends.

    Closes the connection. Both are awaited; ``read`` returns no bytes if none have come for a while, None at the end.
    """
    loop = asyncio.get_running_loop()
    connection.setblocking(False)

    async def there() -> None:
        while data := await loop.sock_recv(connection, 1 << 22):
            await write(data)

    async def back() -> None:
        while (data := await read()) is not None:
            await loop.sock_sendall(connection, data)

    tasks = [asyncio.create_task(there()), asyncio.create_task(back())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        connection.close()


# -- The introduction of a worker of another engine: its place, and whether its versions fit the parent's. -------------
#
# Plain strings and numbers, so that even a stranger's introduction can be read.

Introduction = Mapping[str, Any]


def introduce() -> Introduction:
    """Return the introduction of this process: its identity and its versions."""
    return {
        "process": process_name(),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "mpqueue": importlib.import_module("mpqueue").__version__,
        "cloudpickle": importlib.metadata.version("cloudpickle"),
    }


def find_difference(own: Introduction, other: Introduction) -> str | None:
    """Return why the two would misunderstand each other, in words; None if they would not."""
    different = [
        f"{name} {other.get(name)} there and {own[name]} here"
        for name in ("python", "mpqueue", "cloudpickle")
        if other.get(name) != own[name]
    ]
    if not different:
        return None
    return (
        f"expected the same versions as here on the worker {other.get('pid')} on {other.get('host')}, got "
        f"{', '.join(different)}; install the same there, since functions and data are sent between them"
    )


# -- Messages about a lane between a program and an agent. -------------------------------------------------------------


def aged(claim: Claim, now: float) -> Claim:
    """Return the claim with its age in place of its time, or back: clocks of two machines can't be compared.

    ``now`` is the time on this machine.
    """
    return claim._replace(since=now - claim.since)


def dump_notice(message: Message, now: float) -> bytes:
    """Pickle a message on the node, whose clock says ``now``. An error that can't be sent is replaced by its text."""
    match message:
        case LaneDied() if message.claim is not None:
            message = message._replace(claim=aged(message.claim, now))
        case LaneStartFailed() if not _can_be_sent(message.error):
            message = message._replace(error=WorkerStartError(text_of(message.error)))
        case FaultFound() if not _can_be_sent(message.error):
            message = message._replace(error=InternalError(text_of(message.error)))
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def load_notice(data: bytes, now: float) -> Message:
    """Unpickle a message in the program, whose clock says ``now``."""
    message: Message = pickle.loads(data)
    if isinstance(message, LaneDied) and message.claim is not None:
        message = message._replace(claim=aged(message.claim, now))
    return message


def _can_be_sent(error: BaseException) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True
