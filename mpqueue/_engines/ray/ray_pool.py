"""The lanes of a queue on Ray. All that happens to them happens on an event loop of the pool's, so there is no lock."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import threading
import uuid
import weakref
from collections.abc import Callable
from typing import Any

import ray

from mpqueue._core.messages import LaneAbsent, LaneDied, LaneReady, LaneStartFailed
from mpqueue._engines.hosted_lane import HostedPool
from mpqueue._engines.ray.ray_lane import GuardianHere, GuardianThere, RayLane, call_in, count_places, make_seat
from mpqueue._parent.lane_protocol import Post
from mpqueue._text import repr_of
from mpqueue._wire.memory import shared as sharing
from mpqueue._wire.memory.shared import Shared, parts_of
from mpqueue._worker.elsewhere import hello
from mpqueue.errors import WorkerStartError

_log = logging.getLogger("mpqueue")

#: Seconds that closing takes at most.
CLOSE_LIMIT = 10.0
#: Seconds that a guardian has to begin its work.
GUARDIAN_LIMIT = 60.0
#: Seconds that killed workers have to be gone.
GONE_LIMIT = 3.0
#: Seconds between two looks whether this process is still connected to the same Ray.
LOOK_INTERVAL = 1.0
#: Seconds that the cluster's GCS may be away, as while it is started again; a minute after it has gone, Ray ends this
#: program. Bytes that are read of the connection to it at a time.
GCS_LIMIT, CONNECTION_BYTES = 20.0, 4096
#: Seconds after which a worker that has nothing to do gives its room back.
IDLE_SECONDS = 10.0
#: Seconds after which a worker that has not come has no room: until then it may be that Ray starts a process for it.
ROOM_LIMIT = 5.0


class RayPool(HostedPool[RayLane]):
    """A `LanePool`. Owns the event loop and its thread; ``release`` is called when it is closed."""

    def __init__(self, options: dict[str, Any], post: Post, release: Callable[[], object]) -> None:
        super().__init__("mpqueue-ray", post)
        self._options = options
        self._release = release
        self._starting: set[RayLane] = set()
        context = ray.get_runtime_context()
        self._node = context.get_node_id()  # which no other session has
        self._gcs: str = context.gcs_address
        self._cut_off_by: WorkerStartError | None = None  #: nothing can be asked of Ray any more
        self._lives: dict[RayLane, asyncio.Task[Any]] = {}
        self._here = GuardianHere()
        self._guardians: dict[str, GuardianThere] = {}  #: by node
        self._dropped = len(sharing.dropped)  #: how many of these guardians know of
        #: By shared object, the one that is in the object store for it, or is being put there.
        self._put: weakref.WeakKeyDictionary[Shared[Any], asyncio.Task[Any]] = weakref.WeakKeyDictionary()
        self._demand = 0  #: how many more lanes could have something to do, as told last
        self._resting: dict[int, int] = {}  #: generations of lanes without a worker that wait for work, by number
        self._said_full = False  #: it was said that there is no room
        self._closing = threading.Lock()
        self._is_closed = False
        self._watching: asyncio.Task[Any] | None = None  #: `_watch_gcs`
        self.soon(self._watch_over)

    # -- from any thread -------------------------------------------------------------------------------------

    def start(self, number: int, generation: int) -> None:
        """See `LanePool.start`."""
        self.soon(self._start, number, generation)

    def tell_demand(self, lanes: int, seconds: float) -> None:  # noqa: ARG002 - the protocol's
        """See `DemandPool.tell_demand`."""
        self.soon(self._follow, lanes)

    def retire(self, number: int) -> None:
        """See `LanePool.retire`."""
        lane = self._lanes.pop(number, None)
        if lane is not None:
            lane.is_let_go = True
            self.soon(self._let_go, lane)

    def close(self, *, kill: bool) -> None:
        """See `LanePool.close`."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        closing = asyncio.run_coroutine_threadsafe(self._close(kill=kill), self._loop)
        if self.is_loop_thread:
            closing.add_done_callback(lambda _: self._end())
            return
        try:
            left = closing.result(CLOSE_LIMIT)
        except Exception as error:
            left = [repr_of(error)]
        if left:
            _log.warning("closing goes on without an answer of Ray about %s", ", ".join(left))
        self._end()

    def _end(self) -> None:
        self._lanes.clear()
        self.end_loop(CLOSE_LIMIT)
        self._release()

    # -- on the event loop -----------------------------------------------------------------------------------

    async def put_shared(self, shared: Shared[Any]) -> Any:
        """What is shared, in the object store: put there once; nodes have it from each other."""
        if not self.is_connected():
            raise ConnectionError("Ray was shut down")
        putting = self._put.get(shared)
        if putting is None or (putting.done() and (putting.cancelled() or putting.exception())):
            putting = self._put[shared] = self.begin_task(asyncio.to_thread(_put, shared))
        return await asyncio.shield(putting)

    def drop_put(self, shared: Shared[Any]) -> None:
        """A node has its own copy now; the code that is still sending it holds what it sends."""
        self._put.pop(shared, None)

    def _drop_lent(self) -> None:
        """What is no longer shared here is no longer lent by guardians."""
        dropped = sharing.dropped[self._dropped :]
        self._dropped += len(dropped)
        for guardian in self._guardians.values() if dropped else ():
            guardian.drop(dropped)

    def _start(self, number: int, generation: int) -> None:
        if self._is_closed:
            return
        if not self.is_connected():
            self._cut_off(_shut_down())
        if self._cut_off_by is not None:
            self.post(LaneStartFailed(number, generation, self._cut_off_by, final=True))
            return
        self._resting[number] = generation
        self._wake()
        if number in self._resting:
            self.post(LaneAbsent(number, generation, awaited=True))

    def _follow(self, demand: int) -> None:
        self._demand = demand
        self._wake()

    def _wake(self) -> None:
        """Start workers for what those that are there, or begin to be, have no hands for."""
        if self._is_closed or self._cut_off_by is not None:
            return
        missing = self._demand - sum(not lane.is_busy for lane in self._lives if not lane.is_let_go)
        for number in sorted(self._resting)[: max(0, missing)]:
            lane = RayLane(self, number, self._resting.pop(number), uuid.uuid4().hex)
            self._lives[lane] = life = self.run(self._live(lane))
            life.add_done_callback(functools.partial(self._end_life, lane))

    def _end_life(self, lane: RayLane, _: object) -> None:
        self._lives.pop(lane, None)

    def _rest_idle(self) -> None:
        """Give back the room of workers that have nothing to do."""
        if self._demand:
            return
        due = self.now() - IDLE_SECONDS
        for lane in [lane for lane in self._lanes.values() if lane.used_at < due and not lane.is_busy]:
            del self._lanes[lane.number]
            lane.is_let_go = True
            self._let_go(lane)
            self.post(LaneDied(lane.number, lane.generation, lane.pid, innocent=True))

    def is_connected(self) -> bool:
        """False where the program has shut Ray down, or has another one by now, or where the cluster is gone."""
        return bool(
            self._cut_off_by is None and ray.is_initialized() and ray.get_runtime_context().get_node_id() == self._node
        )

    def _watch_over(self) -> None:
        """An answer of a Ray that was shut down never comes, and no error either: so look."""
        self._watching = self._watching or self.run(self._watch_gcs())
        if self.is_connected():
            self._rest_idle()
            self._drop_lent()
            self._loop.call_later(LOOK_INTERVAL, self._watch_over)
        else:
            self._cut_off(_shut_down())

    async def _watch_gcs(self) -> None:
        """Without its GCS, Ray answers nothing, and ends this program a minute later: so hold a connection to it."""
        host, _, port = self._gcs.rpartition(":")
        seen_at = self.now()
        while self.is_connected():
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), GCS_LIMIT)
            except (OSError, TimeoutError):
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
        """Nothing may be asked of Ray any more, which would start another one, or wait; all lanes end blameless."""
        if self._cut_off_by is not None or self._is_closed:
            return
        self._cut_off_by = error
        _log.warning("%s", error)
        for number, generation in self._resting.items():
            self.post(LaneStartFailed(number, generation, error, final=True))
        self._resting.clear()
        for lane, life in list(self._lives.items()):
            was_let_go, lane.is_let_go, lane.actor, lane.guardian = lane.is_let_go, True, None, None
            life.cancel()
            lane.end(ChildProcessError(str(error)))
            if was_let_go:
                continue
            if self._lanes.get(lane.number) is lane:
                self.post(LaneDied(lane.number, lane.generation, lane.pid, innocent=True))
            else:
                self.post(LaneStartFailed(lane.number, lane.generation, error, final=True))

    async def _live(self, lane: RayLane) -> None:
        """A worker's life."""
        self._starting.add(lane)
        waiting = self._loop.call_later(ROOM_LIMIT, self._tell_absent, lane)
        try:
            trouble, final = await self._begin(lane)
        finally:
            waiting.cancel()
            self._starting.discard(lane)
        if lane.is_let_go:
            await lane.bury()  # `let_go` could not, if its guardian was found only now
            return
        if trouble is not None:
            await lane.let_go(kill=True)
            self.post(LaneStartFailed(lane.number, lane.generation, trouble, final))
            return
        lane.is_ready, lane.used_at, self._said_full = True, self.now(), False
        self._lanes[lane.number] = lane
        self.post(LaneReady(lane.number, lane.generation, lane.pid))
        await self._mourn(lane, await lane.watch())

    async def _mourn(self, lane: RayLane, error: BaseException) -> None:
        if lane.is_let_go:
            return
        lane.kill_now()
        was_busy = lane.is_busy
        claim = await lane.bury()
        _log.info("worker %d on Ray is gone: %s", lane.number, error)
        lane.end(ChildProcessError("the Ray actor is gone"))
        self.post(LaneDied(lane.number, lane.generation, lane.pid, claim=claim, innocent=not was_busy))

    def _tell_absent(self, lane: RayLane) -> None:
        self.run(self._look_for_room(lane))

    async def _look_for_room(self, lane: RayLane) -> None:
        """Say that there is none, and whether there would be if nothing else ran."""
        places = await asyncio.to_thread(self._count_places)
        if lane not in self._starting or lane.is_let_go:
            return
        if places and not self._lanes and not self._said_full:
            self._said_full = True
            _log.warning(
                "there is no room on Ray now for a worker with %s: other work has it; the queue waits", self._options
            )
        self.post(LaneAbsent(lane.number, lane.generation, awaited=places > 0))

    def _count_places(self) -> int:
        try:
            return count_places(self._options) if self.is_connected() else 0
        except Exception:  # it is being shut down
            return 0

    async def _begin(self, lane: RayLane) -> tuple[BaseException | None, bool]:
        """Make the worker, and have its node's guardian look after it; or why not, and whether that is final."""
        try:
            lane.actor = make_seat(self._options, lane.token, lane.number, lane.generation, os.getpid())
            told = await call_in("control", lane.actor.introduce)
        except Exception as error:
            return _reason(error)
        lane.pid = told["pid"]
        difference = hello.find_difference(hello.introduce(), told)
        if difference is not None:
            return WorkerStartError(difference), True
        try:
            await lane.settle(await self._find_guardian(lane, told["node"], told["ledger"]))
        except Exception as error:
            self._guardians.pop(told["node"], None)
            return _reason(error)
        if lane.guardian is None:
            _log.info("worker %d on Ray can't be looked after: blame is found by running suspects alone", lane.number)
        return None, False

    async def _find_guardian(self, lane: RayLane, node: str, ledger: str) -> GuardianHere | GuardianThere | None:
        """The worker's guardian; None if there can be none, since it is another user's, or in another container."""
        if node == self._node and await self._here.ask("adopt", lane.token, ledger, lane.pid):
            return self._here
        guardian = self._guardians.get(node) or self._guardians.setdefault(node, GuardianThere(self._options, node))
        asked = guardian.ask("adopt", lane.token, ledger, lane.pid)
        return guardian if await asyncio.wait_for(asked, GUARDIAN_LIMIT) else None

    def _let_go(self, lane: RayLane) -> None:
        lane.end(ChildProcessError("the worker was let go"))
        self.run(lane.let_go(kill=False))

    async def _close(self, *, kill: bool) -> list[str]:
        """Ends every worker; returns what is left of them."""
        if self._watching is not None:
            self._watching.cancel()
        lanes = [*self._starting, *self._lanes.values()]
        letting_go = [lane.let_go(kill=kill or lane.is_busy) for lane in lanes]
        await asyncio.gather(*letting_go, return_exceptions=True)
        for lane in lanes:
            lane.end(ChildProcessError("the queue is closed"))
        lives = self._tasks - {asyncio.current_task()}
        late = (await asyncio.wait(lives, timeout=GONE_LIMIT))[1] if lives else set()
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self._here.end()
        for guardian in self._guardians.values() if self.is_connected() else ():
            guardian.end()
        return [f"{len(late)} workers"] if late else []


def _put(shared: Shared[Any]) -> Any:
    return ray.put(parts_of(shared))


def _shut_down() -> WorkerStartError:
    return WorkerStartError(
        "the program has shut Ray down, and a queue on Ray needs it until its end; make a new queue"
    )


def _gone(address: str) -> WorkerStartError:
    return WorkerStartError(
        f"the Ray cluster whose GCS was at {address} is gone: its head node, or gcs_server there, has ended; "
        "Ray ends a program a minute after that, unless it calls ray.shutdown()"
    )


def _reason(error: Exception) -> tuple[BaseException, bool]:
    """Why a worker could not be started, and whether it would be no better the next time."""
    if "No module named 'mpqueue" in str(error):
        return WorkerStartError(f"mpqueue is not installed where Ray runs workers: {error}"), True
    return error, False
