"""A Dask worker as the pool sees it: its slots, its nanny, and whether it is one for us."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpqueue._worker.elsewhere import hello
from mpqueue.errors import WorkerStartError

if TYPE_CHECKING:
    from mpqueue._engines.dask.dask_lane import DaskLane


@dataclass(eq=False)
class Host:
    """A Dask worker, and the lanes that have its slots."""

    address: str
    slots: int
    nanny: str | None = None
    lanes: dict[int, DaskLane] = field(default_factory=dict)
    unfit: BaseException | None = None  #: why it is none for us
    failures: int = 0  #: starts that failed there
    killed_for: DaskLane | None = None  #: the lane because of which it was killed
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self, told: hello.Introduction, *, needs_nanny: bool) -> None:
        """Raise `WorkerStartError` where what it said of itself makes it none for us."""
        difference = hello.find_difference(hello.introduce(), told)
        if difference is not None:
            raise WorkerStartError(difference)
        if needs_nanny and told["nanny"] is None:
            raise WorkerStartError(
                f"expected a nanny for each Dask worker, as all had one when the DaskBackend was made, got the worker "
                f"{self.address} without; start it with its nanny, or make the DaskBackend when it is there"
            )


def reason_of(host: Host, error: Exception) -> tuple[BaseException, bool]:
    """Why a worker could not be started there, and whether it would be no better the next time."""
    text = f"{type(error).__name__}: {error}"
    if "No module named 'mpqueue" in text or "Error during deserialization of the task graph" in text:
        where = f"where the Dask worker {host.address} or its scheduler runs"
        return WorkerStartError(f"expected mpqueue {where}, as it is here; install the same there ({text})"), True
    return error, isinstance(error, WorkerStartError)
