"""Ray as the engine: a lane is a process in the room of an actor, on any node.

Each node that has room has such an actor, and beside it an agent (`mpqueue._engines.agent`), which has a process for
each lane. All but the start goes through a connection to the agent; if the agent can't be reached, through calls of the
actor.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping
from typing import Any

import ray

from mpqueue._engines.agent.node_pool import CAPABILITIES, NO_WORKER_WAIT_S
from mpqueue._engines.ray.ray_pool import RayPool, count_places
from mpqueue._parent.inbox import Inbox
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._text import shown
from mpqueue.errors import WorkerStartError


class RayBackend:
    """Runs a queue's chunks on Ray: ``JobQueue(concurrency=None, backend=RayBackend())``.

    ``address`` is that of `ray.init`: None means the Ray that this process is connected to, else the cluster that
    ``RAY_ADDRESS`` names or that runs on this machine, else a new local one, which ends when the last queue on it is
    closed. An earlier connection stays.

    Each worker needs one CPU; ``worker`` adds or replaces needs, in Ray's terms: ``worker={"num_gpus": 1}``. The
    workers of a node share the room of one actor there; with GPUs, each has its own. ``concurrency=None`` means as many
    as the cluster has room for now; with a larger number the rest waits for new nodes, which an autoscaler sees. As
    many workers start as there are items for; a node that is idle for 10 s gives its room back. If other programs have
    all the room, the queue waits, and logs that. If no worker comes for ``patience`` seconds for another reason, the
    jobs that wait for one are cancelled, and their runs raise `WorkerStartError`.

    As on this machine, blame is exact, and time limits are kept, even for code that holds the global lock. Close the
    queue before you call `ray.shutdown` yourself: Ray does not notify callers that wait for an actor. Needs the extra
    ``ray``; the nodes must have the same versions of mpqueue, Python and cloudpickle.

    Raises TypeError or ValueError for an invalid address, ConnectionError if it can't be reached.
    """

    def __init__(
        self, address: str | None = None, *, worker: Mapping[str, Any] | None = None, patience: float = NO_WORKER_WAIT_S
    ) -> None:
        if address is not None and not isinstance(address, str):
            raise TypeError(f"address: expected a str or None, got {shown(address)} of type {type(address).__name__}")
        if address is not None and address.startswith("ray://"):
            raise ValueError(
                f"address: expected the address of a cluster of which this machine is a node, got {address!r}; run the "
                "program on a node, or with `ray job submit`"
            )
        self._address = address
        self._options = {"num_cpus": 1, **(worker or {})}
        self.capabilities = CAPABILITIES._replace(patience=patience)
        _connection.ensure(address)

    def count_workers(self) -> int:
        """Return how many workers the cluster has room for when nothing else runs there.

        At least 1, since nodes may come.
        """
        _connection.ensure(self._address)
        return max(1, count_places(self._options))

    def open(self, settings: LaneSettings, inbox: Inbox) -> RayPool:
        """Open a queue's lanes. If the last queue has ended a local Ray, this starts one, which takes seconds.

        Raises `WorkerStartError` if Ray can't be reached.
        """
        try:
            _connection.hold(self._address)
        except (OSError, RuntimeError) as error:
            raise WorkerStartError(f"Ray can't be reached: {error}") from error
        return RayPool(self._options, settings, inbox, _connection.release)

    def __repr__(self) -> str:
        return f"RayBackend({'' if self._address is None else repr(self._address)})"


class _Connection:
    """The connection of this process to Ray; there is one at a time. Ended here only if it was made here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._ours: str | None = None  #: the node that was started here; no other session has it

    def ensure(self, address: str | None) -> None:
        """Connect, if this process is not connected."""
        with self._lock:
            self._ensure(address)

    def hold(self, address: str | None) -> None:
        """Connect, and stay so until `release`."""
        with self._lock:
            self._ensure(address)
            self._holders += 1

    def release(self) -> None:
        """End one hold; the last one ends a Ray that was started here."""
        with self._lock:
            self._holders -= 1
            if self._holders == 0 and self._ours is not None:
                with contextlib.suppress(Exception):  # other code has ended it
                    if _node() == self._ours:  # otherwise the program has another one by now
                        ray.shutdown()
                self._ours = None

    def _ensure(self, address: str | None) -> None:
        if ray.is_initialized():
            there = ray.get_runtime_context().gcs_address
            if address not in (None, "auto", "local", there):
                raise ValueError(f"address: expected that of the Ray which this process uses, {there}, got {address!r}")
            return
        # On other threads than the main one it would warn that it can't handle signals.
        is_main = threading.current_thread() is threading.main_thread()
        ray.init(address, include_dashboard=False, logging_level=logging.WARNING if is_main else logging.ERROR)
        self._ours = _node()


def _node() -> str | None:
    """The node of the Ray that this process is connected to."""
    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else None


_connection = _Connection()
