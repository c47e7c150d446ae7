"""What can be read of a job, whether its books are kept here (`JobBook`) or a journal remembers it (`RecordedBook`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.timings import PastRun, Timings
from mpqueue._options import JobOptions
from mpqueue.errors import WorkerStartError
from mpqueue.status import JobStatus


class JobView(Protocol):
    """The books of a job, to be read on any thread. `Job` shows users these, and a report is made of them."""

    @property
    def id(self) -> str:
        """The job's id."""
        ...

    @property
    def table(self) -> ItemTable:
        """Its items. Raises `JournalError` where they are in a journal that can't be read."""
        ...

    @property
    def options(self) -> JobOptions:
        """What it was created with."""
        ...

    @property
    def status(self) -> JobStatus:
        """Where it is."""
        ...

    @property
    def paused(self) -> bool:
        """True while no new item may start because of `pause`."""
        ...

    @property
    def sealed(self) -> bool:
        """False while its user may still add items."""
        ...

    @property
    def stopped_why(self) -> str | None:
        """Why it was cancelled, if no user did that."""
        ...

    @property
    def interrupted(self) -> WorkerStartError | None:
        """Why it could not go on, where no worker could be had."""
        ...

    @property
    def cancelled(self) -> bool:
        """True from `cancel` on."""
        ...

    @property
    def total(self) -> int:
        """How many items it has."""
        ...

    @property
    def completed(self) -> int:
        """How many of them completed."""
        ...

    @property
    def failed(self) -> int:
        """How many failed for good."""
        ...

    @property
    def retries(self) -> int:
        """Tries that failed and were to be followed by another."""
        ...

    @property
    def retries_before(self) -> int:
        """Those of them that are of runs before the one of which these books are, as far as is known."""
        ...

    @property
    def tries_before(self) -> Mapping[int, int]:
        """By index: how many failed tries of an item's history are of runs before this one, as far as is known."""
        ...

    @property
    def started_at(self) -> float | None:
        """Seconds since the epoch; None before."""
        ...

    @property
    def finished_at(self) -> float | None:
        """Seconds since the epoch; None before."""
        ...

    @property
    def duration(self) -> float | None:
        """Seconds from its start to its end."""
        ...

    @property
    def epoch(self) -> int:
        """How often it was started; where nothing runs, any number that changes when its items do."""
        ...

    @property
    def here(self) -> bool:
        """False for a job that only a journal has."""
        ...

    @property
    def lanes(self) -> int:
        """The lanes that have its items in hand, as a set (`mpqueue._core.state.lane_sets`)."""
        ...

    @property
    def past(self) -> PastRun | None:
        """The run before the one of which these books are; None where there was none."""
        ...

    @property
    def timings(self) -> Timings:
        """Where its time went; of a job that another program ran: nothing."""
        ...
