"""What is sent of one job: its state, and its items as JSON, each encoded when it has changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mpqueue._core.state.job_book import JobBook
from mpqueue._live_page.changes import Changes
from mpqueue._live_page.page_json import as_event, encode, encode_item
from mpqueue._live_page.speed import Pace
from mpqueue._live_page.timeline import FEW
from mpqueue._parent.running import LaneNow
from mpqueue.events import milliseconds
from mpqueue.status import COMPLETED, FAILED, PENDING, RETRY


class JobFeed:
    """Of one job."""

    def __init__(self, book: JobBook) -> None:
        self.book = book
        self._changes = Changes(book)
        self._pace = Pace()
        self._lines: list[bytes | None] = [None] * len(book.table)
        self._processing: list[int] = []
        self._fractions = 0.0
        self._told: dict[str, Any] | None = None
        self._told_last = False  #: `_told` is of a job that was settled
        self._settled: int | None = None  #: the epoch whose end has been sent, to the last item

    def look(self, now: float, lanes: Iterable[LaneNow]) -> None:
        """Take in what its lanes are at."""
        book, running = self.book, [lane for lane in lanes if len(lane.items) <= FEW] if self.book.active else []
        # Where so many run at a time that they are over in no time, each of them can't be seen running.
        self._processing = [index for lane in running for index in lane.items]
        self._fractions = sum(lane.fraction for lane in running)
        self._pace.look(now, book.completed + book.failed, self._fractions, running=book.status == "running")

    @property
    def settled(self) -> bool:
        """True for a job that has ended, and of which nothing is left to tell, unless it runs again."""
        return self._settled == self.book.epoch and self.book.status.final

    # -- items -----------------------------------------------------------------------------------------------

    def encode_changed(self, most: int) -> list[int]:
        """Encode up to ``most`` items that have changed; returns their indices."""
        if self.settled:
            return []
        ended = self.book.status.final
        changed = self._changes.look(self._processing, most)
        if ended and not changed:
            self._settled = self.book.epoch
        if changed and (new := len(self.book.table) - len(self._lines)) > 0:
            self._lines += [None] * new
        for index, status in changed:
            self._lines[index] = encode_item(self.book.table, index, status)
        return [index for index, _ in changed]

    def forget_items(self) -> None:
        """There are no viewers: free what was encoded."""
        self._settled = None
        self._changes.forget()
        self._lines = [None] * len(self.book.table)

    def progress_event(self, indices: Sequence[int] | None) -> bytes:
        """``job:progress`` with these items; with None all that were encoded."""
        book = self.book
        lines = self._lines if indices is None else [self._lines[index] for index in indices]
        head = {
            "jobId": book.id,
            "status": str(book.status),
            "total": len(book.table),
            "completed": book.completed,
            "failed": book.failed,
            "paused": book.paused,
        }
        start = encode(head)[:-1].encode()
        return as_event("job:progress", b'%s,"items":[%s]}' % (start, b",".join(filter(None, lines))))

    # -- the job ---------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What the wire form of its progress does not have; and that without the items."""
        book, status = self.book, self.book.table.status
        done = book.completed + book.failed + self._fractions
        rate, eta = self._pace.rate, self._pace.eta(len(book.table) - done)
        completed, failed, retry, processing = (
            status.count(COMPLETED),
            status.count(FAILED),
            status.count(RETRY),
            len(self._processing),
        )
        state: dict[str, Any] = {
            "jobId": book.id,
            "number": book.number,
            "status": str(book.status),
            "total": len(book.table),
            "completed": book.completed,
            "failed": book.failed,
            "cancelled": book.cancelled,
            "retries": book.retries,
            "done": round(done, 2),
            "priority": book.options.priority,
            "sparse": self._changes.sparse,
            "counts": {
                "completed": completed,
                "failed": failed,
                "retry": retry,
                "processing": processing,
                "pending": max(0, status.count(PENDING) - processing),
            },
        }
        if book.started_at is not None:
            state["startedAt"] = milliseconds(book.started_at)
        if book.finished_at is not None:
            state["finishedAt"] = milliseconds(book.finished_at)
        if book.active and rate is not None and eta is not None:
            state |= {"rate": float(f"{rate:.4g}"), "eta": milliseconds(eta)}
        return state

    def state_event(self) -> bytes:
        """``job:state``."""
        return as_event("job:state", encode(self.state()))

    def state_changed(self) -> bool:
        """True where its state is not as it was when this was asked last."""
        if self.settled and self._told_last:
            return False
        told, self._told = self._told, self.state()
        self._told_last = self.settled
        return told != self._told
