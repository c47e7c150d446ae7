"""A Dask worker as the pool sees it: its slots, its agent, and whether it is one for us."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mpqueue._text import shown
from mpqueue._wire.memory.shared import Shared
from mpqueue._worker.elsewhere import hello
from mpqueue.errors import WorkerStartError

if TYPE_CHECKING:
    from mpqueue._engines.dask.dask_lane import DaskLane
    from mpqueue._engines.dask.host_line import HostLine


class Choice:
    """Which workers of a cluster a queue may use.

    ``workers`` are names, addresses or hosts (None: all), ``resources`` what a worker must have for each of its slots.
    Raises TypeError or ValueError for anything else.
    """

    def __init__(self, workers: Any, resources: Any) -> None:
        if workers is not None and (isinstance(workers, str) or not all(isinstance(one, str | int) for one in workers)):
            raise TypeError(
                f"workers: expected a list of names, addresses or hosts of Dask workers, got {shown(workers)}"
            )
        for name, amount in (resources or {}).items():
            if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount > 0:
                raise ValueError(f"resources: expected an amount above 0 for {name!r}, got {shown(amount)}")
        self._workers = None if workers is None else frozenset(workers)
        self._resources = dict(resources or {})

    def slots_of(self, workers: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
        """How many slots each of these has for this queue, without those that have none; by address."""
        slots = {address: self._count(address, worker) for address, worker in workers.items()}
        return {address: count for address, count in slots.items() if count}

    def _count(self, address: str, worker: Mapping[str, Any]) -> int:
        names = {address, address.partition("://")[2], worker.get("name"), worker.get("host")}
        if self._workers is not None and self._workers.isdisjoint(names):
            return 0
        there = worker.get("resources") or {}
        fitting = [math.floor(there.get(name, 0.0) / amount) for name, amount in self._resources.items()]
        return min(int(worker["nthreads"]), *fitting) if fitting else int(worker["nthreads"])

    def __str__(self) -> str:
        said = [] if self._workers is None else [f"workers={sorted(self._workers, key=str)}"]
        return ", ".join([*said, *([f"resources={self._resources}"] if self._resources else [])])


@dataclass(eq=False)
class Host:
    """A Dask worker, and the lanes that have its slots."""

    address: str
    slots: int
    token: str = ""  #: of its agent
    agent: asyncio.Task[None] | None = None  #: done once it has one
    lifeline: Any = None  #: as long as this is referenced, the agent lives
    line: HostLine | None = None  #: to the agent
    can_map: bool = False  #: its workers can map segments of this process: they are on its machine
    shares_memory: bool = False  #: and this process can map theirs
    lanes: dict[int, DaskLane] = field(default_factory=dict)
    unfit: BaseException | None = None  #: why it is none for us
    failures: int = 0  #: starts that failed there
    is_crowded: bool = False  #: its lanes are in one process, which a time limit of one of them ends
    killed_for: DaskLane | None = None  #: the lane because of which that was done
    #: What is shared, and has been sent there, or is being sent.
    brought: weakref.WeakKeyDictionary[Shared[Any], asyncio.Task[None]] = field(
        default_factory=weakref.WeakKeyDictionary
    )
    dropped: int = 0  #: of the shared objects that are gone, how many its agent has been notified of
    orders: asyncio.Lock = field(default_factory=asyncio.Lock)  #: orders to the agent arrive one after the other
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    is_paused: bool = False  #: it begins nothing, since it has too little memory
    stirred: asyncio.Event = field(default_factory=asyncio.Event)  #: a lane has answered, or it is paused no more

    @property
    def machine(self) -> str:
        """The machine that it is on, as its address has it; itself where that names none."""
        return urlsplit(self.address).hostname or self.address

    def close_line(self) -> None:
        """Nothing goes to its agent, or comes from there, any more."""
        if self.line is not None:
            self.line.close()

    def check(self, told: hello.Introduction) -> None:
        """Raise `WorkerStartError` where what it said of itself makes it none for us."""
        difference = hello.find_difference(hello.introduce(), told)
        if difference is not None:
            raise WorkerStartError(difference)


def reason_of(host: Host, error: BaseException) -> tuple[BaseException, bool]:
    """Why a worker could not be started there, and whether it would be no better the next time."""
    text = f"{type(error).__name__}: {error}"
    if "No module named 'mpqueue" in text or "Error during deserialization of the task graph" in text:
        where = f"where the Dask worker {host.address} or its scheduler runs"
        return WorkerStartError(f"expected mpqueue {where}, as it is here; install the same there ({text})"), True
    return error, isinstance(error, WorkerStartError)
