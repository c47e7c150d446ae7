"""Dask as the engine: a lane is a process that has a slot (a thread) of a Dask worker, on any machine.

On each Dask worker's machine is an agent (`mpqueue._engines.agent`), which has a process for each lane. A task that is
bound to the Dask worker, and never retried by Dask, runs there while the lane works, so a slot is busy when its lane
is. It goes on from chunk to chunk until other tasks wait for the slot. All else goes through a connection to the agent;
if the agent can't be reached, through the scheduler: only the connection of a Dask client has to be open.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import math
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from distributed import Client
from distributed.comm import connect
from distributed.utils import LoopRunner
from tornado.ioloop import IOLoop

from mpqueue._core.messages import LaneDied, LanesWanted
from mpqueue._engines.agent import agent_host
from mpqueue._engines.agent.node import Node, NodeLane
from mpqueue._engines.agent.node_pool import CAPABILITIES, CLOSE_LIMIT, NO_WORKER_WAIT_S, NodePool
from mpqueue._engines.dask import dask_side
from mpqueue._engines.dask.dask_side import WorkerThere
from mpqueue._parent.inbox import Inbox
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._text import shown
from mpqueue._wire.memory.ledger import Claim, Phase
from mpqueue.errors import WorkerStartError

_log = logging.getLogger("mpqueue")

#: Seconds between two looks at the workers, and that a look may take.
LOOK_INTERVAL, LOOK_LIMIT = 1.0, 10.0
#: Seconds from the loss of the connection to the first try to restore it, doubled up to the second number.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
#: Seconds without the scheduler after which nodes count as gone: it may have replaced the workers.
CUT_OFF_LIMIT = 300.0
#: Seconds from the loss of a task to the next one.
HOLD_PAUSE = 0.2
#: Seconds between two batches of messages to the scheduler. Dask's own 10 ms suit thousands of tasks; here there are
#: few, and a lane may be idle until the next one comes.
SEND_INTERVAL = 0.001


class Choice:
    """A user's choice: ``workers`` by names, addresses or hosts (None: all), with ``resources`` per slot.

    Raises TypeError or ValueError for anything else.
    """

    def __init__(self, workers: Any, resources: Any) -> None:
        if workers is not None and (isinstance(workers, str) or not all(isinstance(one, str | int) for one in workers)):
            raise TypeError(
                f"workers: expected a list of names, addresses or hosts of Dask workers, got {shown(workers)}"
            )
        for name, amount in (resources or {}).items():
            if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount > 0:
                raise ValueError(f"resources: expected an amount above 0 for {name!r}, got {shown(amount)}")
        self._workers = None if workers is None else frozenset(workers)
        self._resources = dict(resources or {})

    def slots_of(self, address: str, worker: dask_side.WorkerThere) -> int:
        """Return how many slots the worker has for this queue."""
        names = {address, address.partition("://")[2], worker.name, worker.host}
        if self._workers is not None and self._workers.isdisjoint(names):
            return 0
        fitting = [math.floor(worker.resources.get(name, 0.0) / amount) for name, amount in self._resources.items()]
        return min(worker.threads, *fitting) if fitting else worker.threads

    def __str__(self) -> str:
        said = [] if self._workers is None else [f"workers={sorted(self._workers, key=str)}"]
        return ", ".join([*said, *([f"resources={self._resources}"] if self._resources else [])])


class DaskPool(NodePool):
    """The lanes of a queue on Dask, where a node is a Dask worker. Owns the client.

    If the connection to the scheduler is lost, ``connect`` is tried until it succeeds. Running items go on; lanes that
    are wanted meanwhile can't be started. Raises the errors of ``connect``.
    """

    noun = "the Dask worker"
    client: Client
    _io_loop: IOLoop | None = None  #: Dask's view of the event loop, once it runs

    def __init__(
        self,
        connect: Callable[[], Coroutine[Any, Any, Client]],
        choice: Choice,
        settings: LaneSettings,
        inbox: Inbox,
    ) -> None:
        super().__init__("Dask", settings, inbox, counts_slots=True)
        self._connect_client = connect
        self._choice = choice
        self._connection: object = None  #: another scheduler has no tasks of ours
        self._wanted = settings.concurrency
        self._standins = Standins(self)
        self._connected = asyncio.Event()
        self.is_room_awaited = True  #: until the first look, before which nothing is known
        self._held: set[NodeLane] = set()
        try:
            self.client = asyncio.run_coroutine_threadsafe(self._connect_first(), self.loop).result()
        except BaseException:
            self._end()
            raise
        self.soon(self._open)

    async def _connect_first(self) -> Client:
        self._io_loop = IOLoop.current()
        return await self._connect_client()

    def tell_demand(self, lanes: int, seconds: float) -> None:
        """Keep as many stand-in tasks as items wait."""
        self.soon(self._standins.follow, lanes, seconds)

    def close_loop(self) -> None:
        """Close the loop with what Dask leaves open: the connection of a call cancelled while it was being made."""
        if self._io_loop is None:
            super().close_loop()
        else:
            self._io_loop.close(all_fds=True)

    # -- as `NodePool` wants it --------------------------------------------------------------------------------------

    async def call(self, node: Node, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function on the Dask worker's event loop."""
        return (await self.client.run(function, *arguments, workers=[node.name]))[node.name]

    def want_slot(self, lane: NodeLane) -> None:
        """Submit a task that has the slot, for one batch of frames after the other."""
        if lane not in self._held:
            self._held.add(lane)
            self.run(self._hold(lane))

    async def _hold(self, lane: NodeLane) -> None:
        """Hold a slot by one task after the other: others can come in between."""
        try:
            while lane.is_busy and not lane.node.is_lost and not self.is_closed:
                await self._connected.wait()
                try:
                    await self._have_done(lane)
                except Exception as error:
                    _log.info("a slot of %s could not be had: %r", lane.node.title, error)
                    await asyncio.sleep(HOLD_PAUSE)
        finally:
            self._held.discard(lane)

    async def _have_done(self, lane: NodeLane) -> None:
        """Run a task, which Dask does not repeat. Raises its errors, OSError if it is lost."""
        task = self.client.submit(
            dask_side.hold,
            lane.node.token,
            lane.key,
            workers=[lane.node.name],
            allow_other_workers=False,
            pure=False,
            retries=0,
            key=f"mpqueue-{uuid.uuid4().hex}",
        )
        if (error := await task.exception()) is not None:
            raise error
        if task.status != "finished":
            raise ConnectionError(f"the task was {task.status}")

    def look_for_room(self) -> None:
        """Renew the stand-ins: Dask makes room according to the scheduler's waiting items."""
        if self.cut_off_by is not None:
            error = WorkerStartError("the connection to the Dask scheduler is lost, and can't be made anew")
            error.__cause__ = self.cut_off_by
            self.fail_waiting(error)
        self._standins.renew()

    async def give_back(self, node: Node) -> None:
        """Close the agent on that node."""
        if node.token and self.cut_off_by is None:
            await self.ask(node, agent_host.close_agent, node.token)

    async def disconnect(self) -> None:
        """End the stand-ins, and close the client."""
        if self.cut_off_by is None:
            await self._standins.end()
        await self._close_client()

    # -- workers that come and go ------------------------------------------------------------------------------------

    def _open(self) -> None:
        async def notice() -> None:
            self._cut_off(ConnectionError("the scheduler has closed it, or is gone"))

        self.client._reconnect = notice  # noqa: SLF001 - Dask calls nothing else when the connection is lost
        self._connection = self.client.scheduler_comm
        if self.client.scheduler_comm is not None:
            self.client.scheduler_comm.interval = SEND_INTERVAL
        self._connected.set()
        self.run(self._look())

    async def _look(self) -> None:
        """Look at the cluster's workers repeatedly: events of Dask that can't be pickled end a connection."""
        await self.client.run_on_scheduler(dask_side.install)
        while self.cut_off_by is None and not self.is_closed:
            if self.client.status != "running" or self.client.scheduler_comm is not self._connection:
                self._cut_off(ConnectionError("the scheduler has forgotten this program"))
                return
            try:
                async with asyncio.timeout(LOOK_LIMIT):
                    there, gone = await getattr(self.client.scheduler, dask_side.LOOK)(known=list(self.nodes))
            except Exception as error:
                self._cut_off(error)
                return
            self._take_stock(there, gone)
            await asyncio.sleep(LOOK_INTERVAL)

    def _take_stock(self, there: dict[str, Sequence[Any]], gone: dict[str, bool]) -> None:
        for name, in_good_order in gone.items():
            if (node := self.nodes.get(name)) is not None:
                self.lose(node, "the Dask worker has left, or does not answer", innocent=in_good_order)
        for address, told in there.items():
            worker = dask_side.WorkerThere(*told)
            slots = self._choice.slots_of(address, worker)
            if address not in self.nodes and slots:
                self.nodes[address] = Node(self, address, slots, self._host_of(address))
            if (node := self.nodes.get(address)) is not None:
                self._take_pause(node, worker.is_paused)
        total = sum(node.slots for node in self.nodes.values())
        if self.settings.may_grow and total > self._wanted:
            self._wanted = total
            self.post(LanesWanted(total))
        is_first, self.is_room_awaited = self.is_room_awaited, False
        self.serve_waiting()
        if is_first:
            self.tell_absent(awaited=False)

    def _host_of(self, address: str) -> str:
        """Return the host by which this program may reach its agent; empty if that would bypass Dask's encryption."""
        if self.client.direct_to_workers is False or address.startswith("tls://"):
            return ""
        return urlsplit(address).hostname or ""

    def _take_pause(self, node: Node, is_paused: bool) -> None:
        if is_paused and not node.is_paused:
            _log.warning("%s is paused, since it has too little memory: it gets no items", node.title)
        node.is_paused = is_paused
        if is_paused:
            for lane in list(node.lanes.values()):
                if lane.is_ready:
                    lane.observe(functools.partial(self._release_idle, lane))

    def _release_idle(self, lane: NodeLane, claim: Claim) -> None:
        """Free a lane that waits for a slot of a paused worker: its items run elsewhere."""
        if lane.node.is_paused and lane.is_ready and claim.phase is Phase.IDLE:
            lane.end("its Dask worker is paused", LaneDied(*lane.key, lane.pid, innocent=True))

    # -- the connection ----------------------------------------------------------------------------------------------

    def _cut_off(self, error: BaseException) -> None:
        """Note that the scheduler is lost: nothing can be started. Agents finish the work that they have."""
        if self.cut_off_by is not None or self.is_closed:
            return
        self.cut_off_by = error
        self._connected.clear()
        _log.warning("the connection to the Dask scheduler is lost; connecting again: %s", shown(error))
        self._standins.forget()
        self.serve_waiting()
        self.run(self._reconnect())

    async def _reconnect(self) -> None:
        """Connect again, for as long as it takes: other code decides how long jobs wait for workers."""
        pause, since = FIRST_PAUSE, self.now()
        while True:
            await self._close_client()
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
            try:
                self.client = await self._connect_client()
                break
            except Exception as error:  # the next try may succeed
                _log.info("the Dask scheduler can't be reached: %r", error)
            if self.now() > since + CUT_OFF_LIMIT:
                for node in list(self.nodes.values()):
                    self.lose(node, "the Dask scheduler is gone", innocent=True)
        _log.warning("the Dask scheduler is connected again")
        self.cut_off_by = None
        self._open()

    async def _close_client(self) -> None:
        with contextlib.suppress(Exception):  # nothing can be done about that either
            await self.client.close(CLOSE_LIMIT)
        await asyncio.sleep(5 * SEND_INTERVAL)  # a timer of its last message: Dask has to notice it


# -- Tasks that represent a queue's waiting items, so that an adaptive Dask cluster is as large as they need. ----------
#
# Dask's scheduler goes by the tasks that it knows: `adaptive_target` divides their expected time by the
# ``target_duration`` of the cluster, and asks for at most as many workers as there are tasks. It knows one task for
# each of a queue's working lanes. So tasks that no worker can run represent the waiting items: as many as these, up to
# `MAX_TASKS`, with the same total time, by the scheduler's average for tasks of their name.

#: The most tasks; each costs the scheduler 2 kB.
MAX_TASKS = 1000
#: The resource that they need; no worker has it.
NOWHERE = "mpqueue-waits"


class Standins:
    """The stand-in tasks of one pool, on its event loop."""

    def __init__(self, pool: DaskPool) -> None:
        self._pool = pool
        self._name = f"mpqueue_waits_{uuid.uuid4().hex}"
        self._numbers = itertools.count()
        self._tasks: list[Any] = []
        self._demand = 0, 0.0
        self._told = 0.0  #: seconds per task, as the scheduler knows them; 0: unknown
        self._is_telling = False

    def follow(self, lanes: int, seconds: float) -> None:
        """Follow the demand: items for that many lanes wait, and take that many seconds (0: unknown)."""
        self._demand = lanes, seconds
        self.renew()

    def renew(self) -> None:
        """Keep as many tasks as items wait, and as the queue could use workers."""
        if not self._is_telling:
            self._is_telling = True
            self._pool.run(self._tell())

    async def _tell(self) -> None:
        try:
            while (wanted := self._wanted()) != (len(self._tasks), self._told):
                await self._change(*wanted)
        except Exception as error:  # a cluster of fixed size needs none of it
            _log.info("Dask does not know how much work waits: %r", error)
        finally:
            self._is_telling = False

    def _wanted(self) -> tuple[int, float]:
        lanes, seconds = self._demand
        pool = self._pool
        count = min(lanes, MAX_TASKS, *([] if pool.settings.may_grow else [len(pool.waiting)]))
        return count, seconds / count if count and seconds else self._told

    async def _change(self, count: int, each: float) -> None:
        if each != self._told:
            await self._pool.client.run_on_scheduler(dask_side.expect, self._name, each)
            self._told = each
        del self._tasks[count:]  # this releases them
        if count > len(self._tasks):
            keys = [f"{self._name}-{next(self._numbers)}" for _ in range(count - len(self._tasks))]
            self._tasks += self._pool.client.map(
                dask_side.wait_for_items, keys, key=keys, resources={NOWHERE: 1}, pure=False, retries=0
            )

    def forget(self) -> None:
        """Forget the tasks: the scheduler has ended, and has forgotten them."""
        self._tasks.clear()
        self._told = 0.0

    async def end(self) -> None:
        """End the tasks: no items wait any more."""
        self._demand = 0, 0.0
        had_any, self._tasks = bool(self._told or self._tasks), []
        if had_any:
            with contextlib.suppress(Exception):  # there is no scheduler any more
                await self._pool.client.run_on_scheduler(dask_side.expect, self._name, None)


class DaskBackend:
    """Runs a queue's chunks on a Dask cluster: ``JobQueue(concurrency=None, backend=DaskBackend(client))``.

    ``client`` is a `distributed.Client`, a cluster object, or the address of a scheduler. Each queue has a connection
    of its own. The queue uses at most ``concurrency`` slots (threads of Dask workers); None: all, also of workers that
    join later. If a worker leaves, or the connection to the scheduler is lost, no item loses a try, and the connection
    is made again. If there is no worker for ``patience`` seconds, the jobs that wait for one are cancelled, and their
    runs raise `WorkerStartError`. A worker with other versions is left out, with a warning. ``workers`` limits the
    queue to these Dask workers, by their names, addresses or hosts; ``resources={"GPU": 1}`` to those that have that
    much per slot, which does not affect Dask's own tasks.

    While items wait, tasks that can't run represent them on the scheduler, with the expected time, so that an adaptive
    cluster grows as for its own tasks, and shrinks after the job.

    Each slot has a process of its own, beside that of the Dask worker: as on this machine, blame is exact, and a time
    limit or a crash ends only its own item. Needs the extra ``dask``; the workers must have the same versions of
    mpqueue, Python and cloudpickle. A Dask worker that can't start processes is left out, with a warning that gives the
    reason.

    Raises TypeError for anything else, OSError if the scheduler can't be reached.
    """

    def __init__(
        self,
        client: Any,
        *,
        patience: float = NO_WORKER_WAIT_S,
        connect_timeout: float = 30.0,
        workers: Sequence[str | int] | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        self._choice = Choice(workers, resources)
        self._connect_timeout = connect_timeout
        self._held = client  #: a cluster lives as long as it is referenced
        self._address, self._security = _address_of(client)
        self._direct: bool | None = getattr(client, "direct_to_workers", None)
        LoopRunner().run_sync(self._reach)
        self.capabilities = CAPABILITIES._replace(patience=patience)

    async def _connect_in_loop(self) -> Client:
        """Connect from the event loop that calls it. Raises OSError if there is no answer."""
        await self._reach()
        return await self._client(asynchronous=True)

    def _client(self, **options: Any) -> Client:
        return Client(
            self._address,
            security=self._security,
            direct_to_workers=self._direct,
            set_as_default=False,
            name="mpqueue",
            timeout=self._connect_timeout,
            **options,
        )

    async def _reach(self) -> None:
        """Raise OSError if there is no answer: a client that finds out itself leaves its thread behind."""
        options = {} if self._security is None else self._security.get_connection_args("client")
        comm = await connect(self._address, timeout=self._connect_timeout, **options)
        await comm.close()

    def count_workers(self) -> int:
        """Return the current number of slots; at least 1, since others may come."""
        LoopRunner().run_sync(self._reach)
        with self._client() as client:  # one of our own: a user's may belong to an event loop
            there: dict[str, Sequence[Any]] = client.run_on_scheduler(dask_side.look)[0]
        return max(1, sum(self._choice.slots_of(address, WorkerThere(*told)) for address, told in there.items()))

    def open(self, settings: LaneSettings, inbox: Inbox) -> DaskPool:
        """Open a queue's lanes. Connects, which takes 20 ms. Raises `WorkerStartError` if there is no answer."""
        try:
            return DaskPool(self._connect_in_loop, self._choice, settings, inbox)
        except OSError as error:
            raise WorkerStartError(f"the Dask scheduler at {self._address} can't be reached: {error}") from error

    def __repr__(self) -> str:
        choice = str(self._choice)
        return f"DaskBackend({self._address!r}{', ' if choice else ''}{choice})"


def _address_of(client: Any) -> tuple[str, Any]:
    if isinstance(client, str):
        return client, None
    if isinstance(client, Client):
        return str(client.scheduler.address), client.security
    address = getattr(client, "scheduler_address", None)
    if not isinstance(address, str):
        raise TypeError(
            f"client: expected a distributed.Client, a cluster or an address, got {shown(client)} of type "
            f"{type(client).__name__}"
        )
    return address, getattr(client, "security", None)
