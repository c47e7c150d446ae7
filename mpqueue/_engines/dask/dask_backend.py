"""Dask as the engine: a lane is a process that has a slot (a thread) of a Dask worker, on any machine.

On each Dask worker's machine is an agent (`mpqueue._engines.agent`), which has a process for each lane. A task that is
bound to the Dask worker, and never retried by Dask, runs there while the lane works, so a slot is busy when its lane
is. It goes on from chunk to chunk until other tasks wait for the slot. All else goes through a connection to the agent;
if the agent can't be reached, through the scheduler: only the connection of a Dask client has to be open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed import Client
from distributed.comm import connect
from distributed.utils import LoopRunner

from mpqueue._engines.agent.node_pool import CAPABILITIES, NO_WORKER_WAIT_S
from mpqueue._engines.dask import dask_side
from mpqueue._engines.dask.dask_pool import Choice, DaskPool
from mpqueue._engines.dask.dask_side import WorkerThere
from mpqueue._parent.inbox import Inbox
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._text import shown
from mpqueue.errors import WorkerStartError


class DaskBackend:
    """Runs a queue's chunks on a Dask cluster: ``JobQueue(concurrency=None, backend=DaskBackend(client))``.

    ``client`` is a `distributed.Client`, a cluster object, or the address of a scheduler. Each queue has a connection
    of its own. The queue uses at most ``concurrency`` slots (threads of Dask workers); None: all, also of workers that
    join later. If a worker leaves, or the connection to the scheduler is lost, no item loses a try, and the connection
    is made again. If there is no worker for ``patience`` seconds, the jobs that wait for one are cancelled, and their
    runs raise `WorkerStartError`. A worker with other versions is left out, with a warning. ``workers`` limits the
    queue to these Dask workers, by their names, addresses or hosts; ``resources={"GPU": 1}`` to those that have that
    much per slot, which does not affect Dask's own tasks.

    While items wait, tasks that can't run represent them on the scheduler, with the expected time, so that an adaptive
    cluster grows as for its own tasks, and shrinks after the job.

    Each slot has a process of its own, beside that of the Dask worker: as on this machine, blame is exact, and a time
    limit or a crash ends only its own item. Needs the extra ``dask``; the workers must have the same versions of
    mpqueue, Python and cloudpickle. A Dask worker that can't start processes is left out, with a warning that gives the
    reason.

    Raises TypeError for anything else, OSError if the scheduler can't be reached.
    """

    def __init__(
        self,
        client: Any,
        *,
        patience: float = NO_WORKER_WAIT_S,
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
        """Ask on a connection of our own: a user's client may belong to an event loop."""
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
        """Return the current number of slots; at least 1, since others may come."""
        there = self._ask(lambda client: client.run_on_scheduler(dask_side.workers_there))
        return max(1, sum(self._choice.slots_of(address, WorkerThere(*told)) for address, told in there.items()))

    def open(self, settings: LaneSettings, inbox: Inbox) -> DaskPool:
        """Open a queue's lanes. Connects, which takes 20 ms. Raises `WorkerStartError` if there is no answer."""
        try:
            return DaskPool(self._connect_in_loop, self._choice, settings, inbox)
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
