"""The host of agents, in a process of the cluster's engine on a node; the engine calls it. It knows no engine.

It starts the agent's process, passes the engine's slots to it, and relays messages that the program can't send itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NamedTuple

from mpqueue._os.system import monotonic
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._wire.memory.segments import SegmentRef
from mpqueue.errors import WorkerStartError

_START = "import sys; sys.path[:] = sys.argv[2:]; from mpqueue._engines.agent.agent import main; main()"
#: Seconds that an agent may take to start; and between two looks whether others want a slot, which no engine reports.
START_LIMIT, LOOK_INTERVAL = 60.0, 0.05
#: Seconds after which a lane gives up its slot even if no other wants it: others may be invisible from here.
HOLD_LIMIT = 5.0
#: The most seconds that a call waits for data to relay, and between two calls.
RELAY_WAIT, RELAY_LIMIT = 10.0, 30.0


class Setup(NamedTuple):
    """The settings of a new agent."""

    secret: bytes  #: the program has to know it
    host: str  #: of this node, by which the program may reach it; empty: only through the engine
    counts_slots: bool  #: lanes have to be held
    probe: SegmentRef | None  #: a segment of the program
    settings: LaneSettings  #: of its workers


class Opened(NamedTuple):
    """An agent's address, and whether it shares memory with the program."""

    host: str
    port: int
    shares_memory: bool  #: its workers can open segments of the program: they are on its machine


_hosts: dict[str, AgentHost] = {}
_relays: dict[str, _Relay] = {}


async def open_agent(token: str, setup: Setup) -> Opened:
    """Start an agent, known by that token. Raises `WorkerStartError` if that is not possible, TimeoutError if slow."""
    host = _hosts[token] = await asyncio.to_thread(AgentHost, setup)
    return host.opened


def close_agent(token: str) -> None:
    """End the agent, and everything that runs there."""
    if (host := _hosts.pop(token, None)) is not None:
        host.close()


def hold(token: str, lane: tuple[int, int], is_wanted: Callable[[], bool]) -> None:
    """Let that lane work in a slot of the engine; returns when the lane no longer needs it. Raises LookupError."""
    _host(token).hold(lane, is_wanted)


def _host(token: str) -> AgentHost:
    host = _hosts.get(token)
    if host is None or host.is_gone:
        raise LookupError("this agent is gone")
    return host


class AgentHost:
    """The host of one agent. Made and used on any thread; `hold` blocks."""

    def __init__(self, setup: Setup) -> None:
        self.is_gone = False
        self._changed = threading.Condition()
        self._held: set[tuple[int, int]] = set()
        self._socket, theirs = socket.socketpair()
        self._connection = Connection(os.dup(self._socket.fileno()))
        try:
            with theirs:
                self._process = _start(theirs.fileno())
            self.opened = self._begin(setup)
        except BaseException:
            self._free()
            raise
        threading.Thread(target=self._watch, name="mpqueue-agent-host", daemon=True).start()

    def _begin(self, setup: Setup) -> Opened:
        try:
            self._connection.send(setup)
            answer = self._connection.recv() if self._connection.poll(START_LIMIT) else None
        except (EOFError, OSError) as error:
            answer = WorkerStartError(f"the agent's process has ended as soon as it was started ({error!r})")
        if isinstance(answer, Opened):
            return answer
        self._process.kill()
        self._process.wait()
        raise answer or TimeoutError(f"the agent's process has not started within {START_LIMIT:g} s")

    def hold(self, lane: tuple[int, int], is_wanted: Callable[[], bool]) -> None:
        """Let that lane work in a slot until it no longer needs it; asks the agent for it once others want it."""
        with self._changed:
            self._held.add(lane)
            self._connection.send(("hold", lane, [*sys.path]))
            has_said, until = False, monotonic() + HOLD_LIMIT
            while lane in self._held and not self.is_gone:
                self._changed.wait(None if has_said else LOOK_INTERVAL)
                if not has_said and (is_wanted() or monotonic() >= until):
                    has_said = True
                    with contextlib.suppress(OSError):
                        self._connection.send(("want", lane))

    def _watch(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                lane = self._connection.recv()
                with self._changed:
                    self._held.discard(lane)
                    self._changed.notify_all()
        with self._changed:
            self.is_gone = True
            self._changed.notify_all()
        self._process.wait()
        self._free()

    def close(self) -> None:
        """End the agent, and everything that runs there."""
        with contextlib.suppress(OSError):  # it may have ended
            self._socket.shutdown(socket.SHUT_RDWR)

    def _free(self) -> None:
        with self._changed:  # `hold` may be about to use them
            self._connection.close()
            self._socket.close()


def _start(connection: int) -> subprocess.Popen[bytes]:
    # As `multiprocessing` starts its own.
    arguments = [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined] # noqa: SLF001
    try:
        return subprocess.Popen(
            [*arguments, "-c", _START, str(connection), *sys.path],
            stdin=subprocess.DEVNULL,
            pass_fds=[connection],
            process_group=0,  # the engine handles signals to its group
        )
    except OSError as error:
        raise WorkerStartError(
            f"expected to be allowed to start processes there, for workers, got {error}; raise its limit of processes: "
            "`ulimit -u`, TasksMax= of its service, --pids-limit of its container"
        ) from error


# -- relays ------------------------------------------------------------------------------------------------------------


@dataclass
class _Relay:
    connection: socket.socket
    reading: asyncio.Task[bytes] | None = None  #: so that no data are lost if no call waits for them any more
    leaving: asyncio.TimerHandle | None = None  #: ends it if the program does not ask for a while


async def open_relay(token: str, relay: str) -> None:
    """Connect to the agent, for a program that can't. Raises LookupError if the agent has ended."""
    opened = _host(token).opened
    connection = socket.create_connection((opened.host, opened.port))
    connection.setblocking(False)
    _relays[relay] = _Relay(connection)


async def write_relay(relay: str, data: bytes) -> None:
    """Pass bytes on to the agent. Raises LookupError if the relay has ended."""
    await asyncio.get_running_loop().sock_sendall(_relays[relay].connection, data)


async def read_relay(relay: str) -> bytes | None:
    """Return the received bytes; none after `RELAY_WAIT` seconds, None at the end."""
    there, loop = _relays[relay], asyncio.get_running_loop()
    if there.leaving is not None:
        there.leaving.cancel()
    there.leaving = loop.call_later(RELAY_LIMIT, _close_relay, relay)
    if there.reading is None:
        there.reading = loop.create_task(loop.sock_recv(there.connection, 1 << 22))
    if not (await asyncio.wait([there.reading], timeout=RELAY_WAIT))[0]:
        return b""
    reading, there.reading = there.reading, None
    try:
        return reading.result() or None
    except OSError:
        return None


def _close_relay(relay: str) -> None:
    there = _relays.pop(relay)
    if there.reading is not None:
        there.reading.cancel()
    there.connection.close()
