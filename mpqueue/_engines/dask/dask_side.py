"""What Dask calls in its workers: an agent for each queue (`mpqueue._engines.agent`), and the ways to it.

All but `serve` and the making of an agent is called on the worker's event loop, by `Client.run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from mpqueue._engines.agent import agent as agents
from mpqueue._engines.agent.notices import Rest
from mpqueue._os.process.process_signals import kill_process
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._wire.memory.shared import Token
from mpqueue._worker.elsewhere import hello
from mpqueue._worker.elsewhere.hosted import Order, Seen

#: The topic of Dask's events on which agents tell. One for all queues, since the scheduler keeps the last 1,000 events
#: of each topic for ever.
TOPIC = "mpqueue"
#: Seconds that a worker has to say where it is.
STACK_LIMIT = 2.0

_agents: dict[str, agents.Agent] = {}


def introduce() -> hello.Introduction:
    """Who this process is, and what it runs."""
    return hello.introduce()


class Lifeline:
    """A task's result, which has the agent: the scheduler drops it when the client is gone, however that goes.

    Not an actor, since a worker that holds one can't be retired. Where Dask moves it elsewhere, the agent ends too.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __reduce__(self) -> tuple[Any, ...]:
        return Lifeline, (None,)

    def __del__(self) -> None:
        agent = None if self._token is None else _agents.pop(self._token, None)
        if agent is not None:  # at any moment, on any thread
            threading.Thread(target=agent.close, kwargs={"kill": True}, name="mpqueue-closer", daemon=True).start()


def open_agent(pool: str, token: str, settings: LaneSettings) -> Lifeline:
    """As a task: make an agent, known by that token, whose notices are events on our topic."""
    from distributed import get_worker

    worker = get_worker()

    def tell(notice: bytes) -> None:
        with contextlib.suppress(Exception):  # it is closing
            worker.log_event(TOPIC, {"pool": pool, "agent": token, "notice": notice})

    end_process = None if worker.nanny is None else _end_this_process
    _agents[token] = agents.Agent(settings, tell, end_process)
    return Lifeline(token)


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


def serve(
    token: str,
    lane: tuple[int, int],
    turn: int,
    frame: bytes,
    tokens: Sequence[Token],
    brought: Sequence[bytes],
    dropped: Sequence[Token],
) -> agents.Served:
    """As a task: see `Agent.serve`. One that has to wait for another frame leaves its slot to others meanwhile."""
    return _agent(token).serve(lane, turn, frame, list(zip(tokens, brought, strict=True)), dropped, _leave_slot)


def _leave_slot() -> None:
    from distributed import secede

    with contextlib.suppress(Exception):  # outside of a task there is no slot to leave
        secede()


def start(token: str, lane: tuple[int, int]) -> None:
    """See `Agent.start`."""
    _agent(token).start(*lane)


def let_go(token: str, lane: tuple[int, int]) -> None:
    """See `Agent.let_go`."""
    _agent(token).let_go(lane)


def kill(token: str, lane: tuple[int, int], dump_stack: bool) -> None:
    """See `Agent.kill`."""
    _agent(token).kill(lane, dump_stack=dump_stack)


def control(token: str, lane: tuple[int, int], orders: Sequence[Order]) -> Seen | None:
    """See `Agent.control`."""
    return _agent(token).control(lane, orders)


def fetch(token: str, lane: tuple[int, int]) -> bytes | None:
    """See `Agent.fetch`."""
    return _agent(token).fetch(lane)


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
    agent = _agents.pop(token, None)
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
