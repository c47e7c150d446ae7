"""The lanes of a queue on Dask. All that happens to them happens on the client's event loop, so there is no lock."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from distributed import Client
from tornado.ioloop import IOLoop

from mpqueue._core.messages import (
    BellRung,
    FaultFound,
    LaneAbsent,
    LaneBroken,
    LaneDied,
    LaneReady,
    LaneStartFailed,
    LanesWanted,
    MemoryRead,
)
from mpqueue._engines.agent.notices import AnswersWait, Crowded, Notice, load_notice
from mpqueue._engines.dask import dask_side
from mpqueue._engines.dask.dask_host import Choice, Host, reason_of
from mpqueue._engines.dask.dask_lane import DaskLane, is_lost
from mpqueue._engines.dask.host_line import HostLine
from mpqueue._engines.dask.standins import Standins
from mpqueue._engines.hosted_lane import HostedPool
from mpqueue._parent.lane_protocol import LaneSettings, Post
from mpqueue._parent.own_faults import found
from mpqueue._wire.memory import shared
from mpqueue._wire.memory.ledger import Phase
from mpqueue._wire.memory.segments import CommonSegment, can_be_opened, make_anchor
from mpqueue._wire.memory.shared import Shared, lend_own, parts_of
from mpqueue.errors import WorkerStartError, shown

_log = logging.getLogger("mpqueue")

LaneNotice = LaneReady | LaneStartFailed | LaneDied | LaneBroken | BellRung

#: Seconds from the loss of the connection to the first try to make it anew, doubled up to the second figure.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
#: Seconds that a Dask worker may take to begin the task that opens an agent there.
AGENT_LIMIT = 300.0
#: Seconds that closing takes at most.
CLOSE_LIMIT = 5.0
#: Seconds of them that agents have to close.
AGENTS_LIMIT = 4.0
#: Seconds that answers of a dead worker, which are on their way, may take.
ANSWERS_LIMIT = 10.0
#: Seconds that a shared object stays with Dask after an agent has copied it, for other agents.
KEEP_SCATTERED = 10.0
#: Seconds between two lots of messages to the scheduler. Dask's own 10 ms suit thousands of tasks; here there are few,
#: and a lane may stand idle until the next one comes.
SEND_INTERVAL = 0.001

CROWDED = (
    "the Dask worker %s can't start processes, so handlers run in its own: a time limit or a crash of one ends all "
    "that runs there (%s)"
)


class DaskPool(HostedPool[DaskLane]):
    """Satisfies `lane_protocol.LanePool`. Owns the event loop and its thread, and the client.

    Where the connection to the scheduler is lost, all lanes end blameless, and it is made anew by ``connect``, until
    that succeeds. Lanes that are wanted meanwhile can't be started, for that reason. Raises what ``connect`` raises.
    """

    client: Client
    _io_loop: IOLoop | None = None  #: Dask's view of the event loop, once it runs

    def __init__(
        self,
        connect: Callable[[], Coroutine[Any, Any, Client]],
        choice: Choice,
        settings: LaneSettings,
        post: Post,
    ) -> None:
        super().__init__("mpqueue-dask", post)
        self._connect = connect
        self._choice = choice
        self._connection: object = None  #: the scheduler has forgotten all of ours where it is another one
        self.name = f"mpqueue-{uuid.uuid4().hex}"
        self._settings = settings
        self._wanted = settings.concurrency
        self._numbers = itertools.count()
        self._hosts: dict[str, Host] = {}
        self._agents: dict[str, Host] = {}  #: by the agent's token
        self._gone: set[str] = set()  #: workers that an answer under way may still speak of
        self._waiting: deque[tuple[int, int]] = deque()
        self._scattered: weakref.WeakKeyDictionary[Shared[Any], asyncio.Task[Any]] = weakref.WeakKeyDictionary()
        self._standins = Standins(self)
        self._probe: CommonSegment | None = None  #: what hosts try to map
        self._looks = 0  #: how many looks are wanted, with the one under way
        self._looked = False
        self._cut_off_by: BaseException | None = None  #: there is no connection to the scheduler
        self.is_closed = False
        try:
            self.client = asyncio.run_coroutine_threadsafe(self._connect_first(), self._loop).result()
        except BaseException:
            self.end_loop(CLOSE_LIMIT)
            raise
        self._probe = make_anchor()
        self.soon(self._open)

    async def _connect_first(self) -> Client:
        self._io_loop = IOLoop.current()
        return await self._connect()

    # -- from any thread -------------------------------------------------------------------------------------

    def start(self, number: int, generation: int) -> None:
        """See `LanePool.start`."""
        self.soon(self._want, number, generation)

    def tell_demand(self, lanes: int, seconds: float) -> None:
        """See `DemandPool.tell_demand`."""
        self.soon(self._standins.follow, lanes, seconds)

    def retire(self, number: int) -> None:
        """See `LanePool.retire`."""
        lane = self._lanes.pop(number, None)
        if lane is not None:
            self.soon(self._free, lane)

    def close(self, *, kill: bool) -> None:
        """See `LanePool.close`. On the event loop's own thread, where a finalizer may run, it does not wait."""
        if self.is_closed:
            return
        self.is_closed = True
        closing = asyncio.run_coroutine_threadsafe(self._close_all(kill=kill), self._loop)
        if self.is_loop_thread:
            closing.add_done_callback(lambda _: self._end())
            return
        with contextlib.suppress(Exception):  # it has said what it waited for
            closing.result(3 * CLOSE_LIMIT)
        self._end()

    def close_loop(self) -> None:
        """With it, what Dask leaves open: the connection of a call that was cancelled while it was being made."""
        if self._io_loop is None:
            super().close_loop()
        else:
            self._io_loop.close(all_fds=True)

    def _end(self) -> None:
        self.end_loop(CLOSE_LIMIT)
        self._probe = None
        self._lanes.clear()

    # -- on the event loop -----------------------------------------------------------------------------------

    async def ask(self, address: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have a Dask worker call something. Raises what it raises, OSError where it is gone: after 30 s."""
        return (await self.client.run(function, *arguments, workers=[address]))[address]

    async def have_done(self, host: Host, function: Callable[..., Any], *arguments: Any, key: str | None = None) -> Any:
        """Have a Dask worker do a task, which Dask does not repeat; it is forgotten when the future is, which returns.

        Raises what it raises, OSError where it is lost.
        """
        task = self.client.submit(
            function,
            *arguments,
            workers=[host.address],
            allow_other_workers=False,
            pure=False,
            retries=0,
            key=key or f"mpqueue-{uuid.uuid4().hex}",
        )
        error = await task.exception()
        if error is not None:
            raise error
        if task.status != "finished":
            raise ConnectionError(f"the task was {task.status}")
        return task

    async def bring(self, host: Host, shared: Shared[Any]) -> None:
        """Have the agent there have it; once for all lanes."""
        under_way = host.brought.get(shared)
        if under_way is None or (under_way.done() and under_way.exception()):
            under_way = host.brought[shared] = self.begin_task(self._bring(host, shared))
        await asyncio.shield(under_way)

    async def _bring(self, host: Host, shared: Shared[Any]) -> None:
        if host.can_map:
            await self.have_done(host, dask_side.bring, host.token, lend_own(shared))
            return
        while True:
            data = await self.scatter_shared(shared)
            try:
                await self.have_done(host, dask_side.bring, host.token, data)
            except Exception:
                if host.lost.is_set() or not is_lost(data):
                    raise
            else:
                self._loop.call_later(KEEP_SCATTERED, self._drop, weakref.ref(shared), data)
                return  # else the only worker that had this data is gone

    async def scatter_shared(self, shared: Shared[Any]) -> Any:
        """It as data of Dask's, which leaves this process once, as long as no worker that has it is lost."""
        under_way = self._scattered.get(shared)
        if under_way is None or (under_way.done() and (under_way.exception() or is_lost(under_way.result()))):
            under_way = self._scattered[shared] = self.begin_task(self._scatter(shared))
        return await asyncio.shield(under_way)

    async def _scatter(self, shared: Shared[Any]) -> Any:
        data = dask_side.Scattered(await asyncio.to_thread(parts_of, shared))
        connected = [host.address for host in self._hosts.values() if host.line is not None and host.line.is_connected]
        if connected:
            with contextlib.suppress(OSError, ValueError):  # one that can be reached no more, or is gone
                return await self.client.scatter(data, workers=connected, direct=True, hash=False)
        return await self.client.scatter(data, hash=False)

    def _drop(self, shared: weakref.ref[Shared[Any]], data: Any) -> None:
        """Agents have copies of their own: Dask's is not needed any more."""
        if (kept := shared()) is None or (scattered := self._scattered.get(kept)) is None:
            return
        if scattered.done() and scattered.exception() is None and scattered.result() is data:
            del self._scattered[kept]

    def _open(self) -> None:
        self._watch_connection()
        self._connection = self.client.scheduler_comm
        if self.client.scheduler_comm is not None:
            self.client.scheduler_comm.interval = SEND_INTERVAL
        self.client.subscribe_topic("all", self._happened)
        self.client.subscribe_topic(dask_side.TOPIC, self._told)
        self._look_again()

    def _happened(self, event: tuple[float, Any]) -> None:
        """A worker has come or gone, or something else that is not our business."""
        message = event[1]
        action = message.get("action") if isinstance(message, dict) else None
        if action == "add-worker":
            self._gone.discard(message["worker"])
            self._look_again()
        elif action == "remove-worker":
            self._gone.add(message["worker"])
            host = self._hosts.pop(message["worker"], None)
            if host is not None:
                self.run(self._lose(host, expected=bool(message.get("expected"))))

    def _told(self, event: tuple[float, Any]) -> None:
        """An agent has told something; perhaps another queue's."""
        said = event[1]
        host = self._agents.get(said["agent"]) if said["pool"] == self.name else None
        if host is None or host.lost.is_set():
            return
        try:
            notice = load_notice(said["notice"], self.now())
        except Exception as error:
            notice = found("while it read what an agent told", error)
        self._heed(host, notice)

    def _heed(self, host: Host, notice: Notice) -> None:
        match notice:
            case Crowded(reason):
                host.is_crowded = True
                _log.warning(CROWDED, host.address, reason)
            case AnswersWait():
                if host.line is not None:
                    host.line.collect()
            case MemoryRead() | FaultFound():
                self.post(notice)
            case _:
                lane = host.lanes.get(notice.lane)
                if lane is not None and lane.generation == notice.generation:
                    self._heed_lane(host, lane, notice)
                elif isinstance(notice, LaneReady):  # it is not needed any more
                    self.run(self._order_let_go(host, (notice.lane, notice.generation)))

    def _heed_lane(self, host: Host, lane: DaskLane, notice: LaneNotice) -> None:
        match notice:
            case LaneReady():
                lane.pid = notice.pid
                lane.is_ready = True
                self._lanes[lane.number] = lane
                self.post(notice._replace(fate=host.address if host.slots > 1 else None))
            case LaneStartFailed():
                del host.lanes[lane.number]
                self.run(self._order_let_go(host, lane.key))
                host.failures += 1
                self.post(notice)
            case LaneDied():
                self.run(self._bury(lane, notice))
            case LaneBroken():
                self.post(notice)
            case BellRung():
                lane.fetch_soon()

    def _look_again(self) -> None:
        """One look after the other, so that what a later one says is newer."""
        self._looks += 1
        if self._looks == 1:
            self.run(self._look())

    async def _look(self) -> None:
        """See which workers there are."""
        while self._looks:
            wanted = self._looks
            try:
                there = await self._workers_there()
            except Exception as error:
                self._cut_off(error)
                there = {}
            self._looks = 0 if self._looks == wanted else 1
            self._take_stock(self._choice.slots_of(there))
            self._take_pauses({address for address, worker in there.items() if worker.get("status") == "paused"})
            self._serve_waiting()
            for number, generation in self._waiting:
                self.post(LaneAbsent(number, generation))
            self._standins.renew()

    async def _workers_there(self) -> dict[str, dict[str, Any]]:
        try:
            identity = await self.client.scheduler.identity(n_workers=-1)
        except TypeError:  # older ones tell of all without being asked
            identity = await self.client.scheduler.identity()
        workers: dict[str, dict[str, Any]] = identity["workers"]
        return workers

    def _take_stock(self, there: dict[str, int]) -> None:
        for address in self._hosts.keys() - there.keys():  # it went before its leaving was reported
            self.run(self._lose(self._hosts.pop(address), expected=False))
        for address, slots in there.items():
            if address not in self._hosts and address not in self._gone:
                self._hosts[address] = Host(address, slots)
                self.client.subscribe_topic(address, self._changed)
        self._looked = True
        total = sum(host.slots for host in self._hosts.values())
        if self._settings.may_grow and total > self._wanted:
            self._wanted = total
            self.post(LanesWanted(total))

    def _changed(self, event: tuple[float, Any]) -> None:
        """A worker has another status, or something else that is not our business."""
        if isinstance(event[1], dict) and event[1].get("action") == "worker-status-change":
            self._look_again()

    def _take_pauses(self, paused: set[str]) -> None:
        for host in self._hosts.values():
            was_paused, host.is_paused = host.is_paused, host.address in paused
            if host.is_paused and not was_paused:
                _log.warning(
                    "the Dask worker %s is paused, since it has too little memory: it gets no items", host.address
                )
                self.run(self._empty(host))
            elif was_paused:
                host.stirred.set()

    async def _empty(self, host: Host) -> None:
        """Let go of the lanes of a paused worker, which begins nothing, each as soon as it runs nothing."""
        while host.is_paused and not host.lost.is_set():
            host.stirred.clear()
            for lane in [lane for lane in host.lanes.values() if lane.is_ready]:
                with contextlib.suppress(Exception):  # if it is gone, that is reported elsewhere
                    seen = await lane.control([])
                    if lane.is_ready and (seen is None or seen[1] == Phase.IDLE):
                        lane.end()
                        self.post(LaneDied(lane.number, lane.generation, lane.pid, innocent=True))
            if not any(lane.is_ready for lane in host.lanes.values()):
                return
            await host.stirred.wait()

    @property
    def most_standins(self) -> int | None:
        """How many workers more the queue has lanes for; None: for all that may come."""
        return None if self._settings.may_grow else len(self._waiting)

    @property
    def _is_connected(self) -> bool:
        """False too where the client has a new connection already: what was sent by the other one is lost."""
        return self.client.status == "running" and self.client.scheduler_comm is self._connection

    def _watch_connection(self) -> None:
        """Have it noticed that the connection is lost, also where no lane's call fails for it, since there is none."""
        reconnect = getattr(self.client, "_reconnect", None)  # where a Dask has none, calls that fail have to do
        if reconnect is None:
            return

        async def notice() -> None:
            if any(lane.is_ready for host in self._hosts.values() for lane in host.lanes.values()):
                await reconnect()
            else:
                self._cut_off(ConnectionError("the scheduler has closed it, or is gone"))

        self.client._reconnect = notice  # noqa: SLF001 - Dask calls nothing else then

    def _cut_off(self, error: BaseException) -> None:
        """Without the scheduler there is nothing: what ran there is blameless, and nothing can be started."""
        if self._cut_off_by is not None or self.is_closed:
            return
        self._cut_off_by = error
        _log.warning("the connection to the Dask scheduler is lost; connecting again: %s", shown(error))
        lanes = [lane for host in self._hosts.values() for lane in host.lanes.values()]
        for host in self._hosts.values():
            host.lifeline = None
            host.close_line()
        self._hosts.clear()
        self._agents.clear()
        self._gone.clear()
        self._scattered.clear()
        self._standins.forget()
        for lane in lanes:
            if lane.starting is not None:
                lane.starting.cancel()
            if lane.is_ready:
                lane.end()
                self.post(LaneDied(lane.number, lane.generation, lane.pid, innocent=True))
            elif not lane.is_over:
                self._want(lane.number, lane.generation)
        self._serve_waiting()
        self.run(self._reconnect())

    async def _reconnect(self) -> None:
        """For as long as it takes: how long jobs wait for workers is decided elsewhere."""
        pause = FIRST_PAUSE
        while True:
            await self._close_client()
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
            try:
                self.client = await self._connect()
                break
            except Exception as error:  # the next try may do better
                _log.info("the Dask scheduler can't be reached: %r", error)
        _log.warning("the Dask scheduler is connected again")
        self._cut_off_by = None
        self._open()

    # -- lanes -----------------------------------------------------------------------------------------------

    def _want(self, number: int, generation: int) -> None:
        self._waiting.append((number, generation))
        if not self._looked:
            return
        self._serve_waiting()
        if (number, generation) in self._waiting:
            self.post(LaneAbsent(number, generation))

    def _serve_waiting(self) -> None:
        while self._waiting and self._cut_off_by is not None:
            error = WorkerStartError("the connection to the Dask scheduler is lost, and can't be made anew")
            error.__cause__ = self._cut_off_by
            self.post(LaneStartFailed(*self._waiting.popleft(), error))
        while self._waiting and not self.is_closed and (host := self._free_host()) is not None:
            number, generation = self._waiting.popleft()
            lane = DaskLane(self, host, number, generation)
            host.lanes[number] = lane
            lane.starting = self.run(self._begin(lane))

    def _free_host(self) -> Host | None:
        """A host that is fit for this queue, if there is any; else any host, whose start then fails with the reason."""
        free = [host for host in self._hosts.values() if len(host.lanes) < host.slots and not host.is_paused]
        if any(host.unfit is None for host in self._hosts.values()):
            free = [host for host in free if host.unfit is None]
        return min(free, key=lambda host: (host.failures, len(host.lanes) / host.slots), default=None)

    async def _begin(self, lane: DaskLane) -> None:
        """Have the agent there start the worker; that it has, or has not, comes as a notice."""
        host = lane.host
        try:
            await self._need_agent(host)
            lane.token = host.token
            if not self.is_closed:
                await self._order(host, dask_side.start, lane.key)
        except Exception as error:
            if host.lanes.get(lane.number) is lane and not host.lost.is_set():
                del host.lanes[lane.number]
                self._start_failed(lane, host, error)

    async def _need_agent(self, host: Host) -> None:
        """Until there is one, or the error why there is none."""
        if host.agent is None or (host.agent.done() and host.agent.exception() is not None):
            host.agent = self.begin_task(self._open_agent(host))
        if not (await asyncio.wait([host.agent], timeout=AGENT_LIMIT))[0]:
            raise TimeoutError(f"the Dask worker {host.address} has begun no task within {AGENT_LIMIT:g} s")
        host.agent.result()

    async def _open_agent(self, host: Host) -> None:
        host.check(await self.ask(host.address, dask_side.introduce))
        host.token = f"{self.name}-{next(self._numbers)}"
        host.dropped = len(shared.dropped)
        self._agents[host.token] = host
        on_machine = sum(other.slots for other in self._hosts.values() if other.machine == host.machine)
        await self._try_sharing(host)
        settings = self._settings._replace(
            concurrency=max(1, on_machine), may_grow=False, carries_segments=True, can_open_results=host.shares_memory
        )
        host.lifeline = await self.have_done(
            host, dask_side.open_agent, self.name, host.token, settings, key=f"{host.token}-lifeline"
        )
        host.line = HostLine(self, host.address, host.token)

    async def _try_sharing(self, host: Host) -> None:
        """Find out whether it is on this machine, so that segments need not be carried."""
        if self._probe is not None:
            host.can_map, anchor = await self.ask(host.address, dask_side.try_sharing, host.token, self._probe.ref)
            host.shares_memory = host.can_map and anchor is not None and can_be_opened(anchor)

    async def _order(self, host: Host, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have the agent do something, after what it was to do before."""
        async with host.orders:
            return await self.ask(host.address, function, host.token, *arguments)

    def _start_failed(self, lane: DaskLane, host: Host, error: Exception) -> None:
        """Try another worker, if this one is not fit; else report the reason."""
        reason, is_unfit = reason_of(host, error)
        host.failures += 1
        if not self._is_connected:
            self._cut_off(error)
        elif is_unfit:
            if host.unfit is None:
                host.unfit = reason
                _log.warning("the Dask worker %s is left out: %s", host.address, reason)
            if any(other.unfit is None for other in self._hosts.values()):
                self._want(lane.number, lane.generation)
                return
        self.post(LaneStartFailed(lane.number, lane.generation, reason))

    def _free(self, lane: DaskLane) -> None:
        """Its slot is free again, where that still exists."""
        lane.end()
        host = lane.host
        if host.lanes.get(lane.number) is lane:
            del host.lanes[lane.number]
            if not host.lost.is_set():
                self.run(self._order_let_go(host, lane.key))
        self._serve_waiting()

    async def _order_let_go(self, host: Host, key: tuple[int, int]) -> None:
        with contextlib.suppress(Exception):  # it is gone already
            await self._order(host, dask_side.let_go, key)

    async def _bury(self, lane: DaskLane, died: LaneDied) -> None:
        """A worker is dead: that is reported when all that it had to say is here."""
        await lane.answered(ANSWERS_LIMIT)
        with contextlib.suppress(Exception):  # it is lost with the Dask worker
            await lane.hand_in_rest(await self.ask(lane.host.address, dask_side.last_words, lane.token, lane.key))
        if lane.is_ready:  # it was not lost, or dropped, meanwhile
            lane.end()
            self.post(died)

    async def _lose(self, host: Host, *, expected: bool) -> None:
        """A Dask worker is gone, with all its lanes: by what one of them ran, or by something else."""
        host.lost.set()
        host.stirred.set()
        with contextlib.suppress(Exception):
            self.client.unsubscribe_topic(host.address)
        self._agents.pop(host.token, None)
        if host.agent is not None:
            host.agent.cancel()
        host.close_line()
        for lane in host.lanes.values():
            if not lane.is_ready and not lane.is_over:
                if lane.starting is not None:
                    lane.starting.cancel()  # else it would wait for half a minute for an answer
                self._want(lane.number, lane.generation)
        lanes = [lane for lane in host.lanes.values() if lane.is_ready]
        busy = [lane for lane in lanes if lane.is_busy]
        for lane in lanes:
            innocent = expected or lane not in busy or host.killed_for not in (None, lane)
            lane.end()
            self.post(LaneDied(lane.number, lane.generation, lane.pid, alone=len(busy) <= 1, innocent=innocent))

    def drop(self, lane: DaskLane, error: Exception) -> None:
        """Its calls fail although its process lives on: let go of the lane, and tell."""
        if not self._is_connected:
            self._cut_off(error)
        elif lane.is_ready and not lane.host.lost.is_set():
            _log.warning("the Dask worker %s does not carry out its commands: %s", lane.host.address, shown(error))
            busy = lane.is_busy
            lane.end()
            self.post(LaneDied(lane.number, lane.generation, lane.pid, innocent=not busy))

    def kill(self, lane: DaskLane, dump_stack: bool) -> None:
        """Kill the worker."""
        host = lane.host
        if lane.is_ready and not host.lost.is_set():
            if host.is_crowded:
                host.killed_for = host.killed_for or lane
            self.run(self._kill(lane, dump_stack))

    async def _kill(self, lane: DaskLane, dump_stack: bool) -> None:
        try:
            await self.ask(lane.host.address, dask_side.kill, lane.token, lane.key, dump_stack)
        except Exception as error:  # most likely it is lost, which is about to be reported
            await lane.break_off(error)

    async def _close_all(self, *, kill: bool) -> None:
        try:
            await asyncio.wait_for(self._close(kill=kill), CLOSE_LIMIT)
        except Exception as error:
            _log.warning("closing goes on without an answer of the Dask cluster: %s", shown(error))
        await self._close_client()

    async def _close(self, *, kill: bool) -> None:
        self._waiting.clear()
        await self._standins.end()
        hosts = [host for host in self._hosts.values() if host.lifeline is not None]
        closing = [self.ask(host.address, dask_side.close_agent, host.token, kill) for host in hosts]
        if closing:  # one that is going away may not answer
            await asyncio.wait([self.begin_task(one) for one in closing], timeout=AGENTS_LIMIT)
        for host in self._hosts.values():
            for lane in host.lanes.values():
                lane.end()
            host.lifeline = None
            host.close_line()
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        self._scattered.clear()
        for topic in ("all", dask_side.TOPIC, *self._hosts):
            with contextlib.suppress(Exception):
                self.client.unsubscribe_topic(topic)

    async def _close_client(self) -> None:
        with contextlib.suppress(Exception):  # as little can be done about it
            await self.client.close(CLOSE_LIMIT)
        await asyncio.sleep(5 * SEND_INTERVAL)  # a timer of its last message: Dask has to read that it went off
