"""The lanes of a queue on Ray. All that happens to them happens on an event loop of the pool's, so there is no lock."""

from __future__ import annotations

import asyncio
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
from mpqueue._engines.ray.ray_lane import GuardianHere, GuardianThere, RayLane, call_in, make_seat
from mpqueue._parent.lane_protocol import Post
from mpqueue._text import repr_of
from mpqueue._wire.memory.shared import Shared, to_bring
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
        self._is_cut_off = False  #: the program has shut Ray down
        self._lives: dict[RayLane, asyncio.Task[Any]] = {}
        self._here = GuardianHere()
        self._guardians: dict[str, GuardianThere] = {}  #: by node
        #: By shared object, the one that is in the object store for it, or is being put there.
        self._put: weakref.WeakKeyDictionary[Shared[Any], asyncio.Task[Any]] = weakref.WeakKeyDictionary()
        self._closing = threading.Lock()
        self._is_closed = False
        self.soon(self._watch_over)

    # -- from any thread -------------------------------------------------------------------------------------

    def start(self, number: int, generation: int) -> None:
        """See `LanePool.start`."""
        self.soon(self._start, number, generation)

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

    def _start(self, number: int, generation: int) -> None:
        if self._is_closed:
            return
        if not self.is_connected():
            self._cut_off()
        if self._is_cut_off:
            self.post(LaneStartFailed(number, generation, _shut_down(), final=True))
            return
        lane = RayLane(self, number, generation, uuid.uuid4().hex)
        self._lives[lane] = life = self.run(self._live(lane))
        life.add_done_callback(lambda _: self._lives.pop(lane, None))

    def is_connected(self) -> bool:
        """False where the program has shut Ray down, or has another one by now."""
        return bool(ray.is_initialized() and ray.get_runtime_context().get_node_id() == self._node)

    def _watch_over(self) -> None:
        """An answer of a Ray that was shut down never comes, and no error either: so look."""
        if self.is_connected():
            self._loop.call_later(LOOK_INTERVAL, self._watch_over)
        else:
            self._cut_off()

    def _cut_off(self) -> None:
        """Nothing may be asked of Ray any more, which would start another one; all lanes end blameless."""
        if self._is_cut_off or self._is_closed:
            return
        self._is_cut_off = True
        _log.warning("the program has shut Ray down while a queue uses it")
        for lane, life in list(self._lives.items()):
            was_let_go, lane.is_let_go, lane.actor, lane.guardian = lane.is_let_go, True, None, None
            life.cancel()
            lane.end(ChildProcessError("Ray was shut down"))
            if was_let_go:
                continue
            if self._lanes.get(lane.number) is lane:
                self.post(LaneDied(lane.number, lane.generation, lane.pid, innocent=True))
            else:
                self.post(LaneStartFailed(lane.number, lane.generation, _shut_down(), final=True))

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
        lane.is_ready = True
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
        self.post(LaneAbsent(lane.number, lane.generation))

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
            lane.guardian = await self._find_guardian(lane, told["node"], told["ledger"])
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
        for guardian in self._guardians.values() if self.is_connected() else ():
            guardian.end()
        return [f"{len(late)} workers"] if late else []


def _put(shared: Shared[Any]) -> Any:
    return ray.put(to_bring(shared))


def _shut_down() -> WorkerStartError:
    return WorkerStartError(
        "the program has shut Ray down, and a queue on Ray needs it until its end; make a new queue"
    )


def _reason(error: Exception) -> tuple[BaseException, bool]:
    """Why a worker could not be started, and whether it would be no better the next time."""
    if "No module named 'mpqueue" in str(error):
        return WorkerStartError(f"mpqueue is not installed where Ray runs workers: {error}"), True
    return error, False
