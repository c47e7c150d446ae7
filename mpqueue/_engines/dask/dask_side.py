"""Functions that Dask calls on its workers and its scheduler, beside `mpqueue._engines.agent.agent_host`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mpqueue._engines.agent import agent_host

#: Seconds without a message from a Dask worker after which it counts as gone: it sends one every second, unless a task
#: holds its global lock.
SILENCE_LIMIT = 30.0
#: The name of our look among the scheduler's handlers.
LOOK = "mpqueue_look"


def hold(token: str, lane: tuple[int, int]) -> None:
    """Hold a Dask slot for a lane, by a task that is this call; see `agent_host.hold`.

    Others want the slot if this Dask worker has other tasks, or must not begin any.
    """
    from distributed import get_worker
    from distributed.core import Status

    worker = get_worker()
    tasks = worker.state

    def is_wanted() -> bool:
        return bool(tasks.ready or tasks.constrained) or worker.status is not Status.running

    agent_host.hold(token, lane, is_wanted)


def wait_for_items(key: str) -> None:
    """Represent waiting items, as a task that never runs: see `mpqueue._engines.dask.dask_backend`."""
    raise RuntimeError(f"{key}: expected to stand for items that wait, got run")


# -- in the scheduler, by `Client.run_on_scheduler` --------------------------------------------------------------------


class WorkerThere(NamedTuple):
    """A present worker of a Dask cluster."""

    name: object
    host: str
    threads: int
    resources: dict[str, float]
    is_paused: bool


def install(*, dask_scheduler: Any) -> None:
    """Let `look` answer calls of `LOOK`: each function that is run on a scheduler is written to its log."""

    def answer(known: Sequence[str]) -> Any:  # Dask wants a handler with a name
        return look(dask_scheduler, known)

    dask_scheduler.handlers[LOOK] = answer


def look(dask_scheduler: Any, known: Sequence[str] = ()) -> tuple[dict[str, tuple[Any, ...]], dict[str, bool]]:
    """Return the present workers, by address, and the missing ones of ``known``: True if they left in order.

    It leaves out most of the scheduler's data, which are large on a large cluster.
    """
    from distributed.metrics import time  # the clock of its `last_seen`

    now, there = time(), {}
    for address, worker in dask_scheduler.workers.items():
        if now < worker.last_seen + SILENCE_LIMIT:
            paused = worker.status.name != "running"
            there[address] = worker.name, worker.host, worker.nthreads, dict(worker.resources or {}), paused
    return there, {address: _has_left(dask_scheduler, address) for address in known if address not in there}


def _has_left(scheduler: Any, address: str) -> bool:
    said = [event for _, event in scheduler.get_events(address) if event.get("action") == "remove-worker"]
    return bool(said and said[-1].get("expected"))


def expect(name: str, seconds: float | None, *, dask_scheduler: Any) -> None:
    """Let the scheduler expect that many seconds for tasks of that name; None: there are none any more."""
    from distributed.scheduler import TaskPrefix

    if seconds is None:
        dask_scheduler.task_prefixes.pop(name, None)
    else:
        dask_scheduler.task_prefixes.setdefault(name, TaskPrefix(name)).duration_average = seconds
