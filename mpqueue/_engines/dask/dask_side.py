"""What Dask calls in its workers: an agent for each queue (`mpqueue._engines.agent`), and the ways to it.

Tasks are `open_agent`, `bring` and `hold`, which has a slot of Dask's as long as a lane works. All else is called on
the worker's event loop, by `Client.run` or by a connection of ours (`node_line`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from mpqueue._engines.agent import agent as agents
from mpqueue._engines.agent.notices import AnswersWait, Rest, dump_notice
from mpqueue._engines.dask.node_line import NodeLine, Numbered, copy_carried, unpack, view_carried
from mpqueue._os.process.process_signals import kill_process
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._wire.memory.segments import CommonSegment, SegmentRef, can_be_opened, make_anchor
from mpqueue._wire.memory.shared import Lent, Parts
from mpqueue._worker.elsewhere import hello
from mpqueue._worker.elsewhere.hosted import Order, Seen

#: The topic of Dask's events on which agents tell. One for all queues, since the scheduler keeps the last 1,000 events
#: of each topic for ever.
TOPIC = "mpqueue"
#: What Dask calls a connection of ours.
CONNECT = "mpqueue_connect"
#: Bytes from which a frame is handed to its worker by a thread.
BIG = 1 << 20
#: Seconds that a worker has to say where it is.
STACK_LIMIT = 2.0

_agents: dict[str, agents.Agent] = {}
_lines: dict[str, NodeLine] = {}


def introduce() -> hello.Introduction:
    """Who this process is, and what it runs."""
    return hello.introduce()


class Shares(NamedTuple):
    """How far a program and a Dask worker can open each other's segments: they are on one machine, and may."""

    can_map: bool  #: one of the program's can be opened here
    anchor: SegmentRef | None  #: one of this process, for the program to try


_anchors: dict[str, CommonSegment | None] = {}  #: by the token of the agent that is about to be opened


def try_sharing(token: str, probe: SegmentRef) -> Shares:
    """Try to open that segment of the program, and offer one of our own, until the agent is opened."""
    anchor = _anchors[token] = make_anchor()
    return Shares(can_be_opened(probe), None if anchor is None else anchor.ref)


class Lifeline:
    """A task's result, which has the agent: the scheduler drops it when the client is gone, however that goes.

    Not an actor, since a worker that holds one can't be retired. Where Dask moves it elsewhere, the agent ends too.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __reduce__(self) -> tuple[Any, ...]:
        return Lifeline, (None,)

    def __del__(self) -> None:
        agent = None if self._token is None else _take_out(self._token)
        if agent is not None:  # at any moment, on any thread
            threading.Thread(target=agent.close, kwargs={"kill": True}, name="mpqueue-closer", daemon=True).start()


def open_agent(pool: str, token: str, settings: LaneSettings) -> Lifeline:
    """As a task: make an agent, known by that token, whose notices are events on our topic."""
    from distributed import get_worker

    worker = get_worker()
    _anchors.pop(token, None)

    def tell(notice: bytes) -> None:
        with contextlib.suppress(Exception):  # it is closing
            worker.log_event(TOPIC, {"pool": pool, "agent": token, "notice": notice})

    end_process = None if worker.nanny is None else _end_this_process
    line = NodeLine(worker.loop, lambda: tell(dump_notice(AnswersWait(), 0.0)))
    agent = agents.Agent(settings, tell, line.put, end_process)
    _agents[token], _lines[token] = agent, line
    worker.handlers[CONNECT] = connected
    return Lifeline(token)


def _take_out(token: str) -> agents.Agent | None:
    _lines.pop(token, None)
    return _agents.pop(token, None)


def _end_this_process() -> None:
    """Kill this process and what it has started; its nanny starts another one."""
    import psutil  # Dask needs it, too

    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    kill_process(os.getpid())


def _agent(token: str) -> agents.Agent:
    agent = _agents.get(token)
    if agent is None:
        raise LookupError("this agent is gone")
    return agent


class Scattered:
    """A shared object as data of Dask's: its buffers are beside its pickle, and Dask knows how large it is."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        buffers = [pickle.PickleBuffer(buffer) for buffer in self.parts.buffers]
        return Scattered, (self.parts._replace(buffers=buffers),)

    def __sizeof__(self) -> int:
        return len(self.parts.data) + sum(memoryview(buffer).nbytes for buffer in self.parts.buffers)


def bring(token: str, brought: Scattered | Lent) -> None:
    """As a task: see `Agent.bring`."""
    _agent(token).bring(brought if isinstance(brought, Lent) else brought.parts)


def hold(token: str, lane: tuple[int, int]) -> bool:
    """As a task: see `Agent.hold`. Others want the slot where this worker has other tasks, or is to begin none."""
    from distributed import get_worker
    from distributed.core import Status

    worker = get_worker()
    tasks = worker.state

    def is_wanted() -> bool:
        return bool(tasks.ready or tasks.constrained) or worker.status is not Status.running

    return _agent(token).hold(lane, is_wanted)


async def connected(comm: Any, token: str, seen: int) -> Any:
    """As a handler of the Dask worker: a program has connected to its agent."""
    from distributed.core import Status

    line = _lines.get(token)
    if line is None:
        await comm.close()
        return Status.dont_reply
    await comm.write("connected")
    line.attach(comm, seen)
    try:
        while True:
            await receive(token, *unpack(await comm.read()))
    except (OSError, LookupError):  # the program has closed it, or the agent is gone
        pass
    finally:
        comm.abort()
        line.detach(comm)
    return Status.dont_reply


async def receive(token: str, seen: int, frames: Sequence[Sequence[Any]]) -> None:
    """Take frames in, see `Agent.take_in`; the program has the answers up to ``seen``."""
    agent = _agent(token)
    _lines[token].note_seen(seen)
    for number, generation, turn, frame, tokens, dropped, came in frames:
        carried = view_carried(came)
        arguments = (number, generation), turn, frame, tokens, dropped, carried
        if len(frame) + sum(contents.nbytes for contents in carried.values()) < BIG:
            agent.take_in(*arguments)
        else:  # to copy it would hold the event loop up
            await asyncio.to_thread(agent.take_in, *arguments)


def collect(token: str, seen: int) -> list[Numbered]:
    """See `NodeLine.collect`."""
    line = _lines.get(token)
    return [] if line is None else line.collect(seen)


def start(token: str, lane: tuple[int, int]) -> None:
    """See `Agent.start`."""
    _agent(token).start(*lane)


def let_go(token: str, lane: tuple[int, int]) -> None:
    """See `Agent.let_go`. Nothing is left to do where the agent is gone, with all its lanes."""
    if (agent := _agents.get(token)) is not None:
        agent.let_go(lane)


def take_results_by_pipe(token: str, lane: tuple[int, int]) -> None:
    """See `Agent.take_results_by_pipe`."""
    _agent(token).take_results_by_pipe(lane)


def kill(token: str, lane: tuple[int, int], dump_stack: bool) -> None:
    """See `Agent.kill`."""
    _agent(token).kill(lane, dump_stack=dump_stack)


def control(token: str, lane: tuple[int, int], orders: Sequence[Order]) -> Seen | None:
    """See `Agent.control`."""
    return _agent(token).control(lane, orders)


def fetch(token: str, lane: tuple[int, int]) -> tuple[bytes, dict[int, bytes]] | None:
    """See `Agent.fetch`."""
    early = _agent(token).fetch(lane)
    return None if early is None else (early.frame, copy_carried(early.carried))


def last_words(token: str, lane: tuple[int, int]) -> Rest:
    """See `Agent.last_words`."""
    return _agent(token).last_words(lane)


async def stack_of(token: str, lane: tuple[int, int]) -> tuple[str, str] | None:
    """Where that worker is, and the folder of this package, whose files it names; None where that can't be had."""
    told: Future[str | None] = Future()
    _agent(token).tell_stack(lane, told.set_result)
    try:
        text = await asyncio.wait_for(asyncio.wrap_future(told), STACK_LIMIT)
    except TimeoutError:
        return None
    return None if text is None else (text, agents.PACKAGE)


async def close_agent(token: str, kill: bool) -> None:
    """See `Agent.close`; without holding up the event loop."""
    agent = _take_out(token)
    if agent is not None:
        await asyncio.to_thread(agent.close, kill=kill)


def wait_for_items(key: str) -> None:
    """As a task that never runs: see `mpqueue._engines.dask.standins`."""
    raise RuntimeError(f"{key}: expected to stand for items that wait, got run")


# -- in the scheduler ------------------------------------------------------------------------------------------------


def expect(name: str, seconds: float | None, *, dask_scheduler: Any) -> None:
    """By `Client.run_on_scheduler`: tasks of that name are expected to take so long; None: there are none any more."""
    from distributed.scheduler import TaskPrefix

    if seconds is None:
        dask_scheduler.task_prefixes.pop(name, None)
    else:
        dask_scheduler.task_prefixes.setdefault(name, TaskPrefix(name)).duration_average = seconds
