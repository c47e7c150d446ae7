"""The process of an agent on a node of a cluster: a host in the engine's own process there starts it.

So other work in the engine's process, which other programs use too, does not delay the agent. It ends with its host,
when the program asks for it, and if the program has lost its connection and made no other for `LEFT_LIMIT` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from multiprocessing.connection import Connection

from mpqueue._engines.agent.agent import CALLS, Agent, LaneKey
from mpqueue._engines.agent.agent_host import Opened, Setup
from mpqueue._engines.agent.link import Call, Link
from mpqueue._os.process.process_signals import ignore_interrupts, leave_now
from mpqueue._parent.kept_errors import text_of
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._wire.memory.segments import can_be_opened, make_anchor

#: Seconds that the first connection may take, the next one after a loss, and the end of everything here.
START_LIMIT, LEFT_LIMIT, CLOSE_LIMIT = 60.0, 5.0, 10.0


def main() -> None:
    """Run the process. Its first argument is the descriptor of the connection to the host."""
    host = Connection(int(sys.argv[1]))
    sys.argv[:] = [""]
    ignore_interrupts()  # the host ends by one, or ignores it
    with contextlib.suppress(EOFError, OSError):  # the host has ended
        asyncio.run(_Service(host, host.recv()).run())
    leave_now()  # even if a thread hangs


class _Service:
    """An agent, from its host's first message to the end of both. On its event loop, except for `_heed_host`."""

    def __init__(self, host: Connection, setup: Setup) -> None:
        self._host = host
        self._setup = setup
        self._agent: Agent | None = None
        self._following: set[asyncio.Task[bool]] = set()

    async def run(self) -> None:
        """Start the agent, and serve it until its end."""
        self._loop = asyncio.get_running_loop()
        self._ending: asyncio.Future[bool] = self._loop.create_future()  #: True: kill running items
        self._link = Link(self._setup.secret, self._take, beats=True)
        self._leaving = self._loop.call_later(START_LIMIT, self._end, True)
        probe, anchor = self._setup.probe, None if self._setup.probe is None else make_anchor()
        with _listen(self._setup.host) as server:
            can_map = probe is not None and can_be_opened(probe)
            host, port, *_ = server.getsockname()
            self._host.send(Opened(host, port, can_map, None if anchor is None else anchor.ref))
            threading.Thread(target=self._heed_host, name="mpqueue-host", daemon=True).start()
            answering = asyncio.create_task(self._answer(server))
            kill = await self._ending
            answering.cancel()
        if self._agent is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._agent.close(kill=kill), CLOSE_LIMIT)

    def _end(self, kill: bool) -> None:
        if not self._ending.done():
            self._ending.set_result(kill)

    # -- the program -------------------------------------------------------------------------------------------------

    def _take(self, call: Call) -> None:
        name, *arguments = call
        if name == "close":
            self._end(*arguments)
        elif name == "begin":
            self._begin(*arguments)
        elif name in CALLS and self._agent is not None:
            self._agent.guarded(getattr(self._agent, name), *arguments)

    def _begin(self, settings: LaneSettings) -> None:
        why = None
        try:
            self._agent = Agent(settings, self._tell, self._free if self._setup.counts_slots else None)
        except Exception as error:
            why = text_of(error)
        self._tell("began", why)

    def _tell(self, *call: object) -> None:
        self._link.send(call)

    async def _answer(self, server: socket.socket) -> None:
        """Accept the program's connections."""
        while True:
            connection, _ = await self._loop.sock_accept(server)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            following = asyncio.create_task(self._link.follow(connection))
            self._following.add(following)
            following.add_done_callback(self._lost)
            self._leaving.cancel()

    def _lost(self, following: asyncio.Task[bool]) -> None:
        self._following.discard(following)
        if not following.cancelled():
            following.exception()  # it may not have been the program
        if not self._following:
            self._leaving = self._loop.call_later(LEFT_LIMIT, self._end, True)

    # -- the host ----------------------------------------------------------------------------------------------------

    def _free(self, lane: LaneKey) -> None:
        with contextlib.suppress(OSError):
            self._host.send(lane)

    def _heed_host(self) -> None:
        """Follow the host's orders, until it has ended. On a thread of its own."""
        with contextlib.suppress(EOFError, OSError, RuntimeError):
            while True:
                name, *arguments = self._host.recv()
                if self._agent is not None:
                    call = self._agent.hold if name == "hold" else self._agent.want
                    self._loop.call_soon_threadsafe(call, *arguments)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, True)


def _listen(host: str) -> socket.socket:
    """Listen at an address that the program can reach; if there is none, only for the host."""
    for address in filter(None, (host, "127.0.0.1")):
        try:
            family, *_, where = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
            server = socket.create_server((where[0], 0), family=family)
        except OSError:  # its name is not its own, as in a container
            continue
        server.setblocking(False)
        return server
    raise OSError("expected to be allowed to listen on 127.0.0.1")
