"""What Dask calls in its workers and nannies. Imports Dask only inside, where it is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from mpqueue._os.process.process_signals import kill_process
from mpqueue._worker.elsewhere import hello, hosted

#: The topic of Dask's events on which workers tell that they have left something early. One for all queues, since the
#: scheduler keeps the last 1,000 events of each topic for ever.
TOPIC = "mpqueue"
#: Seconds that a nanny waits for the exit code of its dead worker.
EXIT_LIMIT = 1.0


class LastWords(NamedTuple):
    """What a nanny knows of its worker that is gone."""

    claims: dict[str, hosted.Seen]
    exitcode: int | None
    was_sent_away: bool  #: the nanny ends too: both have been ended


# -- in a worker -----------------------------------------------------------------------------------------------------


def open_seat(
    pool: str, token: str, lane: int, generation: int, parent: int, *, dask_worker: Any
) -> hello.Introduction:
    """By `Client.run`, on the worker's event loop: make a worker in this process.

    Raises LookupError where its `Lifeline` is not here (any more): nothing would close it.
    """
    if token not in _tied:
        raise LookupError("the client is gone")

    def ring() -> None:
        with contextlib.suppress(Exception):  # it is closing; what was left comes with the answer, if that comes
            dask_worker.log_event(TOPIC, {"pool": pool, "lane": lane, "generation": generation})

    nanny: str | None = dask_worker.nanny
    return {**hosted.open_seat(token, lane, generation, parent, ring), "nanny": nanny}


def serve(token: str, number: int, frame: bytes, brought: Sequence[bytes]) -> tuple[bytes, bytes | None]:
    """As a task: the worker's answer. One that has to wait for another frame leaves its slot to others meanwhile."""
    return hosted.serve(token, frame, _leave_slot, number, brought)


def _leave_slot() -> None:
    from distributed import secede

    with contextlib.suppress(Exception):  # outside of a task there is no slot to leave
        secede()


async def close_seats(tokens: Sequence[str]) -> None:
    """By `Client.run`: without holding up the event loop."""
    await asyncio.to_thread(hosted.close_seats, tokens)


_tied: set[str] = set()


class Lifeline:
    """A task's result, whose end closes a worker: the scheduler drops it when the client is gone, however that goes.

    It is here before the worker: a client that dies between the two leaves nothing.

    Not an actor, since a worker that holds one can't be retired. Where Dask moves it elsewhere, the worker ends too.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token
        if token is not None:
            _tied.add(token)

    def __reduce__(self) -> tuple[Any, ...]:
        return Lifeline, (None,)

    def __del__(self) -> None:
        if self._token is not None:
            _tied.discard(self._token)
            with contextlib.suppress(Exception):
                hosted.close_seats([self._token], wait=False)


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


# -- in a nanny ------------------------------------------------------------------------------------------------------

_processes: dict[str, Any] = {}


def adopt(token: str, path: str, *, dask_worker: Any) -> bool:
    """By `Client.run`: have the ledger of a worker at hand, and its process; False where that can't be."""
    if not hosted.adopt(token, path):
        return False
    _processes[token] = getattr(dask_worker.process, "process", None)
    return True


async def last_words(tokens: Sequence[str], *, dask_worker: Any) -> LastWords:
    """By `Client.run`: what the ledgers of dead workers say, and how their process ended. They are forgotten then."""
    found = [_processes.pop(token, None) for token in tokens]
    process = next((one for one in found if one is not None), None)
    exitcode = None
    if process is not None:
        with contextlib.suppress(Exception):  # it still runs, or other code has waited for it
            await process.join(EXIT_LIMIT)
        exitcode = process.exitcode
    is_ending = dask_worker.status.name in ("closing", "closing_gracefully", "closed")
    return LastWords(hosted.last_claims(tokens), exitcode, is_ending)


def forget(tokens: Sequence[str]) -> None:
    """By `Client.run`: these ledgers are not needed any more."""
    for token in tokens:
        _processes.pop(token, None)
    hosted.forget(tokens)


def kill_worker(pid: int, *, dask_worker: Any) -> None:
    """By `Client.run`: kill the worker's process, where it still is that one, and what it has started."""
    import psutil  # Dask needs it, too

    if dask_worker.process is None or dask_worker.process.pid != pid:
        return
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(pid).children(recursive=True)
        kill_process(pid)
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
