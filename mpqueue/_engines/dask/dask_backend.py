"""Dask as the engine: a lane is a process that has a slot (a thread) of a Dask worker, wherever that is.

On each Dask worker's machine is an agent (`mpqueue._engines.agent`), which has a process for each lane. A task that is
bound to the Dask worker, and never retried by Dask, runs there while the lane works, so a slot is busy when a lane is.
It goes on from chunk to chunk until other tasks wait for the slot. All else goes by a connection to the agent; where it
can't be reached, by the scheduler: nothing but the connection that a Dask client needs has to be open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed import Client
from distributed.comm import connect
from distributed.utils import LoopRunner

from mpqueue._engines.agent.node_pool import CAPABILITIES, PATIENCE
from mpqueue._engines.dask import dask_side
from mpqueue._engines.dask.dask_choice import Choice
from mpqueue._engines.dask.dask_pool import DaskPool
from mpqueue._engines.dask.dask_side import WorkerThere
from mpqueue._parent.inbox import Inbox
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._text import shown
from mpqueue.errors import WorkerStartError


class DaskBackend:
    """Runs a queue's chunks on a Dask cluster: ``JobQueue(concurrency=None, backend=DaskBackend(client))``.

    ``client`` is a `distributed.Client`, a cluster object, or the address of a scheduler. Each queue has a connection
    of its own. ``concurrency`` is how many slots (threads of Dask workers) the queue uses at most; None: all, also of
    workers that join later. A worker that leaves costs no item a try, nor does a connection to the scheduler that is
    lost: it is made anew. Where no worker is there for ``patience`` seconds, the jobs that wait for one are cancelled,
    and their runs raise `WorkerStartError`. A worker with other versions is left out, with a warning. ``workers`` names
    the Dask workers that the queue may use, by their names, addresses or hosts; ``resources={"GPU": 1}`` those that
    have that for each slot, of which Dask's own tasks are not told.

    While items wait, tasks that can't run stand for them on the scheduler, with the time that they will take, so that
    an adaptive cluster grows as it does for tasks of its own, and shrinks after the job.

    Each slot has a process of its own, beside that of the Dask worker: everything is as on this machine, blame is
    exact, and a time limit or a crash ends nothing but what it is about. Needs the extra ``dask``; mpqueue, Python and
    cloudpickle must be of the same versions on the workers. A Dask worker that can't start processes is left out, with
    a warning that says why.

    Raises TypeError for anything else, OSError where the scheduler can't be reached.
    """

    def __init__(
        self,
        client: Any,
        *,
        patience: float = PATIENCE,
        connect_timeout: float = 30.0,
        workers: Sequence[str | int] | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        self._choice = Choice(workers, resources)
        self._connect_timeout = connect_timeout
        self._held = client  #: a cluster lives as long as it is referenced
        self._address, self._security = _address_of(client)
        self._direct: bool | None = getattr(client, "direct_to_workers", None)
        LoopRunner().run_sync(self._reach)
        self.capabilities = CAPABILITIES._replace(patience=patience)

    def _ask(self, question: Callable[[Client], Any]) -> Any:
        """Ask on a connection of our own: a client of the user's may belong to an event loop."""
        with self._connect() as client:
            return question(client)

    def _connect(self) -> Client:
        LoopRunner().run_sync(self._reach)
        return self._client()

    async def _connect_in_loop(self) -> Client:
        """Connect from the event loop that calls it. Raises OSError if there is no answer."""
        await self._reach()
        return await self._client(asynchronous=True)

    def _client(self, **options: Any) -> Client:
        return Client(
            self._address,
            security=self._security,
            direct_to_workers=self._direct,
            set_as_default=False,
            name="mpqueue",
            timeout=self._connect_timeout,
            **options,
        )

    async def _reach(self) -> None:
        """Raise OSError if there is no answer: a client that finds out itself leaves its thread behind."""
        options = {} if self._security is None else self._security.get_connection_args("client")
        comm = await connect(self._address, timeout=self._connect_timeout, **options)
        await comm.close()

    def count_workers(self) -> int:
        """Return the number of slots that are there now; at least 1, since others may come."""
        there = self._ask(lambda client: client.run_on_scheduler(dask_side.workers_there))
        return max(1, sum(self._choice.slots_of(address, WorkerThere(*told)) for address, told in there.items()))

    def open(self, settings: LaneSettings, inbox: Inbox) -> DaskPool:
        """Open a queue's lanes. Connects, which takes 20 ms. Raises `WorkerStartError` if there is no answer."""
        try:
            return DaskPool(self._connect_in_loop, self._choice, settings, inbox.post)
        except OSError as error:
            raise WorkerStartError(f"the Dask scheduler at {self._address} can't be reached: {error}") from error

    def __repr__(self) -> str:
        choice = str(self._choice)
        return f"DaskBackend({self._address!r}{', ' if choice else ''}{choice})"


def _address_of(client: Any) -> tuple[str, Any]:
    if isinstance(client, str):
        return client, None
    if isinstance(client, Client):
        return str(client.scheduler.address), client.security
    address = getattr(client, "scheduler_address", None)
    if not isinstance(address, str):
        raise TypeError(
            f"client: expected a distributed.Client, a cluster or an address, got {shown(client)} of type "
            f"{type(client).__name__}"
        )
    return address, getattr(client, "security", None)
