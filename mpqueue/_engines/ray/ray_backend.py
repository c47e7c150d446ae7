"""Ray as the engine: a lane is a process in the room of an actor, on any node.

Each node that has room has such an actor, and beside it an agent (`mpqueue._engines.agent`), which has a process for
each lane. All but the start goes through a connection to the agent; if the agent can't be reached, through calls of the
actor.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray._private import state  # the public function lists nodes one by one, by a server that may not run
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mpqueue._engines.agent.node import Node
from mpqueue._engines.agent.node_pool import CAPABILITIES, NO_WORKER_WAIT_S, NodePool, reason_of
from mpqueue._engines.ray.ray_side import RayAgent, where
from mpqueue._parent.inbox import Inbox
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._text import shown
from mpqueue.errors import WorkerStartError

_log = logging.getLogger("mpqueue")

#: Seconds between two looks whether this process is still connected to the same Ray, and which nodes are idle.
LOOK_INTERVAL = 1.0
#: Seconds that the cluster's GCS may be away, say for a restart; a minute after it has gone, Ray ends this program.
#: Bytes that are read from the connection to it at a time.
GCS_LIMIT, CONNECTION_BYTES = 20.0, 4096
#: Seconds after which an idle node gives its room back.
IDLE_SECONDS = 10.0
#: Seconds after which an actor that has not come counts as without room: until then Ray may be starting a process for
#: it.
ROOM_LIMIT = 5.0


class RayPool(NodePool):
    """The lanes of a queue on Ray. A node is an actor, which has room for some workers on one of Ray's nodes.

    ``release`` is called when it is closed.
    """

    noun = "the Ray node"
    is_uniform = True
    is_room_awaited = True  #: `_say_full_later` reports if there is none

    def __init__(
        self, options: dict[str, Any], settings: LaneSettings, inbox: Inbox, release: Callable[[], object]
    ) -> None:
        super().__init__("Ray", settings, inbox, counts_slots=False)
        self._options = options
        self._release = release
        context = ray.get_runtime_context()
        self._session = context.get_node_id()  # no other session has it
        self._gcs: str = context.gcs_address
        self._numbers = itertools.count()
        self._demand = 0  #: for how many more lanes there may be work, as last reported
        self._coming: dict[Node, bool] = {}  #: actors that have not come: whether they are late
        self._placing: asyncio.Task[Any] | None = None
        self._said_full = False  #: it was logged that there is no room
        self.soon(self._watch_over)

    # -- as `NodePool` wants it --------------------------------------------------------------------------------------

    async def call(self, node: Node, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the actor."""
        if not self.is_connected():
            raise ConnectionError("Ray was shut down")
        try:
            return await asyncio.wrap_future(node.handle.call.remote(function, *arguments).future())
        except ActorUnavailableError as error:
            raise ConnectionError(str(error)) from error
        except RayActorError as error:
            raise LookupError(f"the actor has ended: {error}") from error
        except ray.exceptions.RayTaskError as error:
            raise getattr(error, "cause", None) or error from None

    def tell_demand(self, lanes: int, seconds: float) -> None:  # noqa: ARG002 - the protocol's
        self.soon(self._follow_demand, lanes)

    def _follow_demand(self, demand: int) -> None:
        self._demand = demand
        self.serve_waiting()

    async def give_back(self, node: Node) -> None:
        """End the actor."""
        self._coming.pop(node, None)
        if self.is_connected():  # otherwise it would start another Ray
            ray.kill(node.handle)

    async def disconnect(self) -> None:
        """End the actors that are still coming, and release the connection."""
        await self._withdraw()
        self._release()

    # -- room --------------------------------------------------------------------------------------------------------

    def look_for_room(self) -> None:
        """Ask Ray for room for as many workers as there are items for."""
        if not self.is_connected():
            self._cut_off(_shut_down())
        if self.cut_off_by is not None:
            self.fail_waiting(self.cut_off_by, final=True)
        elif self._missing() > 0 and (self._placing is None or self._placing.done()):
            self._placing = self.run(self._place())

    def _missing(self) -> int:
        there = [lane for node in self.nodes.values() for lane in node.lanes.values()]
        coming = sum(node.slots for node, is_late in self._coming.items() if not is_late)
        return min(len(self.waiting), self._demand - sum(not lane.is_busy for lane in there)) - coming

    async def _place(self) -> None:
        """Ask for the room of nodes that have some now, all of a node's together; for the rest, one by one."""
        free: dict[str, int] = {}
        if not self._options.keys() & {
            "num_gpus",
            "scheduling_strategy",
        }:  # Ray names the GPU to the actor that has it
            with contextlib.suppress(Exception):  # it is being shut down
                free = await asyncio.to_thread(free_places, self._options)
        for node, places in free.items():
            if (missing := self._missing()) > 0:
                self._ask_for(min(missing, places), node)
        for _ in range(self._missing()):
            self._ask_for(1)

    def _ask_for(self, workers: int, node: str | None = None) -> None:
        options = times(self._options, workers)
        if node is not None:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
        try:
            # Ray must not retry: the coordinator handles losses.
            actor = ray.remote(max_restarts=0, max_task_retries=0, **options)(RayAgent).remote()
        except Exception as error:
            self.fail_waiting(error, workers)
            return
        coming = Node(self, f"of actor {next(self._numbers)}", workers, "", actor)
        self._coming[coming] = False
        self.run(self._await(coming, can_be_elsewhere=node is not None))

    async def _await(self, node: Node, *, can_be_elsewhere: bool) -> None:
        late = self.run(self._say_full_later(node, can_be_elsewhere))
        try:
            place, node.host = await self.call(node, where)
        except Exception as error:
            if self._coming.pop(node, None) is not None:
                reason = reason_of(node, error)
                self.fail_waiting(reason, node.slots, final=isinstance(reason, WorkerStartError))
            return
        finally:
            late.cancel()
        if self._coming.pop(node, None) is None:  # it was withdrawn
            return
        self._said_full = False
        node.title = f"{self.noun} {place}"
        self.nodes[node.name] = node
        self.serve_waiting()
        if not self.waiting:
            await self._withdraw()

    async def _withdraw(self) -> None:
        """End the actors that are still coming."""
        for node in list(self._coming):
            with contextlib.suppress(Exception):  # Ray itself has ended
                await self.give_back(node)

    async def _say_full_later(self, node: Node, can_be_elsewhere: bool) -> None:
        """Log that there is no room, and whether there would be if nothing else ran; and look for it elsewhere."""
        await asyncio.sleep(ROOM_LIMIT)
        try:
            places = await asyncio.to_thread(count_places, self._options) if self.is_connected() else 0
        except Exception:  # it is being shut down
            places = 0
        if node not in self._coming or self.is_closed:
            return
        if places and not self.nodes and not self._said_full:
            self._said_full = True
            _log.warning(
                "there is no room on Ray now for a worker with %s: other work has it; the queue waits", self._options
            )
        self.tell_absent(awaited=places > 0)
        if can_be_elsewhere:
            self._coming[node] = True
            self.serve_waiting()

    def _give_idle_back(self) -> None:
        due = self.now() - IDLE_SECONDS
        for node in list(self.nodes.values()) if not self._demand else ():
            lanes = node.lanes.values()
            if all(lane.is_ready and lane.used_at < due and not lane.is_busy for lane in lanes):
                self.lose(node, "it had nothing to do", innocent=True)

    # -- the connection ----------------------------------------------------------------------------------------------

    def is_connected(self) -> bool:
        """False if the program has shut Ray down, or has another one by now, or if the cluster has ended."""
        return self.cut_off_by is None and _node() == self._session

    def _watch_over(self) -> None:
        """Check whether Ray was shut down: then neither an answer nor an error ever comes."""
        self.run(self._watch_gcs())
        self._look()

    def _look(self) -> None:
        if self.is_connected():
            self._give_idle_back()
            self.loop.call_later(LOOK_INTERVAL, self._look)
        else:
            self._cut_off(_shut_down())

    async def _watch_gcs(self) -> None:
        """Hold a connection to Ray's GCS: without it, Ray answers nothing, and ends this program after a minute."""
        host, _, port = self._gcs.rpartition(":")
        seen_at = self.now()
        while self.is_connected():
            try:
                async with asyncio.timeout(GCS_LIMIT):  # Python 3.11's `wait_for` may swallow a cancellation
                    reader, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                if self.now() > seen_at + GCS_LIMIT:
                    self._cut_off(_gone(self._gcs))
                await asyncio.sleep(LOOK_INTERVAL)
                continue
            try:
                while await reader.read(CONNECTION_BYTES):
                    pass
            except OSError:
                pass
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            seen_at = self.now()

    def _cut_off(self, error: WorkerStartError) -> None:
        """Stop calling Ray, which would start another one, or wait; all lanes end blameless."""
        if self.cut_off_by is not None or self.is_closed:
            return
        self.cut_off_by = error
        _log.warning("%s", error)
        self._coming.clear()
        for node in list(self.nodes.values()):
            self.lose(node, str(error), innocent=True)
        self.fail_waiting(error, final=True)


def _shut_down() -> WorkerStartError:
    return WorkerStartError(
        "the program has shut Ray down, and a queue on Ray needs it until its end; make a new queue"
    )


def _gone(address: str) -> WorkerStartError:
    return WorkerStartError(
        f"the Ray cluster whose GCS was at {address} is gone: its head node, or gcs_server there, has ended; "
        "Ray ends a program a minute after that, unless it calls ray.shutdown()"
    )


# -- Ray's room for workers with certain options, node by node. All of it asks Ray, which takes a few ms. --------------


def count_places(options: Mapping[str, Any]) -> int:
    """Return how many workers the nodes have room for when nothing else runs there."""
    return sum(_fitting(node["Resources"], options) for node in ray.nodes() if node["Alive"])


def free_places(options: Mapping[str, Any]) -> dict[str, int]:
    """Return how many workers each node has room for now, largest first, without nodes that have none."""
    places = {node: _fitting(there, options) for node, there in state.available_resources_per_node().items()}
    return {node: places[node] for node in sorted(places, key=places.__getitem__, reverse=True) if places[node]}


def times(options: Mapping[str, Any], workers: int) -> dict[str, Any]:
    """Return the options of one actor with the room of that many workers."""
    more = {name: options[name] * workers for name in ("num_cpus", "memory") if options.get(name)}
    if options.get("resources"):
        more["resources"] = {name: amount * workers for name, amount in options["resources"].items()}
    return {**options, **more}


def _fitting(there: Mapping[str, float], options: Mapping[str, Any]) -> int:
    wanted = {"CPU": options.get("num_cpus"), "GPU": options.get("num_gpus"), "memory": options.get("memory")}
    wanted |= options.get("resources") or {}
    return min((math.floor(there.get(name, 0.0) / amount) for name, amount in wanted.items() if amount), default=1)


class RayBackend:
    """Runs a queue's chunks on Ray: ``JobQueue(concurrency=None, backend=RayBackend())``.

    ``address`` is that of `ray.init`: None means the Ray that this process is connected to, else the cluster that
    ``RAY_ADDRESS`` names or that runs on this machine, else a new local one, which ends when the last queue on it is
    closed. An earlier connection stays.

    Each worker needs one CPU; ``worker`` adds or replaces needs, in Ray's terms: ``worker={"num_gpus": 1}``. The
    workers of a node share the room of one actor there; with GPUs, each has its own. ``concurrency=None`` means as many
    as the cluster has room for now; with a larger number the rest waits for new nodes, which an autoscaler sees. As
    many workers start as there are items for; a node that is idle for 10 s gives its room back. If other programs have
    all the room, the queue waits, and logs that. If no worker comes for ``patience`` seconds for another reason, the
    jobs that wait for one are cancelled, and their runs raise `WorkerStartError`.

    As on this machine, blame is exact, and time limits are kept, even for code that holds the global lock. Close the
    queue before you call `ray.shutdown` yourself: Ray does not notify callers that wait for an actor. Needs the extra
    ``ray``; the nodes must have the same versions of mpqueue, Python and cloudpickle.

    Raises TypeError or ValueError for an invalid address, ConnectionError if it can't be reached.
    """

    def __init__(
        self, address: str | None = None, *, worker: Mapping[str, Any] | None = None, patience: float = NO_WORKER_WAIT_S
    ) -> None:
        if address is not None and not isinstance(address, str):
            raise TypeError(f"address: expected a str or None, got {shown(address)} of type {type(address).__name__}")
        if address is not None and address.startswith("ray://"):
            raise ValueError(
                f"address: expected the address of a cluster of which this machine is a node, got {address!r}; run the "
                "program on a node, or with `ray job submit`"
            )
        self._address = address
        self._options = {"num_cpus": 1, **(worker or {})}
        self.capabilities = CAPABILITIES._replace(patience=patience)
        _connection.ensure(address)

    def count_workers(self) -> int:
        """Return how many workers the cluster has room for when nothing else runs there.

        At least 1, since nodes may come.
        """
        _connection.ensure(self._address)
        return max(1, count_places(self._options))

    def open(self, settings: LaneSettings, inbox: Inbox) -> RayPool:
        """Open a queue's lanes. If the last queue has ended a local Ray, this starts one, which takes seconds.

        Raises `WorkerStartError` if Ray can't be reached.
        """
        try:
            _connection.hold(self._address)
        except (OSError, RuntimeError) as error:
            raise WorkerStartError(f"Ray can't be reached: {error}") from error
        return RayPool(self._options, settings, inbox, _connection.release)

    def __repr__(self) -> str:
        return f"RayBackend({'' if self._address is None else repr(self._address)})"


class _Connection:
    """The connection of this process to Ray; there is one at a time. Ended here only if it was made here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._ours: str | None = None  #: the node that was started here; no other session has it

    def ensure(self, address: str | None) -> None:
        """Connect, if this process is not connected."""
        with self._lock:
            self._ensure(address)

    def hold(self, address: str | None) -> None:
        """Connect, and stay so until `release`."""
        with self._lock:
            self._ensure(address)
            self._holders += 1

    def release(self) -> None:
        """End one hold; the last one ends a Ray that was started here."""
        with self._lock:
            self._holders -= 1
            if self._holders == 0 and self._ours is not None:
                with contextlib.suppress(Exception):  # other code has ended it
                    if _node() == self._ours:  # otherwise the program has another one by now
                        ray.shutdown()
                self._ours = None

    def _ensure(self, address: str | None) -> None:
        if ray.is_initialized():
            there = ray.get_runtime_context().gcs_address
            if address not in (None, "auto", "local", there):
                raise ValueError(f"address: expected that of the Ray which this process uses, {there}, got {address!r}")
            return
        # On other threads than the main one it would warn that it can't handle signals.
        is_main = threading.current_thread() is threading.main_thread()
        ray.init(address, include_dashboard=False, logging_level=logging.WARNING if is_main else logging.ERROR)
        self._ours = _node()


def _node() -> str | None:
    """The node of the Ray that this process is connected to."""
    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else None


_connection = _Connection()
