"""What a lane is: one worker and what belongs to it. The coordinator and the scheduler know this page, no engine.

A pool holds a fixed number of lanes, numbered from 0. A lane's worker may die and be replaced: each worker is a new
*generation* of its lane, with a new process, new flags and a new ledger. Everything that a pool has to say it posts to
the coordinator's inbox, as the messages of `mpqueue._core.messages`: `LaneReady`, `LaneStartFailed`, `LaneDied`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from mpqueue._core.messages import Message
from mpqueue._wire.ledger import Ledger

Post = Callable[[Message], None]


class LaneSettings(NamedTuple):
    """What every worker of a pool starts with."""

    concurrency: int
    threads_per_worker: int | None = None  #: None: CPUs / workers, at least 1


class Lane(Protocol):
    """One generation of a lane, as the coordinator holds it. No method blocks."""

    number: int
    generation: int
    pid: int
    ledger: Ledger

    def send(self, frame: bytes) -> Future[bytes]:
        """Hand ``frame`` to the worker, which answers with a frame. At most two are under way at a time.

        Where the worker is dead or dies, the future fails with any exception; `LaneDied` follows. Never raises.
        """
        ...

    def set_flags(self, job: int, *, pause: bool, cancel: bool) -> None:
        """Make the flags say this of the job of that number, in call order, on a thread that may be abandoned."""
        ...

    def read_outbox(self, size: int, at: int = 0) -> bytes:
        """``size`` bytes of what the worker left in its outbox, from ``at`` on."""
        ...

    def kill(self, *, dump_stack: bool = False) -> None:
        """Kill the worker and its process group now; with ``dump_stack``, ask it first where it is (50 ms at most)."""
        ...


class Pool(Protocol):
    """The lanes of a queue."""

    def start(self, number: int, generation: int) -> None:
        """Start a worker in the background; posts `LaneReady` or `LaneStartFailed`."""
        ...

    def lane(self, number: int) -> Lane | None:
        """The live lane of that number, None while it has none. Also after `LaneDied`, until `retire`."""
        ...

    def recycle(self, number: int) -> None:
        """Let an idle lane's worker end by itself (its `LaneDied` is not posted) and free what belonged to it."""
        ...

    def retire(self, number: int) -> None:
        """Free what belonged to a lane whose `LaneDied` has been handled."""
        ...

    def close(self, *, kill: bool) -> None:
        """End every worker (by itself where it is idle, else by a kill) and every thread.

        Returns when all are gone, or after 5 s with a logged warning that names what is left. Idempotent, callable
        from any thread.
        """
        ...
