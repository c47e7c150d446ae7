"""Workers for an engine that says neither which process nor which thread runs what: each thread that comes is one.

`serve` is what such an engine is given to call. A thread's worker is made when a frame of its pool comes there first,
and found again by the pool's name. In the parent's own process (a thread pool) `close` ends them; in another they end
with it.
"""

from __future__ import annotations

import itertools
import threading
from typing import NamedTuple

from mpqueue._os.process.own_forks import process_name
from mpqueue._wire.memory.ledger import Ledger
from mpqueue._worker import station
from mpqueue._worker.elsewhere.private import private_worker
from mpqueue._worker.main import Worker


class Origin(NamedTuple):
    """Where a frame comes from."""

    pool: str  #: no other pool in the world has this name
    process: str  #: `process_name` of the parent
    pid: int  #: its process id


class _Home:
    """What the parent's own threads share with the pool."""

    def __init__(self) -> None:
        self.flags: dict[tuple[int, int], tuple[bool, bool]] = {}  #: lane and job -> paused, cancelled
        self.is_over = False
        self.workers: list[Worker] = []
        self.numbers = itertools.count()


class _AtHome:
    """A thread of this process that serves: for the lane whose frame it has."""

    def __init__(self, home: _Home) -> None:
        self._home = home
        self.lane = -1

    def flags_of(self, job: int) -> tuple[bool, bool]:
        paused, cancelled = self._home.flags.get((self.lane, job), (False, False))
        return paused, cancelled or self._home.is_over


_homes: dict[str, _Home] = {}
_local = threading.local()


def open_home(pool: str) -> None:
    """Its frames may come to threads of this process."""
    _homes[pool] = _Home()


def set_flags(pool: str, lane: int, job: int, *, pause: bool, cancel: bool) -> None:
    """For the thread of this process that serves that lane: the job of that number is paused, cancelled, or neither."""
    home = _homes.get(pool)
    if home is None:
        return
    if pause or cancel:
        home.flags[lane, job] = (pause, cancel)
    else:
        home.flags.pop((lane, job), None)


def give_up(pool: str) -> None:
    """The threads of this process start nothing more of that pool; what runs is asked to stop."""
    home = _homes.get(pool)
    if home is not None:
        home.is_over = True


def close_home(pool: str) -> None:
    """No frame of it comes any more, and none is running: end what setups have begun in threads of this process."""
    home = _homes.pop(pool, None)
    for worker in home.workers if home is not None else ():
        with station.seated(worker.seat.station):
            worker.close()


def serve(origin: Origin, lane: int, frame: bytes) -> bytes:
    """Do what a frame says, as the worker that this thread is for that pool."""
    workers: dict[str, tuple[Worker, _AtHome | None]] | None = getattr(_local, "workers", None)
    if workers is None:
        workers = _local.workers = {}
    if origin.pool not in workers:
        if origin.process == process_name():
            for gone in workers.keys() - _homes.keys():
                del workers[gone]
            workers[origin.pool] = _settle_at_home(origin)
        else:
            workers[origin.pool] = private_worker(lane, 0, origin.pid, Ledger(), None), None
    worker, at_home = workers[origin.pool]
    if at_home is not None:
        at_home.lane = lane
    with station.seated(worker.seat.station):
        return worker.receive(frame).data


def _settle_at_home(origin: Origin) -> tuple[Worker, _AtHome]:
    home = _homes.get(origin.pool)
    if home is None:
        raise RuntimeError("the queue is closed")
    own = _AtHome(home)
    worker = private_worker(next(home.numbers), 0, origin.pid, Ledger(), None, flags_of=own.flags_of, is_at_home=True)
    home.workers.append(worker)
    return worker, own
