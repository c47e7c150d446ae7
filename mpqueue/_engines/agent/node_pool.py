"""The lanes of a queue on the nodes of a cluster, for every engine; a subclass, its cable, connects to the engine.

An engine implements the abstract methods of `NodePool`. It reports its nodes (`nodes`, `lose`), calls functions in its
own process there (`ask`), and gives and takes slots, if it counts them. All else goes by a `Link` from here to the
agent on each node.

All of it runs on the pool's event loop, so there is no lock.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import functools
import ipaddress
import logging
import secrets
import socket
import threading
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from mpqueue._core.messages import (
    FaultFound,
    LaneAbsent,
    LaneDied,
    LaneReady,
    LaneStartFailed,
    MemoryRead,
    Message,
)
from mpqueue._engines.agent import agent_host, link
from mpqueue._engines.agent.agent_host import Opened, Setup
from mpqueue._engines.agent.link import AWAY_LIMIT, CONNECT_LIMIT, Link, pump
from mpqueue._engines.agent.node import Node, NodeLane
from mpqueue._os.system import IS_LINUX
from mpqueue._parent.inbox import Inbox, SystemClock, found
from mpqueue._parent.lane_protocol import Capabilities, LaneSettings
from mpqueue._wire.memory.segments import make_anchor
from mpqueue.errors import WorkerStartError, shown

_log = logging.getLogger("mpqueue")

#: Seconds without any worker after which waiting jobs are interrupted.
NO_WORKER_WAIT_S = 300.0
#: Seconds that a call of the engine may take, and that the start of an agent may take.
ASK_LIMIT, AGENT_LIMIT = 30.0, 300.0
#: Seconds between tries to connect to an agent, doubled up to the second number.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
#: Seconds that agents have to close, and the most that closing takes.
AGENTS_LIMIT, CLOSE_LIMIT = 6.0, 15.0

#: The capabilities of every engine on nodes. A chunk is sent to another machine, and costs more than here: 0.35 to 0.41
#: ms of CPU time were measured, on two threads of which only one runs at a time.
CAPABILITIES = Capabilities(
    can_fork=IS_LINUX,
    is_here=False,
    shares_memory=False,
    chunk_seconds=0.225,
    chunk_bytes=16 << 20,
    chunk_cost=0.4e-3,
    patience=NO_WORKER_WAIT_S,
)


class NodePool(abc.ABC):
    """The lanes of a queue on a cluster: a `lane_protocol.LanePool`. Owns the event loop and its thread.

    ``counts_slots``: a worker gets a frame only while the engine has given its lane a slot.
    """

    noun: str  #: the word for a node
    #: One node that can't be used does not mean that none can.
    is_uniform = False
    is_room_awaited: bool  #: room for waiting lanes is expected, as far as known

    def __init__(self, engine: str, settings: LaneSettings, inbox: Inbox, *, counts_slots: bool) -> None:
        self.engine = engine
        self.inbox = inbox
        self.post = inbox.post  #: notifies the coordinator, on any thread
        self.now = SystemClock().now
        self.settings = settings
        self.nodes: dict[str, Node] = {}
        self.waiting: deque[tuple[int, int]] = deque()  #: lanes without a node: number and generation
        self.cut_off_by: BaseException | None = None  #: why the engine can't be asked
        self.is_closed = False
        self._counts_slots = counts_slots
        self._lanes: dict[int, NodeLane] = {}
        self._probe = make_anchor()  #: a segment that agents try to open
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = threading.Lock()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name=f"mpqueue-{engine.lower()}", daemon=True)
        self._thread.start()

    # -- what an engine has to say -----------------------------------------------------------------------------------

    @abc.abstractmethod
    async def call(self, node: Node, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the engine's process on that node, at most once; it may take any time.

        Raises the function's errors, and OSError, or the engine's error, if the call does not get there.
        """

    def want_slot(self, lane: NodeLane) -> None:  # noqa: B027 - only for engines that count slots
        """Get a slot for a lane that has a frame."""

    @abc.abstractmethod
    def look_for_room(self) -> None:
        """Look for room for lanes that wait, if no present node has any."""

    @abc.abstractmethod
    async def give_back(self, node: Node) -> None:
        """Give the node's slots back; its agent may still run. May raise any exception."""

    @abc.abstractmethod
    async def disconnect(self) -> None:
        """Disconnect from the engine: the pool is closed."""

    @abc.abstractmethod
    def tell_demand(self, lanes: int, seconds: float) -> None:
        """Follow the demand, as in `DemandPool.tell_demand`."""

    # -- from any thread ---------------------------------------------------------------------------------------------

    def start(self, number: int, generation: int) -> None:
        """Let the lane wait for a node with room for it."""
        self.soon(self.want, number, generation)

    def await_starts(self) -> None:  # noqa: B027 - the protocol's
        """Return at once: nodes exist already, or come when there is room for them."""

    def lane(self, number: int) -> NodeLane | None:
        return self._lanes.get(number)

    def recycle(self, number: int) -> None:
        self.retire(number)

    def retire(self, number: int) -> None:
        if (lane := self._lanes.pop(number, None)) is not None:
            self.soon(self._free, lane)

    def close(self, *, kill: bool) -> None:
        """End all workers. On the event loop's own thread, where a finalizer may run, it does not wait."""
        with self._closing:
            if self.is_closed:
                return
            self.is_closed = True
        closing = asyncio.run_coroutine_threadsafe(self._close(kill=kill), self.loop)
        if threading.current_thread() is self._thread:
            closing.add_done_callback(lambda _: self._end())
            return
        try:
            closing.result(CLOSE_LIMIT)
        except Exception as error:
            _log.warning("closing goes on without an answer of %s: %s", self.engine, shown(error))
        self._end()

    def soon(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the event loop, in the order of the calls."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._guarded, call, *arguments)

    def _guarded(self, call: Callable[..., object], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:
            self.post(found("on the event loop of its workers", error))

    def _run_loop(self) -> None:
        self.loop.run_forever()
        self.close_loop()

    def close_loop(self) -> None:
        """Close the loop once it has ended, on its thread."""
        self.loop.close()

    def _end(self) -> None:
        self._lanes.clear()
        self._probe = None
        self.soon(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_LIMIT)

    # -- on the event loop: tasks ------------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine beside everything else. It must not raise: that would be an internal error."""
        task = self.begin_task(work)
        task.add_done_callback(self._tell_fault)
        return task

    def begin_task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine whose value, or error, is awaited elsewhere, or no longer needed."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # otherwise asyncio prints it
        return task

    def _tell_fault(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.post(found("in a task of its workers", error))

    # -- nodes -------------------------------------------------------------------------------------------------------

    async def ask(self, node: Node, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function there, as `call` does, which takes at most `ASK_LIMIT` seconds. Raises TimeoutError."""
        async with asyncio.timeout(ASK_LIMIT):
            return await self.call(node, function, *arguments)

    def lose(self, node: Node, why: str, *, innocent: bool = False) -> None:
        """Remove a node that has ended, or must not be used any more; its items run again elsewhere."""
        if node.is_lost:
            return
        if self.nodes.get(node.name) is node:
            del self.nodes[node.name]
        node.call("close", True)  # where it is there after all
        absent = [lane for lane in node.lanes.values() if not lane.is_ready and not lane.answers.is_closed]
        self.begin_task(self.give_back(node))
        node.lose(why, innocent=innocent)
        for lane in absent:
            self.want(*lane.key)

    async def _open_agent(self, node: Node) -> None:
        difference = link.find_difference(link.introduce(), await self.ask(node, link.introduce))
        if difference is not None:
            raise WorkerStartError(difference)
        node.token, secret = f"mpqueue-{uuid.uuid4().hex}", secrets.token_bytes(32)
        probe = None if self._probe is None else self._probe.ref
        on_machine = sum(other.slots for other in self.nodes.values() if other.host == node.host)
        most = max(1, node.slots, on_machine)
        settings = self.settings._replace(concurrency=most, may_grow=False, carries_segments=True)
        setup = Setup(secret, node.host, self._counts_slots, probe, settings)
        async with asyncio.timeout(AGENT_LIMIT):
            opened = await self.call(node, agent_host.open_agent, node.token, setup)
        node.shares_memory = opened.shares_memory
        node.link = Link(secret, node.take, beats=False)
        node.following = self.run(self._follow(node, opened))

    async def _follow(self, node: Node, opened: Opened) -> None:
        """Keep a connection to the agent, as long as the node exists."""
        assert node.link is not None
        pause, seen_at = FIRST_PAUSE, self.now()
        while self.now() < seen_at + AWAY_LIMIT:
            for way in (self._connect, self._connect_by_engine):
                with contextlib.suppress(PermissionError):
                    connection = await way(node, opened)
                    if connection is not None and await node.link.follow(connection):
                        pause, seen_at = FIRST_PAUSE, self.now()
                        break
                if node.is_lost:
                    return
            if self.is_closed:
                return
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
        self.lose(node, f"it has not answered for {AWAY_LIMIT:g} s")

    async def _connect(self, node: Node, opened: Opened) -> socket.socket | None:
        """Connect to the agent directly. None if that is not possible."""
        if not node.host or (_is_loopback(opened.host) and not node.shares_memory and not _is_loopback(node.host)):
            return None
        family = socket.AF_INET6 if ":" in opened.host else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                await self.loop.sock_connect(connection, (opened.host, opened.port))
        except BaseException as error:
            connection.close()
            if not isinstance(error, OSError):
                raise
            return None
        return connection

    async def _connect_by_engine(self, node: Node, _: Opened) -> socket.socket | None:
        """Connect through the engine's process there.

        None if that is not possible; if it has no agent, the node is lost.
        """
        relay = uuid.uuid4().hex
        try:
            await self.ask(node, agent_host.open_relay, node.token, relay)
        except LookupError:
            self.lose(node, "its agent has ended")
            return None
        except Exception:
            return None
        ours, theirs = socket.socketpair()
        write = functools.partial(self.ask, node, agent_host.write_relay, relay)
        read = functools.partial(self.ask, node, agent_host.read_relay, relay)
        self.begin_task(pump(theirs, write, read))
        return ours

    # -- lanes -------------------------------------------------------------------------------------------------------

    def want(self, number: int, generation: int) -> None:
        """Let that lane wait for a worker."""
        self.waiting.append((number, generation))
        self.serve_waiting()
        if (number, generation) in self.waiting:
            self.post(LaneAbsent(number, generation, awaited=self.is_room_awaited))

    def serve_waiting(self) -> None:
        """Give waiting lanes to nodes that have room."""
        while self.waiting and not self.is_closed and (node := self._free_node()) is not None:
            lane = NodeLane(self, node, *self.waiting.popleft())
            node.lanes[lane.number] = lane
            self.run(self._begin(lane))
        if self.waiting and not self.is_closed:
            self.look_for_room()

    def tell_absent(self, *, awaited: bool) -> None:
        """Report that there is no room for the waiting lanes."""
        for number, generation in self.waiting:
            self.post(LaneAbsent(number, generation, awaited=awaited))

    def fail_waiting(self, error: BaseException, count: int | None = None, *, final: bool = False) -> None:
        """Report that so many of the waiting lanes can have no worker, by default all."""
        for _ in range(len(self.waiting) if count is None else min(count, len(self.waiting))):
            self.post(LaneStartFailed(*self.waiting.popleft(), error, final))

    def _free_node(self) -> Node | None:
        """Return a node that this queue can use, if any; else any node, whose start then fails with the reason."""
        free = [node for node in self.nodes.values() if len(node.lanes) < node.slots and not node.is_paused]
        if any(node.unfit is None for node in self.nodes.values()):
            free = [node for node in free if node.unfit is None]
        return min(free, key=lambda node: (node.failures, len(node.lanes) / node.slots), default=None)

    async def _begin(self, lane: NodeLane) -> None:
        """Begin: the agent there starts the worker, and reports success or failure in a message."""
        node = lane.node
        try:
            if node.opening is None or (node.unfit is not None and node.opening.done()):
                node.opening = self.begin_task(self._open_agent(node))
            await asyncio.shield(node.opening)
            if node.lanes.get(lane.number) is lane:
                node.call("start", lane.key)
        except Exception as error:
            if node.lanes.get(lane.number) is lane and not node.is_lost:
                del node.lanes[lane.number]
                self._start_failed(lane, error)

    def _start_failed(self, lane: NodeLane, error: Exception) -> None:
        """Try another node, if this one can't be used; else report the reason.

        A node that has not answered is lost: what its calls hang on is unknown, and the engine may have it anew.
        """
        node, reason = lane.node, reason_of(lane.node, error)
        node.failures += 1
        if isinstance(reason, WorkerStartError):  # it would fail again
            if node.unfit is None:
                node.unfit = reason
                _log.warning("%s is left out: %s", node.title, reason)
            if any(other.unfit is None for other in self.nodes.values()):
                self.want(*lane.key)
                return
        else:
            self.lose(node, f"no agent could be started there: {shown(reason)}")
        self.post(LaneStartFailed(*lane.key, reason, final=self.is_uniform and node.unfit is not None))

    def heed(self, node: Node, message: Message) -> None:
        """Handle a message of an agent, about a lane or about itself."""
        if isinstance(message, MemoryRead | FaultFound):
            self.post(message)
            return
        lane = node.lanes.get(getattr(message, "lane", -1))
        if lane is None or lane.generation != getattr(message, "generation", -1):
            return
        match message:
            case LaneReady():
                lane.pid, lane.is_ready, lane.used_at = message.pid, True, self.now()
                self._lanes[lane.number] = lane
                message = message._replace(dies_with=node.token if node.slots > 1 else None)
            case LaneStartFailed():
                del node.lanes[lane.number]
                node.call("release_lane", lane.key)
                node.failures += 1
            case LaneDied():
                lane.end("its process has ended", message)
                return
        self.post(message)

    def _free(self, lane: NodeLane) -> None:
        """Free the lane's slot, if that still exists."""
        lane.end("it was let go")
        lane.answers.end()
        if lane.node.lanes.get(lane.number) is lane:
            del lane.node.lanes[lane.number]
            lane.node.call("release_lane", lane.key)
        self.serve_waiting()

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _close(self, *, kill: bool) -> None:
        self.waiting.clear()
        nodes = list(self.nodes.values())
        for node in nodes:
            node.call("close", kill)
        following = [node.following for node in nodes if node.following is not None]
        if following:
            await asyncio.wait(following, timeout=AGENTS_LIMIT)
        giving = [self.begin_task(self.give_back(node)) for node in nodes]
        if giving:
            await asyncio.wait(giving, timeout=AGENTS_LIMIT)
        for node in nodes:
            for lane in node.lanes.values():
                lane.end("the queue is closed")
                lane.answers.end()
        for task in (tasks := self._tasks - {asyncio.current_task()}):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.disconnect()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reason_of(node: Node, error: Exception) -> Exception:
    """Return the error why a worker could not be started there."""
    text = f"{type(error).__name__}: {error}"
    if "No module named 'mpqueue" in text or "Error during deserialization of the task graph" in text:
        return WorkerStartError(f"expected mpqueue on {node.title}, as it is here; install the same there ({text})")
    return error
