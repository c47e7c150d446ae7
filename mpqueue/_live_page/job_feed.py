"""The state of one job for its header and the list of jobs, and the states of its items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.timings import Span, Timings
from mpqueue._live_page.items.listing import Listing
from mpqueue._live_page.page_json import as_event, encode
from mpqueue._live_page.served import Served, ShownJob
from mpqueue._output.job_facts import Counts, Watch, count_statuses, facts_of, head_of, left_of
from mpqueue._parent.running import LaneNow
from mpqueue._report.paces import a_second
from mpqueue.events import milliseconds
from mpqueue.status import COMPLETED, FAILED, PROCESSING, JobStatus

#: The most items of a lane, running one after another, that are shown as running.
FEW = 32


class Shown(NamedTuple):
    """A job at one moment: ``state`` agrees with ``statuses``, a byte for each item of ``table``.

    If the job is in a journal, that may be another table later.
    """

    state: dict[str, Any]
    statuses: bytes
    table: ItemTable


class JobFeed:
    """The view of one job: its state, and the list of its items."""

    def __init__(self, book: ShownJob, served: Served) -> None:
        self.book = book
        self.listing = Listing(book, served.now)
        self._has_report = served.has_report
        self._watch = Watch(book)
        self._now = served.now
        self._facts = facts_of(book, served.now())
        self._running: tuple[int, ...] = ()
        self._before: int | None = None  #: jobs that go before it, if it waits for workers
        self._seen: Any = None  #: the states of its items when ``version`` last changed
        self._version = 0
        self._told: dict[str, Any] | None = None
        self._settled: int | None = None  #: the epoch whose end viewers know

    def look(self, now: float, lanes: Iterable[LaneNow], standing: Mapping[int, int]) -> None:
        """Take in what the job's lanes are at."""
        book, running = self.book, [lane for lane in lanes if len(lane.items) <= FEW] if self.book.active else []
        # If that many run at a time, each is over in no time, and can't be seen running.
        self._running = tuple(sorted({index for lane in running for index in lane.items}))
        self._facts = self._watch.look(now, sum(lane.fraction for lane in running))
        self._before = standing.get(book.number)
        seen = (book.status, book.epoch, book.total, book.completed, book.failed, book.retries, self._running)
        if seen != self._seen:
            self._seen = seen
            self._version += 1

    @property
    def settled(self) -> bool:
        """True for an ended job with no more news, unless it runs again."""
        return self._settled == self.book.epoch and self.book.status.final

    # -- what is shown ---------------------------------------------------------------------------------------

    def shown(self) -> Shown:
        """Return the job's state, with all its items. Reads the whole column: 10 us per 100,000 items."""
        status = str(self.book.status)  # first: if the status is final, the column is too
        table = self.book.table
        statuses = self._statuses(table)
        return Shown(self._state(status, statuses), statuses, table)

    def state(self) -> dict[str, Any]:
        """Return the job's state. Items of a job that does not run are not read: they may be in a journal."""
        if self.book.active:
            return self.shown().state
        return self._state(str(self.book.status), None)

    def _statuses(self, table: ItemTable) -> bytes:
        count = len(table)  # first: a row is complete once it counts
        column = bytearray(bytes(table.status)[:count])
        for index in self._running if self.book.active else ():
            if index < count and column[index] not in (COMPLETED, FAILED):  # the claim may be older than the outcome
                column[index] = PROCESSING
        return bytes(column)

    def _state(self, status: str, statuses: bytes | None) -> dict[str, Any]:
        book = self.book
        if statuses is None:
            counts = Counts(book.completed, book.failed, 0, 0, left_of(book))
        else:
            counts = count_statuses(statuses)
        runs, is_over = status == "running", JobStatus(status).final
        facts = facts_of(book, self._now()) if is_over else self._facts
        rate = facts.rate if runs or is_over else None
        state = {
            "jobId": book.id,
            "number": book.number,
            "status": status,
            "version": self._version,
            "total": counts.total,
            "completed": counts.completed,
            "failed": counts.failed,
            "cancelled": book.cancelled,
            "retries": book.retries,
            "done": round(min(counts.total, counts.completed + counts.failed + facts.partly_done), 2),
            "counts": counts._asdict(),
        }
        known = {
            "startedAt": _milliseconds(book.started_at),
            "finishedAt": _milliseconds(book.finished_at),
            "recorded": None if book.here else True,
            "stage": head_of(book),
            "report": self._has_report(book) or None,
            "stoppedWhy": book.stopped_why,
            "before": self._before if runs else None,
            "rate": None if rate is None else float(f"{rate:.4g}"),
            "eta": _milliseconds(facts.eta) if runs else None,
            "starting": facts.starting or None,
        }
        return state | {name: value for name, value in known.items() if value is not None}

    def state_event(self) -> bytes:
        """The event ``job:state``."""
        return as_event("job:state", encode(self.state()))

    def state_changed(self) -> bool:
        """True if the job's state has changed since the last call."""
        if self.settled:
            return False
        ended = self.book.status.final
        told, self._told = self._told, self.state()
        self._settled = self.book.epoch if ended else None
        return told != self._told


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else milliseconds(seconds)


#: The number of equal stretches of time of a throughput.
STRETCHES = 120


def throughput(timings: Timings, now: float, offset: float) -> dict[str, Any] | None:
    """Return the completed and failed tries per second, by stretches of the job's run; None before the first.

    The value is for JSON.

    ``offset`` turns moments of the monotonic clock into seconds since the epoch. The tries of a report are spread
    evenly over its worker's time for them. Costs 2 us per report.
    """
    end = now if timings.finished is None else timings.finished
    length = end - timings.started
    spans = [span for span in timings.spans() if span.items]
    if not spans or length <= 0:
        return None

    def pace(count: Callable[[Span], float]) -> list[float]:
        counts = ((span.begun - timings.started, span.ended - timings.started, count(span)) for span in spans)
        return [round(one, 3) for one in a_second(counts, length, STRETCHES)]

    return {
        "since": round(1000 * (timings.started + offset)),
        "every": length / STRETCHES,
        "completed": pace(lambda span: span.items - span.failures),
        "failed": pace(lambda span: span.failures),
    }
