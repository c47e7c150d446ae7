"""A lane on Ray: an actor that is one worker, and the guardian of the machine that it is on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import weakref
from typing import TYPE_CHECKING, Any

import ray

from mpqueue._engines.hosted_lane import HostedLane, claim_of
from mpqueue._wire.memory.ledger import Claim
from mpqueue._wire.memory.shared import Lent, Shared, Token, lend_own
from mpqueue._worker.elsewhere import hosted
from mpqueue._worker.elsewhere.ray_side import GROUPS, GUARDIAN_GROUPS, Guardian, Parcel, RayWorker, pack, unpack
from mpqueue.errors import shown

_log = logging.getLogger("mpqueue")

if TYPE_CHECKING:
    from mpqueue._engines.ray.ray_pool import RayPool

#: Seconds that a guardian has to say what a dead worker ran.
LAST_WORDS_LIMIT = 5.0

#: Never by Ray: a worker or a call that is lost is the coordinator's business.
_ONCE = {"max_restarts": 0, "max_task_retries": 0}


def make_seat(options: dict[str, Any], *arguments: Any) -> Any:
    """An actor that is a worker; it may wait for room."""
    return ray.remote(**_ONCE, concurrency_groups=GROUPS, **options)(RayWorker).remote(*arguments)


def count_places(options: dict[str, Any]) -> int:
    """How many workers with these options the cluster has room for when nothing else runs there. Asks Ray: 1 ms."""
    there = ray.cluster_resources()
    wanted = {"CPU": options.get("num_cpus"), "GPU": options.get("num_gpus"), **(options.get("resources") or {})}
    return min((math.floor(there.get(name, 0.0) / amount) for name, amount in wanted.items() if amount), default=1)


class GuardianHere(Guardian):
    """The guardian of the workers on this process's own machine: nothing has to be sent, and no process is needed."""

    async def ask(self, name: str, *arguments: Any) -> Any:
        """Call one of the methods."""
        if name == "bury":  # waits for the process to end
            return await asyncio.to_thread(self.bury, *arguments)
        return getattr(self, name)(*arguments)

    def end(self) -> None:
        """There is no process to end."""
        self._anchor = None


class GuardianThere:
    """The guardian on another node: an actor, which needs no room."""

    def __init__(self, options: dict[str, Any], node: str) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=False)
        environment = {"runtime_env": options["runtime_env"]} if "runtime_env" in options else {}
        how = {"num_cpus": 0, "concurrency_groups": GUARDIAN_GROUPS, "scheduling_strategy": there, **environment}
        self._actor = ray.remote(**_ONCE, **how)(Guardian).remote()
        self._lent: weakref.WeakKeyDictionary[Shared[Any], asyncio.Task[Lent]] = weakref.WeakKeyDictionary()

    async def ask(self, name: str, *arguments: Any) -> Any:
        """Call one of the methods. Raises what Ray raises where the node is gone."""
        return await asyncio.wrap_future(getattr(self._actor, name).remote(*arguments).future())

    async def lend(self, shared: Shared[Any], pool: RayPool) -> Lent:
        """Have it make a copy for its node, unless it has; a call for each at a time. Raises what Ray raises."""
        lending = self._lent.get(shared)
        if lending is None or (lending.done() and (lending.cancelled() or lending.exception())):
            lending = self._lent[shared] = pool.begin_task(self._lend(shared, pool))
        return await asyncio.shield(lending)

    async def _lend(self, shared: Shared[Any], pool: RayPool) -> Lent:
        lent: Lent = await call_in("copies", self._actor.lend, await pool.put_shared(shared))
        pool.drop_put(shared)
        return lent

    def drop(self, tokens: list[Token]) -> None:
        """These shared objects are gone."""
        with contextlib.suppress(Exception):  # so is it
            self._actor.drop.remote(tokens)

    def end(self) -> None:
        """End the actor."""
        with contextlib.suppress(Exception):  # Ray itself has ended
            ray.kill(self._actor)


def call_in(group: str, method: Any, *arguments: Any) -> asyncio.Future[Any]:
    """Call a method of a `RayWorker` in one of its concurrency groups."""
    return asyncio.wrap_future(method.options(concurrency_group=group).remote(*arguments).future())


class RayLane(HostedLane):
    """Satisfies `lane_protocol.Lane`. What has to do with Ray runs on the pool's event loop."""

    def __init__(self, pool: RayPool, number: int, generation: int, token: str) -> None:
        super().__init__(pool, number, generation, token)
        self._owner = pool
        self.actor: Any = None
        self.guardian: GuardianHere | GuardianThere | None = None  #: where it has the ledger
        self.sees_guardian = False  #: it can open what its guardian has in segments
        self.is_let_go = False  #: nothing is to be said of it any more

    # -- from any thread -------------------------------------------------------------------------------------

    @property
    def shares_memory(self) -> bool:
        """See `lane_protocol.CarryingLane.shares_memory`: it is on this machine."""
        return isinstance(self.guardian, GuardianHere) and hosted.shares_memory(self.token)

    def take_results_by_pipe(self) -> None:
        """See `lane_protocol.SharingLane.take_results_by_pipe`."""
        hosted.name_results(self.token, named=False)

    # -- as `HostedLane` wants it ----------------------------------------------------------------------------

    async def serve(self, number: int, frame: bytes, to_bring: list[Shared[Any]]) -> tuple[bytes, bytes | None]:
        """See `HostedLane.serve`. What is carried goes through the object store, by Ray's own doing."""
        carried = pack(self.take_to_carry(number))
        brought = [await self._form_of(shared) for shared in to_bring]
        served: tuple[Parcel, Parcel | None]
        served = await call_in("frames", self.actor.serve, number, frame, carried, *brought)
        answer, early = served
        return self._opened(answer), None if early is None else self._opened(early)

    async def fetch(self) -> bytes | None:
        """See `HostedLane.fetch`."""
        early: Parcel | None = await call_in("control", self.actor.fetch)
        return None if early is None else self._opened(early)

    def _opened(self, parcel: Parcel) -> bytes:
        frame, carried = parcel
        self.carried.update(unpack(carried))
        return frame

    async def _form_of(self, shared: Shared[Any]) -> Any:
        """In which form it is brought: one copy for a node, if the worker can map it."""
        if self.shares_memory:
            return lend_own(shared)
        if self.sees_guardian and isinstance(self.guardian, GuardianThere):
            try:
                return await self.guardian.lend(shared, self._owner)
            except ray.exceptions.RayActorError:  # it died, and the worker perhaps not
                self.sees_guardian = False
        return await self._owner.put_shared(shared)

    async def control(self, orders: list[hosted.Order]) -> hosted.Seen | None:
        """See `HostedLane.control`."""
        seen: hosted.Seen | None
        if self.guardian is not None:
            try:
                seen = await self.guardian.ask("control", self.token, orders)
                return seen
            except ray.exceptions.RayActorError:  # it died, and the worker perhaps not
                self.guardian = None
        seen = await call_in("control", self.actor.control, orders)
        return seen

    async def break_off(self, error: Exception) -> None:
        """See `HostedLane.break_off`. An actor that can't be reached is ended, since it might come back."""
        if self.is_ready and not isinstance(error, ray.exceptions.RayActorError | LookupError):
            _log.warning(
                "worker %d on Ray does not carry out its commands, and is replaced: %s", self.number, shown(error)
            )
        self.kill_now()

    def kill_now(self) -> None:
        """See `HostedLane.kill_now`. Also where it holds its global lock; that it is gone, `watch` tells."""
        if self.actor is not None and self._owner.is_connected():  # else it would start another Ray
            with contextlib.suppress(Exception):  # Ray itself has ended
                ray.kill(self.actor)

    # -- its life --------------------------------------------------------------------------------------------

    async def settle(self, guardian: GuardianHere | GuardianThere | None) -> None:
        """It has this guardian: find out how big data comes to it. Raises what Ray raises."""
        self.guardian = guardian
        if guardian is not None:
            self.sees_guardian = await call_in("control", self.actor.settle, await guardian.ask("anchor"))
            if self.shares_memory:
                hosted.name_results(self.token, named=True)

    async def watch(self) -> BaseException:
        """Fetch what the worker leaves early, until it is gone; why."""
        while True:
            try:
                await call_in("bell", self.actor.rung)
            except Exception as error:
                return error
            self.fetch_soon()

    async def bury(self) -> Claim | None:
        """Make sure that its process is gone, with all that it has started; returns what it ran, if that is known."""
        if self.guardian is None:
            return None
        try:
            seen = await asyncio.wait_for(self.guardian.ask("bury", self.token), LAST_WORDS_LIMIT)
        except Exception:
            return None
        return None if seen is None else claim_of(seen, self._pool.now())

    async def let_go(self, *, kill: bool) -> None:
        """End it, by itself unless told otherwise; nothing is said of it any more."""
        self.is_let_go = True
        if self.actor is None:
            return
        if not kill and self.is_ready:
            with contextlib.suppress(Exception):  # it is gone already
                closing = call_in("control", self.actor.close)
                await asyncio.wait_for(closing, hosted.CLOSE_LIMIT)
        self.kill_now()
        await self.bury()
