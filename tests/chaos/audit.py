"""Whether the books balance: each item ended once and rightly, and nobody was charged for what others did."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from mpqueue import (
    GiveUp,
    ItemCancelledError,
    ItemPicklingError,
    ItemStatus,
    ItemTimeoutError,
    Job,
    JobItem,
    JobRun,
    JobStatus,
    MemoryLimitError,
    ResultPicklingError,
    SetupError,
    WorkerCrashedError,
)
from tests.chaos.deeds import BREAKS, CRASHES, HANGS, HOGS, HOPELESS, RAISES, Deed, is_right
from tests.chaos.witness import Told

#: Seconds by which a difference of two times since the epoch may be off.
ROUNDING = 1e-3


@dataclass(eq=False)
class Case:
    """A job, and what was done to it."""

    job: Job
    deeds: list[Deed]
    max_retries: int
    timeout: float | None
    good_setup: bool
    max_failures: int | None = None
    is_open: bool = False  #: it takes more items, each a deed that was entered before
    starting: threading.Lock = field(default_factory=threading.Lock)  #: held while it is started (again)
    runs: list[JobRun] = field(default_factory=list)
    history_before: list[int] = field(default_factory=list)  #: entries before the last `retry_failed`
    dropped: set[int] = field(default_factory=set)  #: items that were cancelled since they were last started
    was_paused: bool = False
    was_killed: bool = False
    audited: bool = False

    @property
    def over(self) -> bool:
        """True where every run of it has resolved and none will begin."""
        return all(run.done() for run in self.runs) and (self.job.status.final or not self.runs)


@dataclass
class Struck:
    """What befell worker processes. Written by several threads, one entry at a time."""

    signals: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))  #: sent from outside
    stopped: set[int] = field(default_factory=set)


class Audit:
    """The checks of one queue's jobs. ``objections`` is what is wrong."""

    def __init__(self, struck: Struck) -> None:
        self._struck = struck
        self._charged: Counter[int] = Counter()  #: tries charged for the death of each process

    def of(self, case: Case, told: Told) -> Iterator[str]:
        """What is wrong with a job that is over."""
        job = case.job
        for objection in (*self._of_job(case), *_of_what_it_was_given(case), *_of_events(case, told)):
            yield f"{job.id} ({job.status}, {len(case.runs)} runs): {objection}"
        yield from self.of_items(case)

    def of_items(self, case: Case) -> Iterator[str]:
        """What is wrong with its items."""
        # An open job may have ended before it got all that it was offered.
        for index, (deed, item) in enumerate(zip(case.deeds, case.job.items, strict=not case.is_open)):
            before = case.history_before[index] if case.history_before else 0
            for objection in self._of_item(case, index, deed, item, before):
                yield f"{case.job.id}, {deed.kind} {deed.id} ({item.status}, {item.attempts} tries): {objection}"

    def _of_job(self, case: Case) -> Iterator[str]:
        job = case.job
        statuses = Counter(item.status for item in job.items)
        if not case.runs:
            if job.status not in (JobStatus.PENDING, JobStatus.CANCELLED) or statuses[ItemStatus.PENDING] != job.total:
                yield "never started"
            return
        if not job.status.final:
            yield "not over"
        if (job.completed, job.failed) != (statuses[ItemStatus.COMPLETED], statuses[ItemStatus.FAILED]):
            yield f"counters {job.completed}, {job.failed}, items {statuses}"
        if job.cancelled != (job.status is JobStatus.CANCELLED):
            yield f"cancelled is {job.cancelled}"
        if job.paused:
            yield "still paused"
        unfinished = job.total - job.completed - job.failed
        ended_well = not unfinished and (job.status is JobStatus.COMPLETED) == (job.failed == 0)
        if job.status is not JobStatus.CANCELLED and not ended_well:
            yield f"{unfinished} items did not end, {job.failed} failed"
        if unfinished != statuses[ItemStatus.PENDING]:
            yield f"items {statuses}"
        yield from _of_times(job)

    def _of_item(self, case: Case, index: int, deed: Deed, item: JobItem, before: int) -> Iterator[str]:
        tries = item.history[before:]
        charged = 0
        for entry in tries:
            charged += not isinstance(entry.exception, ItemPicklingError) and deed.kind != "unreadable"
            if not self._may_have_failed_so(case, deed, entry, charged):
                sent, deaths = self._struck.signals.get(entry.pid or 0), self._charged[entry.pid or 0]
                yield f"try {charged} failed with {entry.exception!r}; its worker got {sent}, charged {deaths} times"
        match item.status:
            case ItemStatus.COMPLETED:
                yield from _of_completed(deed, item, charged, case)
            case ItemStatus.FAILED:
                yield from self._of_failed(index, deed, item, charged, case)
            case _:
                if item.attempts != charged:
                    yield f"{charged} charged tries in {tries}"
        if item.attempts > case.max_retries + 1:
            yield f"more than {case.max_retries} retries"

    def _may_have_failed_so(self, case: Case, deed: Deed, entry: Any, attempt: int) -> bool:
        """Whether a try of this deed may have failed in this way: by itself, by our strike, by its timeout."""
        error = entry.exception
        bad = attempt <= deed.until
        if isinstance(error, WorkerCrashedError):
            self._charged[entry.pid] += 1
            by_itself = bad and (deed.kind in CRASHES or deed.kind in BREAKS)
            sent = self._struck.signals.get(entry.pid, set())
            by_us = bool(sent) and (error.signal is None or error.signal in sent)
            return (by_itself or by_us) and self._charged[entry.pid] == 1
        if isinstance(error, MemoryLimitError):
            self._charged[entry.pid] += 1
            return deed.kind in HOGS and bad and self._charged[entry.pid] == 1
        if isinstance(error, ItemTimeoutError):
            self._charged[entry.pid] += 1
            return case.timeout is not None and entry.duration >= case.timeout and self._charged[entry.pid] == 1
        if deed.kind in HOPELESS:
            return isinstance(
                error,
                {
                    "give up": GiveUp,
                    "return a lock": ResultPicklingError,
                    "unpicklable": ItemPicklingError,
                    "unreadable": ValueError,
                }[deed.kind],
            )
        return bad and (deed.kind in RAISES or deed.kind in BREAKS or deed.kind == "ask")

    def _of_failed(self, index: int, deed: Deed, item: JobItem, charged: int, case: Case) -> Iterator[str]:
        error = item.exception
        if item.attempts != charged:
            yield f"{charged} charged tries in {item.history}"
        if isinstance(error, ItemCancelledError):
            if index not in case.dropped:
                yield "cancelled by nobody"
        elif isinstance(error, SetupError):
            cause = error.__cause__
            struck = isinstance(cause, WorkerCrashedError) and cause.pid in self._struck.signals
            if case.good_setup and not struck:
                yield f"failed with {error!r} from {cause!r}"
        elif not item.history or item.history[-1].exception is not error:
            yield f"failed with {error!r}, its last try with {item.history[-1:]}"
        elif charged <= case.max_retries and deed.kind not in HOPELESS and index not in case.dropped:
            yield f"given up early, with {error!r}"

    @staticmethod
    def of_uses(log: Path) -> Iterator[str]:
        """What items found that were told which of a resource is theirs: that another had it, too."""
        wrong = Path(f"{log}-uses")
        for line in wrong.read_text().splitlines() if wrong.exists() else ():
            yield f"two had the same of a resource at the same time: {line}"

    @staticmethod
    def of_forks(log: Path) -> Iterator[str]:
        """What children of workers found: the item that they were forked with, to the end."""
        wrong = Path(f"{log}-forks")
        for line in wrong.read_text().splitlines() if wrong.exists() else ():
            yield f"a child of a worker saw another item's data in the place of item {line}"

    def of_executions(self, log: Path, cases: Sequence[Case]) -> Iterator[str]:
        """Handlers are called once a try, but where their worker died: it calls nothing after the second call."""
        calls: dict[tuple[str, str, str], list[tuple[int, int]]] = defaultdict(list)
        last: dict[int, int] = {}  #: the line of the last call of each worker
        for at, line in enumerate(log.read_text().splitlines() if log.exists() else ()):
            job_id, item, attempt, pid = line.rsplit(" ", 3)
            calls[job_id, item, attempt].append((at, int(pid)))
            last[int(pid)] = at
        runs = {case.job.id: len(case.runs) for case in cases}
        for (job_id, item, attempt), found in calls.items():
            excused = sum(last[pid] < again for (_, pid), (again, _) in pairwise(found))
            if job_id in runs and len(found) - excused > runs[job_id]:
                yield f"{job_id}, item {item}, try {attempt}: called in {[pid for _, pid in found]}"


def _of_completed(deed: Deed, item: JobItem, charged: int, case: Case) -> Iterator[str]:
    number, attempt, content = item.result or (None, 0, None)
    if number != deed.id or not is_right(deed, content):
        yield f"a wrong result {item.result!r:.100}"
    if item.attempts != charged + 1 or attempt != item.attempts:
        yield f"{charged} charged tries before, its result says try {attempt}"
    let_go = deed.kind in HANGS
    if (attempt <= deed.until and not let_go) or deed.kind in HOPELESS:
        yield "completed against its nature"
    if item.error is not None:
        yield f"error {item.error}"
    if deed.kind == "watch" and content == "cancelled" and not case.job.cancelled:
        yield "told that its job is cancelled"
    if deed.kind == "watch" and content == "paused" and not case.was_paused:
        yield "told that its job is paused"


def _of_what_it_was_given(case: Case) -> Iterator[str]:
    job = case.job
    if (job.stopped_why is not None) > (job.cancelled and case.max_failures is not None):
        yield f"stopped, since {job.stopped_why}"
    if job.total > len(case.deeds):
        yield f"{job.total} items, of {len(case.deeds)} that it was offered"


def _of_events(case: Case, told: Told) -> Iterator[str]:
    job = case.job
    expected = len(case.runs)
    if (told.runs, told.finished) != (expected, max(expected, job.status is JobStatus.CANCELLED)):
        yield f"{told.runs} times started and {told.finished} times finished by events"
    if told.last is not None:
        said = (told.last.status, told.last.completed, told.last.failed)
        if said != (job.status, job.completed, job.failed):
            yield f"its last event said {said}"
    elif job.status.final:
        yield "no event told its end"
    retries = sum(told.retries.values())
    if retries > sum(max(0, item.attempts) for item in job.items):
        yield f"{retries} retries were told"


def _of_times(job: Job) -> Iterator[str]:
    if job.started_at is None or job.finished_at is None or job.duration is None:
        yield "without its times"
    elif job.duration < 0 or abs(job.finished_at - job.started_at - job.duration) > ROUNDING:
        yield f"took {job.duration}, from {job.started_at} to {job.finished_at}"
