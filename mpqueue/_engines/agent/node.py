"""A node of a cluster for a program, and a lane there: a worker of the node's agent.

All that happens to them happens on the event loop of their pool, so there is no lock; but what a worker has answered,
if it is not plain, is handed over by the thread of its `Answers`. What an agent calls are methods of `Node`, in the
order in which it calls them.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mpqueue._core.messages import LaneDied
from mpqueue._engines.agent.agent import PACKAGE, LaneKey
from mpqueue._engines.agent.link import Call, Link, aged, load_notice
from mpqueue._parent.inbox import found
from mpqueue._parent.lane_protocol import Answers, Lane, Tell
from mpqueue._wire.line import Answer
from mpqueue._wire.memory import shared
from mpqueue._wire.memory.ledger import NOWHERE, Claim, Phase
from mpqueue._wire.memory.segments import Carried
from mpqueue._wire.memory.shared import Shared, lend_own, parts_of, token_of

if TYPE_CHECKING:
    from mpqueue._engines.agent.node_pool import NodePool


#: What is seen of a worker whose node is lost.
UNSEEN = Claim(NOWHERE, Phase.IDLE, 0, 0, 0.0)


class NodeLane(Lane):
    """A lane on a node: a `lane_protocol.Lane`, with further methods for an engine on nodes."""

    def __init__(self, pool: NodePool, node: Node, number: int, generation: int) -> None:
        self.number = number
        self.generation = generation
        self.pid = 0
        self.node = node
        self.key: LaneKey = number, generation
        self.is_ready = False
        self.used_at = 0.0  #: the time of its last answer
        self.carried: dict[int, memoryview] = {}  #: see `lane_protocol.CarryingLane`
        self.unsent = b""
        self.answers = Answers(pool.inbox, number)
        self.claims: deque[Callable[[Claim], None]] = deque()
        self.stacks: deque[Callable[[str | None], object]] = deque()
        self.last: Claim | None = None
        self._pool = pool
        self._to_bring: dict[Shared[Any], None] = {}
        self._to_carry: dict[int, memoryview] = {}

    # -- from any thread ---------------------------------------------------------------------------------------------

    @property
    def shares_memory(self) -> bool:
        return self.node.shares_memory

    @property
    def is_busy(self) -> bool:
        """True where the worker has something to do."""
        return self.is_ready and len(self.answers) > 0

    def send(self, frame: bytes, tell: Tell) -> None:
        if self.answers.begin(tell):
            self._pool.soon(self._send, frame)

    def bring(self, shared: Shared[Any]) -> None:
        self._pool.soon(self._to_bring.__setitem__, shared, None)

    def carry(self, contents: Carried) -> None:
        if contents:
            self._pool.soon(self._to_carry.update, contents)

    def take_results_by_pipe(self) -> None:
        self._call("take_results_by_pipe")

    def set_flags(self, job: int, *, pause: bool, cancel: bool) -> None:
        self._call("set_flags", job, pause, cancel)

    def set_limit(self, chunk: int, position: int) -> None:
        self._call("set_limit", chunk, position)

    def _call(self, name: str, *arguments: Any) -> None:
        self._pool.soon(self.node.call, name, self.key, *arguments)

    def observe(self, tell: Callable[[Claim], None]) -> None:
        """Have ``tell`` called on the event loop."""
        self._pool.soon(self._observe, tell)

    def peek(self) -> Claim | None:
        """Return the last known claim, and ask for a newer one."""
        if not self.claims:  # otherwise one is asked for already
            self.observe(lambda _: None)
        return self.last

    def take_unsent(self) -> bytes:
        """Return the log records that the agent has found in the dead worker's outbox."""
        return self.unsent

    def tell_stack(self, tell: Callable[[str | None], object]) -> None:
        self._pool.soon(self._tell_stack, tell)

    def kill(self, *, dump_stack: bool = False) -> None:
        self._call("kill", dump_stack)

    # -- on the event loop -------------------------------------------------------------------------------------------

    def _send(self, frame: bytes) -> None:
        to_bring, self._to_bring = list(self._to_bring), {}
        to_carry, self._to_carry = self._to_carry, {}
        tokens = [self.node.bring(one) for one in to_bring]
        self.node.call("frame", self.key, frame, tokens, self.node.take_dropped(), to_carry)
        self._pool.want_slot(self)

    def _observe(self, tell: Callable[[Claim], None]) -> None:
        if self.node.is_lost:
            tell(UNSEEN)
        else:
            self.claims.append(tell)
            self.node.call("observe", self.key)

    def _tell_stack(self, tell: Callable[[str | None], object]) -> None:
        self.stacks.append(tell)
        self.node.call("tell_stack", self.key)

    def end(self, why: str, died: LaneDied | None = None) -> None:
        """Note that the worker is gone: fail what is under way, and what is yet to come. Then post ``died``."""
        self.is_ready = False
        error = ChildProcessError(f"the worker {self.pid} on {self.node.title} is gone: {why}")
        self.answers.die(error)
        if died is not None:
            self.answers.put_plain(partial(self._pool.post, died))
        for tell in self.stacks:
            tell(None)
        self.stacks.clear()


class Node:
    """A node, and the lanes that have its slots. ``handle`` is the engine's object."""

    def __init__(self, pool: NodePool, name: str, slots: int, host: str, handle: Any = None) -> None:
        self.name = name
        self.slots = slots
        self.handle = handle
        self.host = host  #: by which this process may reach it; empty: only through the engine
        self.token = ""  #: of its agent
        self.opening: asyncio.Task[None] | None = None  #: done once it has an agent
        self.following: asyncio.Task[None] | None = None
        self.link: Link | None = None  #: to the agent
        self.shares_memory = False  #: its workers can open segments of this process: they are on its machine
        self.lanes: dict[int, NodeLane] = {}
        self.unfit: BaseException | None = None  #: the reason if it can't be used
        self.failures = 0  #: starts that failed there
        self.is_paused = False  #: by the engine: it must begin no work
        self.is_lost = False
        self.title = f"{pool.noun} {name}"  #: for people
        self._pool = pool
        self._brought: weakref.WeakSet[Shared[Any]] = weakref.WeakSet()
        self._dropped = len(shared.dropped)  #: how many of the dropped shared objects its agent knows of

    def call(self, name: str, *arguments: Any) -> None:
        """Call the agent, if there is one."""
        if self.link is not None and not self.is_lost:
            self.link.send((name, *arguments))

    def bring(self, one: Shared[Any]) -> shared.Token:
        """Send this shared object to the agent, once for all lanes."""
        if one not in self._brought:
            self._brought.add(one)
            if self.shares_memory:
                self.call("borrow", lend_own(one))
            else:
                self.call("bring", *parts_of(one))
        return token_of(one)

    def take_dropped(self) -> Sequence[shared.Token]:
        """Return the shared objects that were dropped since the last call."""
        dropped = shared.dropped[self._dropped :]
        self._dropped += len(dropped)
        return dropped

    # -- what the agent calls ----------------------------------------------------------------------------------------

    def take(self, call: Call) -> None:
        """Handle a call of the agent."""
        name, *arguments = call
        if self.is_lost:
            return
        try:
            if name == "happened":
                self._pool.heed(self, load_notice(arguments[0], self._pool.now()))
            elif (lane := self.lanes.get(arguments[0][0])) is not None and lane.key == tuple(arguments[0]):
                getattr(self, f"_{name}")(lane, *arguments[1:])
        except Exception as error:
            self._pool.post(found("while it took in what an agent said", error))

    def _answered(self, lane: NodeLane, answer: Any, carried: Carried, plain: bool) -> None:
        lane.carried.update(carried)
        lane.used_at = self._pool.now()
        lane.answers.answered(Answer(bytes(answer), plain))

    def _left_early(self, lane: NodeLane, early: Any, carried: Carried) -> None:
        lane.carried.update(carried)
        lane.answers.put(partial(lane.answers.early, Answer(bytes(early))))

    def _left_unsent(self, lane: NodeLane, unsent: Any) -> None:
        lane.unsent = bytes(unsent)

    def _seen(self, lane: NodeLane, seen: Claim) -> None:
        lane.last = aged(seen, self._pool.now())
        lane.claims.popleft()(lane.last)

    def _told_stack(self, lane: NodeLane, text: str | None, package: str) -> None:
        lane.stacks.popleft()(None if text is None else text.replace(package, PACKAGE))

    # -- its end -----------------------------------------------------------------------------------------------------

    def lose(self, why: str, *, innocent: bool = False) -> None:
        """Drop the node with all its lanes, ended by what one of them ran or, if ``innocent``, by something else."""
        self.is_lost = True
        for task in (self.opening, self.following):
            if task is not None:
                task.cancel()
        lanes = [lane for lane in self.lanes.values() if lane.is_ready]
        busy = [lane for lane in lanes if lane.is_busy]
        for lane in lanes:
            guiltless = innocent or lane not in busy
            lane.end(why, LaneDied(*lane.key, lane.pid, alone=len(busy) <= 1, innocent=guiltless))
            while lane.claims:
                lane.claims.popleft()(UNSEEN)
