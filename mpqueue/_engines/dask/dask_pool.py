"""The lanes of a queue on Dask. All that happens to them happens on the client's event loop, so there is no lock."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from distributed import Client

from mpqueue._core.messages import LaneAbsent, LaneDied, LaneReady, LaneStartFailed, LanesWanted
from mpqueue._engines.dask.dask_host import Choice, Host, reason_of
from mpqueue._engines.dask.dask_lane import DaskLane, is_lost
from mpqueue._engines.dask.standins import Standins
from mpqueue._engines.hosted_lane import HostedPool, claim_of
from mpqueue._os.process.process_signals import signal_name
from mpqueue._parent.lane_protocol import LaneSettings, Post
from mpqueue._wire.memory.ledger import Phase
from mpqueue._wire.memory.shared import Shared, to_bring
from mpqueue._worker.elsewhere import dask_side
from mpqueue.errors import WorkerStartError

_log = logging.getLogger("mpqueue")

#: Seconds from the loss of the connection to the first try to make it anew, doubled up to the second figure.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
#: Seconds that closing takes at most.
CLOSE_LIMIT = 5.0
#: Seconds of them that workers have to close what they have of the queue.
SEATS_LIMIT = 3.0
#: Seconds that a nanny has to say what its dead worker ran.
LAST_WORDS_LIMIT = 3.0
#: Seconds between two lots of messages to the scheduler. Dask's own 10 ms suit thousands of tasks; here there are few,
#: and a lane may stand idle until the next one comes.
SEND_INTERVAL = 0.001
#: Seconds from an order to kill to the news that the worker is gone.
KILL_LIMIT = 10.0


class DaskPool(HostedPool[DaskLane]):
    """Satisfies `lane_protocol.LanePool`. Owns the event loop and its thread, and the client.

    Where the connection to the scheduler is lost, all lanes end blameless, and it is made anew by ``connect``, until
    that succeeds. Lanes that are wanted meanwhile can't be started, for that reason. Raises what ``connect`` raises.
    """

    client: Client

    def __init__(
        self,
        connect: Callable[[], Coroutine[Any, Any, Client]],
        choice: Choice,
        settings: LaneSettings,
        post: Post,
        *,
        needs_nannies: bool,
    ) -> None:
        super().__init__("mpqueue-dask", post)
        self._connect = connect
        self._choice = choice
        self._connection: object = None  #: the scheduler has forgotten all of ours where it is another one
        self.name = f"mpqueue-{uuid.uuid4().hex}"
        self._settings = settings
        self._needs_nannies = needs_nannies
        self._wanted = settings.concurrency
        self._numbers = itertools.count()
        self._hosts: dict[str, Host] = {}
        self._gone: set[str] = set()  #: workers that an answer under way may still speak of
        self._waiting: deque[tuple[int, int]] = deque()
        self._scattered: weakref.WeakKeyDictionary[Shared[Any], asyncio.Task[Any]] = weakref.WeakKeyDictionary()
        self._standins = Standins(self)
        self._looks = 0  #: how many looks are wanted, with the one under way
        self._looked = False
        self._cut_off_by: BaseException | None = None  #: there is no connection to the scheduler
        self._is_closed = False
        try:
            self.client = asyncio.run_coroutine_threadsafe(connect(), self._loop).result()
        except BaseException:
            self.end_loop(CLOSE_LIMIT)
            raise
        self.soon(self._open)

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
        """See `LanePool.close`. What runs in a worker with a nanny is killed with ``kill``, else left to end."""
        if self._is_closed:
            return
        self._is_closed = True
        closing = asyncio.run_coroutine_threadsafe(self._close_all(kill=kill), self._loop)
        if self.is_loop_thread:
            closing.add_done_callback(lambda _: self._end())
            return
        with contextlib.suppress(Exception):  # it has said what it waited for
            closing.result(3 * CLOSE_LIMIT)
        self._end()

    def _end(self) -> None:
        self.end_loop(CLOSE_LIMIT)
        self._lanes.clear()

    # -- on the event loop -----------------------------------------------------------------------------------

    async def ask(self, address: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have a worker or a nanny call something. Raises what it raises, OSError where it is gone: after 30 s."""
        return (await self.client.run(function, *arguments, workers=[address]))[address]

    async def result_of(self, task: Any) -> Any:
        """What a task returned, fetched for this one alone. Raises what it raised, OSError where that is lost.

        Not by ``await task.result()``: Dask's client makes one request of all that are waited for at a time. A caller
        that gives up waiting for a dead worker's would end it for all, and one dead worker would hold it up for 30 s.
        """
        error = await task.exception()
        if error is not None:
            raise error
        if task.status != "finished":
            raise ConnectionError(f"the task was {task.status}")
        answer = await self.client.scheduler.gather(keys=[task.key])
        if answer["status"] != "OK":
            raise ConnectionError("the worker is gone, and its answer with it")
        return answer["data"][task.key]

    async def scatter_shared(self, shared: Shared[Any]) -> Any:
        """It as data of Dask's, which leaves this process once, as long as no worker that has it is lost."""
        under_way = self._scattered.get(shared)
        if under_way is None or (under_way.done() and (under_way.exception() or is_lost(under_way.result()))):
            under_way = self._scattered[shared] = self.begin_task(self._scatter(shared))
        return await asyncio.shield(under_way)

    async def _scatter(self, shared: Shared[Any]) -> Any:
        data = await asyncio.to_thread(to_bring, shared)
        return await self.client.scatter(data, hash=False)

    def _open(self) -> None:
        self._connection = self.client.scheduler_comm
        if self.client.scheduler_comm is not None:
            self.client.scheduler_comm.interval = SEND_INTERVAL
        self.client.subscribe_topic("all", self._happened)
        self.client.subscribe_topic(dask_side.TOPIC, self._rang)
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

    def _rang(self, event: tuple[float, Any]) -> None:
        bell = event[1]
        lane = self._lanes.get(bell["lane"]) if bell["pool"] == self.name else None
        if lane is not None and lane.generation == bell["generation"]:
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

    def _cut_off(self, error: BaseException) -> None:
        """Without the scheduler there is nothing: what ran there is blameless, and nothing can be started."""
        if self._cut_off_by is not None or self._is_closed:
            return
        self._cut_off_by = error
        _log.warning("the connection to the Dask scheduler is lost; connecting again: %r", error)
        lanes = [lane for host in self._hosts.values() for lane in host.lanes.values()]
        self._hosts.clear()
        self._gone.clear()
        self._scattered.clear()
        self._standins.forget()
        for lane in lanes:
            if lane.starting is not None:
                lane.starting.cancel()
            if lane.is_ready:
                lane.end()
                self.post(LaneDied(lane.number, lane.generation, lane.pid, innocent=True))
            else:
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
        while self._waiting and not self._is_closed and (host := self._free_host()) is not None:
            number, generation = self._waiting.popleft()
            lane = DaskLane(self, host, number, generation, f"{self.name}-{next(self._numbers)}")
            host.lanes[number] = lane
            lane.starting = self.run(self._begin(lane))

    def _free_host(self) -> Host | None:
        """A host that is fit for this queue, if there is any; else any host, whose start then fails with the reason."""
        free = [host for host in self._hosts.values() if len(host.lanes) < host.slots and not host.is_paused]
        if any(host.unfit is None for host in self._hosts.values()):
            free = [host for host in free if host.unfit is None]
        return min(free, key=lambda host: (host.failures, len(host.lanes) / host.slots), default=None)

    async def _begin(self, lane: DaskLane) -> None:
        """Make the worker, and have its nanny look after its ledger."""
        host = lane.host
        try:
            lane.lifeline = await self._tie(lane)
            told = await self.ask(
                host.address, dask_side.open_seat, self.name, lane.token, lane.number, lane.generation, os.getpid()
            )
            host.check(told, needs_nanny=self._needs_nannies)
            host.nanny = told["nanny"]
            if host.nanny is not None:
                lane.has_guardian = await self.ask(host.nanny, dask_side.adopt, lane.token, told["ledger"])
        except Exception as error:
            lane.lifeline = None
            if host.lanes.get(lane.number) is lane and not host.lost.is_set():
                del host.lanes[lane.number]
                self.run(self._close_seats(host, [lane]))
                self._start_failed(lane, host, error)
            return
        lane.pid = told["pid"]
        lane.is_ready = True
        self._lanes[lane.number] = lane
        fate = host.address if host.slots > 1 else None
        self.post(LaneReady(lane.number, lane.generation, lane.pid, fate))

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

    async def _tie(self, lane: DaskLane) -> Any:
        """Have the worker end with this client, however that goes; a task like all that will come."""
        lifeline = self.client.submit(
            dask_side.Lifeline,
            lane.token,
            workers=[lane.host.address],
            allow_other_workers=False,
            pure=False,
            retries=0,
            key=f"{lane.token}-lifeline",
        )
        error = await lifeline.exception()
        if error is not None or lifeline.status != "finished":
            raise error or ConnectionError(f"the worker's first task was {lifeline.status}")
        return lifeline

    def _free(self, lane: DaskLane) -> None:
        """Its slot is free again, where that still exists."""
        lane.end()
        if lane.host.lanes.get(lane.number) is lane:
            del lane.host.lanes[lane.number]
            if not lane.host.lost.is_set():
                self.run(self._close_seats(lane.host, [lane]))
        self._serve_waiting()

    async def _lose(self, host: Host, *, expected: bool) -> None:
        """A worker is gone, with all its lanes."""
        host.lost.set()
        host.stirred.set()
        with contextlib.suppress(Exception):
            self.client.unsubscribe_topic(host.address)
        for lane in host.lanes.values():
            if not lane.is_ready and lane.starting is not None and not lane.starting.done():
                lane.starting.cancel()  # else it would wait for half a minute for an answer
                self._want(lane.number, lane.generation)
        lanes = [lane for lane in host.lanes.values() if lane.is_ready]
        words = await self._last_words(host, lanes)
        busy = [lane for lane in lanes if lane.is_busy]
        for lane in lanes:
            if not lane.is_ready:  # dropped meanwhile
                continue
            is_of_another = host.killed_for not in (None, lane)
            seen = words.claims.get(lane.token)
            lane.end()
            self.post(
                LaneDied(
                    lane.number,
                    lane.generation,
                    lane.pid,
                    exitcode=words.exitcode,
                    signal=signal_name(words.exitcode),
                    claim=None if seen is None else claim_of(seen, self.now()),
                    alone=len(busy) <= 1,
                    innocent=expected or words.was_sent_away or is_of_another or lane not in busy,
                )
            )

    async def _last_words(self, host: Host, lanes: list[DaskLane]) -> dask_side.LastWords:
        tokens = [lane.token for lane in lanes if lane.has_guardian]
        if tokens and host.nanny is not None:
            try:
                asked = self.ask(host.nanny, dask_side.last_words, tokens)
                return await asyncio.wait_for(asked, LAST_WORDS_LIMIT)
            except Exception as error:
                _log.info("the items that the Dask worker %s ran when it ended are unknown: %r", host.address, error)
        return dask_side.LastWords({}, None, was_sent_away=False)

    def drop(self, lane: DaskLane, error: Exception) -> None:
        """Its calls fail although its process lives on: let go of the lane, and tell."""
        if not self._is_connected:
            self._cut_off(error)
        elif lane.is_ready and not lane.host.lost.is_set():
            _log.warning("the Dask worker %s does not carry out its commands: %r", lane.host.address, error)
            busy = lane.is_busy
            lane.end()
            self.post(LaneDied(lane.number, lane.generation, lane.pid, innocent=not busy))

    async def kill(self, lane: DaskLane) -> None:
        """Kill the process that the lane is in, if there is a nanny that can do it."""
        host = lane.host
        if host.lost.is_set() or not lane.is_ready:
            return
        if host.nanny is None:
            self.drop(lane, RuntimeError("it has no nanny who could kill it"))
            return
        host.killed_for = host.killed_for or lane
        try:
            async with asyncio.timeout(KILL_LIMIT):
                with contextlib.suppress(OSError):  # it is gone already
                    await self.ask(host.nanny, dask_side.kill_worker, lane.pid)
                await host.lost.wait()
        except Exception as error:
            self.drop(lane, error)

    async def _close_seats(self, host: Host, lanes: list[DaskLane]) -> None:
        tokens = [lane.token for lane in lanes]
        with contextlib.suppress(Exception):  # it is gone already
            await self.ask(host.address, dask_side.close_seats, tokens)
        if host.nanny is not None:
            with contextlib.suppress(Exception):
                await self.ask(host.nanny, dask_side.forget, tokens)

    async def _close_all(self, *, kill: bool) -> None:
        try:
            await asyncio.wait_for(self._close(kill=kill), CLOSE_LIMIT)
        except Exception as error:
            _log.warning("closing goes on without an answer of the Dask cluster: %r", error)
        await self._close_client()

    async def _close(self, *, kill: bool) -> None:
        self._waiting.clear()
        await self._standins.end()
        work = []
        for host in list(self._hosts.values()):
            lanes = list(host.lanes.values())
            busy = [lane for lane in lanes if lane.is_busy]
            if kill and busy and host.nanny is not None:
                work += [self.ask(host.nanny, dask_side.kill_worker, busy[0].pid)]
                work += [self.ask(host.nanny, dask_side.forget, [lane.token for lane in lanes])]
            elif lanes:
                work.append(self._close_seats(host, lanes))
        if work:  # one that is going away may not answer
            await asyncio.wait([self.begin_task(one) for one in work], timeout=SEATS_LIMIT)
        for host in self._hosts.values():
            for lane in host.lanes.values():
                lane.end()
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        self._scattered.clear()
        for topic in ("all", dask_side.TOPIC, *self._hosts):
            with contextlib.suppress(Exception):
                self.client.unsubscribe_topic(topic)

    async def _close_client(self) -> None:
        with contextlib.suppress(Exception):  # as little can be done about it
            await self.client.close(CLOSE_LIMIT)
