"""How one job stands: what the header and the list of jobs show, and what each of its items is at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mpqueue._core.state.item_table import ItemTable
from mpqueue._live_page.items.listing import Listing
from mpqueue._live_page.looks.speed import Pace
from mpqueue._live_page.looks.timeline import FEW
from mpqueue._live_page.page_json import as_event, encode
from mpqueue._live_page.served import Served, ShownJob
from mpqueue._parent.running import LaneNow
from mpqueue.events import milliseconds
from mpqueue.status import COMPLETED, FAILED, PENDING, PROCESSING, RETRY


class Shown(NamedTuple):
    """A job at one moment: nothing in ``state`` says other than ``statuses``, a byte for each item of ``table``.

    That may be another table later, where the job is in a journal.
    """

    state: dict[str, Any]
    statuses: bytes
    table: ItemTable


class JobFeed:
    """Of one job."""

    def __init__(self, book: ShownJob, served: Served) -> None:
        self.book = book
        self.listing = Listing(book, served.now)
        self._has_report = served.has_report
        self._pace = Pace()
        self._running: tuple[int, ...] = ()
        self._fractions = 0.0
        self._before: int | None = None  #: jobs that go before it, where it waits for workers
        self._seen: Any = None  #: what its items were at when ``version`` changed last
        self._version = 0
        self._changed_at = book.finished_at or book.started_at
        self._told: dict[str, Any] | None = None
        self._settled: int | None = None  #: the epoch whose end viewers know

    def look(self, now: float, wall: float, lanes: Iterable[LaneNow], standing: Mapping[int, int]) -> None:
        """Take in what its lanes are at."""
        book, running = self.book, [lane for lane in lanes if len(lane.items) <= FEW] if self.book.active else []
        # Where so many run at a time that they are over in no time, each of them can't be seen running.
        self._running = tuple(sorted({index for lane in running for index in lane.items}))
        self._fractions = sum(lane.fraction for lane in running)
        self._before = standing.get(book.number)
        ended = book.completed + book.failed
        self._pace.look(now, ended, self._fractions, running=book.status == "running")
        seen = (book.status, book.epoch, book.total, book.completed, book.failed, book.retries, self._running)
        if seen != self._seen:
            if self._seen is not None:
                self._changed_at = wall
            self._seen = seen
            self._version += 1

    @property
    def settled(self) -> bool:
        """True for a job that has ended, and of which nothing is left to tell, unless it runs again."""
        return self._settled == self.book.epoch and self.book.status.final

    # -- what is shown ---------------------------------------------------------------------------------------

    def shown(self) -> Shown:
        """How it stands, with all its items. Reads the whole column: 10 us for 100,000 items."""
        status = str(self.book.status)  # first: where it says that all is over, the column says so too
        table = self.book.table
        statuses = self._statuses(table)
        return Shown(self._state(status, statuses), statuses, table)

    def state(self) -> dict[str, Any]:
        """How it stands. Of a job that does not run, its items are not looked at: they may be in a journal."""
        if self.book.active:
            return self.shown().state
        return self._state(str(self.book.status), None)

    def _statuses(self, table: ItemTable) -> bytes:
        count = len(table)  # first: a row is whole once it counts
        column = bytearray(bytes(table.status)[:count])
        for index in self._running if self.book.active else ():
            if index < count and column[index] not in (COMPLETED, FAILED):  # the claim may be older than the outcome
                column[index] = PROCESSING
        return bytes(column)

    def _state(self, status: str, statuses: bytes | None) -> dict[str, Any]:
        book = self.book
        if statuses is None:
            total, completed, failed, retry, processing = book.total, book.completed, book.failed, 0, 0
            pending = max(0, total - completed - failed)
        else:
            total = len(statuses)
            completed, failed, retry = statuses.count(COMPLETED), statuses.count(FAILED), statuses.count(RETRY)
            pending, processing = statuses.count(PENDING), statuses.count(PROCESSING)
        done = min(total, completed + failed + self._fractions)
        rate, eta = self._pace.rate, self._pace.eta(total - done)
        state: dict[str, Any] = {
            "jobId": book.id,
            "number": book.number,
            "status": status,
            "version": self._version,
            "total": total,
            "completed": completed,
            "failed": failed,
            "cancelled": book.cancelled,
            "retries": book.retries,
            "done": round(done, 2),
            "priority": book.options.priority,
            "counts": {
                "completed": completed,
                "failed": failed,
                "retry": retry,
                "processing": processing,
                "pending": pending,
            },
        }
        if book.started_at is not None:
            state["startedAt"] = milliseconds(book.started_at)
        if book.finished_at is not None:
            state["finishedAt"] = milliseconds(book.finished_at)
        if self._changed_at is not None:
            state["changedAt"] = milliseconds(self._changed_at)
        if not book.here:
            state["recorded"] = True
        if self._has_report(book):
            state["report"] = True
        if book.stopped_why is not None:
            state["stoppedWhy"] = book.stopped_why
        if status == "running" and self._before is not None:
            state["before"] = self._before
        if book.active and rate is not None and eta is not None:
            state |= {"rate": float(f"{rate:.4g}"), "eta": milliseconds(eta)}
        return state

    def state_event(self) -> bytes:
        """``job:state``."""
        return as_event("job:state", encode(self.state()))

    def state_changed(self) -> bool:
        """True where its state is not as it was when this was asked last."""
        if self.settled:
            return False
        ended = self.book.status.final
        told, self._told = self._told, self.state()
        self._settled = self.book.epoch if ended else None
        return told != self._told
