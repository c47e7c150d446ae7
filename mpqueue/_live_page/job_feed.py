"""The state of one job for its header and the list of jobs, the states of its items, and its workers' last minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import ceil, inf
from typing import Any, NamedTuple

from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.timings import Span
from mpqueue._live_page.listing import Listing
from mpqueue._live_page.page_json import encode
from mpqueue._live_page.served import ShownJob
from mpqueue._os.process_facts import use_of
from mpqueue._output.job_facts import Counts, Watch, count_statuses, facts_of, left_of
from mpqueue._parent.running import LaneNow
from mpqueue._report.job_report import has_report
from mpqueue.events import milliseconds
from mpqueue.status import COMPLETED, FAILED, PROCESSING, JobStatus

#: The most items of a lane, running one after another, that are shown as running.
FEW = 32


class JobFeed:
    """The view of one job: its state, and the list of its items.

    ``version`` changes whenever one of its items does; it goes on from that of an earlier view of the job.
    """

    def __init__(self, book: ShownJob, now: Callable[[], float], version: int = 0) -> None:
        self.book = book
        self.listing = Listing(book, now)
        self._watch = Watch(book)
        self._now = now
        self._facts = facts_of(book, now())
        self._running: tuple[int, ...] = ()
        self._before: int | None = None  #: jobs that go before it, if it waits for workers
        self._seen: Any = None  #: how it stood at the last look
        self.version = version
        self._form = ""
        self._settled: int | None = None  #: the epoch whose end viewers know

    def look(self, now: float, lanes: Iterable[LaneNow], standing: Mapping[int, int]) -> None:
        """Take in what the job's lanes are at."""
        book, running = self.book, [lane for lane in lanes if len(lane.items) <= FEW] if self.book.active else []
        # If that many run at a time, each is over in no time, and can't be seen running.
        self._running = tuple(sorted({index for lane in running for index in lane.items}))
        self._facts = self._watch.look(now, sum(lane.fraction for lane in running))
        self._before = standing.get(book.number)
        # The epoch comes first: an end then belongs to it, or to a later one.
        seen = (book.epoch, book.status, book.total, book.completed, book.failed, book.retries, self._running)
        if seen != self._seen:
            self._seen = seen
            self.version += 1

    @property
    def settled(self) -> bool:
        """True for an ended job with no more news, unless it runs again."""
        return self._settled == self.book.epoch and self.book.status.final

    # -- what is shown ---------------------------------------------------------------------------------------

    def shown(self) -> tuple[dict[str, Any], bytes]:
        """Return the job's state, and the statuses that agree with it, a byte for each item.

        Reads the whole column: 10 us per 100,000 items.
        """
        table = self.book.table  # if it is read from a journal now, the status is of the same moment
        status = str(self.book.status)  # before the column: if the status is final, the column is too
        count = len(table)  # first: a row is complete once it counts
        column = bytearray(bytes(table.status)[:count])
        for index in self._running if self.book.active else ():
            if index < count and column[index] not in (COMPLETED, FAILED):  # the claim may be older than the outcome
                column[index] = PROCESSING
        statuses = bytes(column)
        return self._state(status, statuses), statuses

    def state(self) -> dict[str, Any]:
        """Return the job's state. Items of a job that does not run are not read: they may be in a journal."""
        if self.book.active:
            state, _ = self.shown()
            return state
        return self._state(str(self.book.status), None)

    def _state(self, status: str, statuses: bytes | None) -> dict[str, Any]:
        book = self.book
        if statuses is None:
            counts = Counts(book.completed, book.failed, 0, 0, left_of(book))
        else:
            counts = count_statuses(statuses)
        runs, is_over = status == "running", JobStatus(status).final
        stage = book.stage if isinstance(book, JobBook) else None
        facts = facts_of(book, self._now()) if is_over else self._facts
        rate = facts.rate if runs or is_over else None
        # More items may have come since the look. Of a stage, the total is known before all its items have come.
        total = max(counts.total, facts.total or 0)
        state = {
            "jobId": book.id,
            "number": book.number,
            "status": status,
            "version": self.version,
            "total": total,
            "completed": counts.completed,
            "failed": counts.failed,
            "cancelled": book.cancelled,
            "retries": book.retries,
            "done": round(min(total, counts.completed + counts.failed + facts.partly_done), 2),
            "counts": counts._asdict(),
        }
        known = {
            "startedAt": _milliseconds(book.started_at),
            "finishedAt": _milliseconds(book.finished_at),
            "recorded": None if book.here else True,
            "stage": None if stage is None else stage.pipeline.head.number,
            "report": has_report(book) or None,
            "stoppedWhy": book.stopped_why,
            "before": self._before if runs else None,
            "rate": None if rate is None else float(f"{rate:.4g}"),
            "eta": None if facts.eta is None or not runs else 1000 * ceil(facts.eta),  # never 0:00 before the end
            "starting": facts.starting or None,
            "soFar": ((facts.total is None or facts.grows) and not is_over) or None,
        }
        return state | {name: value for name, value in known.items() if value is not None}

    def form(self) -> str:
        """Return the job's state as JSON, for viewers."""
        if not self.settled:
            self._form = encode(self.state())
            # An end since the last look is not settled: viewers ask for its rows when the version changes.
            epoch, status, *_ = self._seen
            self._settled = epoch if status.final else None
        return self._form


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else milliseconds(seconds)


# -- The workers' last minutes, by the reports and deaths that the jobs' `Timings` have. -------------------------------

#: Seconds that are shown at most.
WINDOW = 300.0
#: Seconds of loading and setup from which on they are shown apart from the items behind them.
LONG = 0.1
#: The name in a job's `Timings` for the end of a worker.
DIED = "worker died"


class Stretch(NamedTuple):
    """A time in which a worker did one thing: ``running`` or ``loading``. ``item``: the index of the only one."""

    lane: int
    start: float
    end: float
    kind: str
    job: int
    item: int | None


def history(jobs: Iterable[ShownJob], since: float, offset: float) -> dict[str, Any]:
    """Return for JSON what workers did since that moment, and their unexpected ends. Costs 2 us per report.

    ``offset`` turns moments of the monotonic clock into seconds since the epoch.
    """
    here = [job for job in jobs if job.here and (job.timings.finished or inf) >= since]
    work = [stretch for job in here for span in job.timings.spans(since) for stretch in _work(span, job.number)]
    deaths = [
        (event, job.number)
        for job in here
        for event in list(job.timings.events)
        if event.name == DIED and event.at >= since
    ]
    # Each active job has a death; the job whose items were lost has them too.
    deaths.sort(key=lambda death: death[0].since is not None)
    ends = {(event.lane, event.at): (event, job) for event, job in deaths}
    for event, job in ends.values():
        if event.since is not None:
            work.append(Stretch(event.lane or 0, event.since, event.at, "running", job, event.item))
    work.sort(key=lambda stretch: stretch.start)

    def ms(moment: float) -> int:
        return milliseconds(moment + offset)

    return {
        "stretches": [one._replace(start=ms(one.start), end=ms(one.end)) for one in work],
        "marks": [[event.lane, ms(event.at), event.why, job, event.item] for event, job in ends.values()],
    }


def _work(span: Span, job: int) -> Iterator[Stretch]:
    lane, item = int(span.lane), int(span.first) if span.items == 1 else None
    start = span.begun + span.loading + span.setup
    if start - span.begun < LONG:
        start = span.begun
    else:
        yield Stretch(lane, span.begun, start, "loading", job, None)
    if span.items:  # else it was taken back for another worker before it had begun
        yield Stretch(lane, start, span.ended, "running", job, item)


def use_now(lanes: Sequence[LaneNow]) -> list[list[Any]]:
    """Return the CPU seconds of each worker's process, its memory in bytes, and its start, as far as known.

    Costs 20 us per worker. A start distinguishes a process from the one before it.
    """
    used = [(lane.number, None if lane.pid is None else use_of(lane.pid)) for lane in lanes]
    return [[number, use.cpu, use.memory, use.started] for number, use in used if use is not None]
