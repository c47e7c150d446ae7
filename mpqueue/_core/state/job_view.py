"""The readable side of a job, whether its books are kept here (`JobBook`) or a journal has them (`RecordedBook`)."""

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

    @property
    def table(self) -> ItemTable:
        """Its items. Raises `JournalError` where they are in a journal that can't be read."""

    @property
    def options(self) -> JobOptions:
        """The options that it was created with."""

    @property
    def status(self) -> JobStatus:
        """Its status."""

    @property
    def paused(self) -> bool:
        """True while no new item may start because of `pause`."""

    @property
    def sealed(self) -> bool:
        """False while its user may still add items."""

    @property
    def stopped_why(self) -> str | None:
        """Why it was cancelled, if no user did that."""

    @property
    def interrupted(self) -> WorkerStartError | None:
        """Why it could not go on, where no worker could be had."""

    @property
    def cancelled(self) -> bool:
        """True from `cancel` on."""

    @property
    def total(self) -> int:
        """Number of its items."""

    @property
    def completed(self) -> int:
        """Number of items that completed."""

    @property
    def failed(self) -> int:
        """Number of items that failed for good."""

    @property
    def retries(self) -> int:
        """Tries that failed and were to be followed by another."""

    @property
    def retries_before(self) -> int:
        """Part of the ``retries`` that is of runs before the one of these books, as far as is known."""

    @property
    def tries_before(self) -> Mapping[int, int]:
        """By index: how many failed tries of an item's history are of runs before this one, as far as is known."""

    @property
    def started_at(self) -> float | None:
        """Seconds since the epoch; None before."""

    @property
    def finished_at(self) -> float | None:
        """Seconds since the epoch; None before."""

    @property
    def duration(self) -> float | None:
        """Seconds from its start to its end."""

    @property
    def epoch(self) -> int:
        """Number of times that it was started; if nothing runs, any number that changes when its items do."""

    @property
    def here(self) -> bool:
        """False for a job that only a journal has."""

    @property
    def lanes(self) -> int:
        """The lanes that have its items in hand, as a set (`mpqueue._core.state.lane_sets`)."""

    @property
    def past(self) -> PastRun | None:
        """The run before the one of which these books are; None where there was none."""

    @property
    def timings(self) -> Timings:
        """Its times, and where they went; empty for a job that another program ran."""
