"""The outcomes of items whose try has ended, and of jobs whose items have ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mpqueue._core.commands import AnnounceFinished, AnnounceItems, ForgetJob, HurryJob, Retrying, SetFlags
from mpqueue._core.state.books import Books, Timer, TimerKind
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneState
from mpqueue._core.state.pipeline import InputsEnded
from mpqueue._core.state.timings import Event
from mpqueue.errors import ItemCancelledError, SetupError
from mpqueue.retry import Fail, decide_by
from mpqueue.status import PENDING, RETRY, JobStatus


@dataclass(slots=True)
class _Outcomes:
    """The outcomes of a report's items, for the announcement."""

    failed: set[int] = field(default_factory=set)
    retrying: dict[int, Retrying] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)  #: neither: pending again, because the job was cancelled


def record(
    books: Books,
    job: JobBook,
    indices: Sequence[int],
    results: list[Any],
    failures: dict[int, Failure],
    pid: int | None,
    size: int = 0,
) -> None:
    """Record the outcomes of tries: ``results`` by position (None if it failed), ``failures`` by position.

    ``size``: bytes of the results.
    """
    completed, failed = job.completed, job.failed
    outcomes = _Outcomes()
    if not failures:
        if indices:
            job.table.complete(indices, results)
            job.completed += len(indices)
    else:
        start = 0
        for position in [*sorted(failures), len(indices)]:
            if position > start:
                job.table.complete(indices[start:position], results[start:position])
                job.completed += position - start
            if position < len(indices):
                _record_failure(books, job, indices[position], failures[position], pid, outcomes)
            start = position + 1
    _announce(books, job, indices, outcomes, completed, failed, size)
    if job.stage is not None:
        _pass_on(books, job, indices, results, outcomes)
    finish_if_over(books, job)


def _pass_on(books: Books, job: JobBook, indices: Sequence[int], results: Sequence[Any], outcomes: _Outcomes) -> None:
    """Pass the results of ended items of a stage to the next stage, and finished inputs to the head."""
    assert job.stage is not None
    pipeline, failed = job.stage.pipeline, outcomes.failed
    if not pipeline.head.active:  # it has ended, say by an internal error
        return
    if outcomes.retrying or outcomes.silent:
        ended = [
            at for at, index in enumerate(indices) if index not in outcomes.retrying and index not in outcomes.silent
        ]
        indices, results = [indices[at] for at in ended], [results[at] for at in ended]
    through = pipeline.take_outcomes(job, indices, results, failed)
    for other in through.fed:
        assert other.stage is not None
        if unwanted := other.stage.take_unwanted():
            other.pending.remove(unwanted)
            drop(books, other, sorted(unwanted))
        if other.last_setup_failure is not None:
            fail_if_barred(books, other)
    if through.indices:
        _record_inputs(books, pipeline.head, through)


def _record_inputs(books: Books, head: JobBook, through: InputsEnded) -> None:
    new = [at for at, index in enumerate(through.indices) if not head.table.ended(index)]
    if new:  # the others had failed, before any could run
        failures = {place: through.failures[at] for place, at in enumerate(new) if at in through.failures}
        record(books, head, [through.indices[at] for at in new], [through.results[at] for at in new], failures, None)


def _record_failure(
    books: Books, job: JobBook, index: int, failure: Failure, pid: int | None, outcomes: _Outcomes
) -> None:
    attempt = job.table.fail_try(index, failure, pid)
    if failure.charged and index not in job.dropped:
        decision = decide_by(job.options.retry, attempt, failure.error, books.rng)
    else:
        decision = Fail("not charged, or cancelled")
    if isinstance(decision, Fail):
        if decision.error is not None:
            failure = replace(failure, error=decision.error, text=None)
        job.table.fail(index, failure)
        job.failed += 1
        outcomes.failed.add(index)
        if index in job.dropped:
            job.excused += 1  # the user's decision, which does not count against the other items
        else:
            count_failures(books, job)
    elif job.cancelled:
        outcomes.silent.add(index)
    else:
        job.table.status[index] = RETRY
        books.timers.add(books.now + decision.delay, TimerKind.RETRY, job.number, index, job.epoch)
        job.retries += 1
        job.timings.note(Event(books.now, "retry", None, index))
        outcomes.retrying[index] = Retrying(attempt, decision.delay, failure)


def _announce(
    books: Books, job: JobBook, indices: Sequence[int], outcomes: _Outcomes, completed: int, failed: int, size: int = 0
) -> None:
    if job.listed:
        books.ended.retries += len(outcomes.retrying)
        if job.stage is None:
            books.ended.completed += job.completed - completed
            books.ended.failed += job.failed - failed
    if outcomes.silent:
        indices = [index for index in indices if index not in outcomes.silent]
    if indices:
        books.commands.append(
            AnnounceItems(
                job, indices, frozenset(outcomes.failed), outcomes.retrying, completed, failed, job.status, size
            )
        )


def retry_due(books: Books, job_number: int, index: int, epoch: int) -> None:
    """Let an item run again whose delay is over."""
    job = books.jobs.get(job_number)
    if job is None or job.epoch != epoch or job.cancelled or job.table.status[index] != RETRY:
        return
    job.table.status[index] = PENDING
    job.table.forget_costs(index)
    job.pending.add_due(index)


def fail_rest(books: Books, job: JobBook, error: BaseException, traceback: str | None = None) -> None:
    """Fail every item of the job that has not ended with ``error``, without losing a try; then the job ends.

    ``traceback`` is that of its cause in a worker.
    """
    job.clear_waiting()
    failure = Failure(error, traceback, charged=False)
    fail(books, job, dict.fromkeys(job.table.unfinished(), failure))
    finish_if_over(books, job)


def fail(books: Books, job: JobBook, failures: Mapping[int, Failure]) -> None:
    """Fail these items, which have not ended and are not under way, by their indices. It is no try of theirs."""
    indices, completed, failed = [*failures], job.completed, job.failed
    for index, failure in failures.items():
        job.table.fail(index, failure)
    job.failed += len(indices)
    outcomes = _Outcomes(failed=set(indices))
    _announce(books, job, indices, outcomes, completed, failed)
    if indices and job.stage is not None:
        _pass_on(books, job, indices, [None] * len(indices), outcomes)


def fail_if_barred(books: Books, job: JobBook) -> bool:
    """Fail the remaining items if no lane can ever run them; True if that is so."""
    failure = job.last_setup_failure
    if failure is None or number_barred(job) < books.present or not _all_barred(books, job):
        return False
    error = SetupError(f"setup failed in every worker; the last one raised {failure.shown}")
    error.__cause__ = failure.error
    fail_rest(books, job, error, failure.traceback)
    return True


def _all_barred(books: Books, job: JobBook) -> bool:
    """True if no lane with room is left."""
    barred = {number for number, entry in job.setups.items() if entry.again_at is None}
    return bool(books.present) and all(lane.number in barred | books.absent for lane in books.lanes)


def number_barred(job: JobBook) -> int:
    """Return the number of lanes on which the job's setup has failed for good."""
    return sum(entry.again_at is None for entry in job.setups.values())


def finish_if_over(books: Books, job: JobBook) -> None:
    """End the job if nothing of it is left to do."""
    if not job.active or (job.pipeline is not None and not job.pipeline.is_over):
        return
    if books.draining and job.all_ended and job.stopped_why is None:
        job.cancelled = False  # no item was left
    if job.cancelled:
        if not job.lanes:
            finish(books, job, JobStatus.CANCELLED)
    elif job.all_ended:
        finish(books, job, JobStatus.COMPLETED_WITH_ERRORS if job.failed else JobStatus.COMPLETED)


def finish(books: Books, job: JobBook, status: JobStatus) -> None:
    """End the job: notify the listeners, and the workers that still hold its handler."""
    job.clear_waiting()
    if job.started_at is not None:
        job.duration = books.now - job.started_mono
        job.finished_at = job.started_at + job.duration
        job.timings.finish(books.now)
    job.status = status
    books.free_later(job.last_setup_failure)
    job.last_setup_failure = None
    books.jobs.pop(job.number, None)
    if not books.jobs:
        books.lane_seconds = None
    if books.any_timeouts:
        books.any_timeouts = any(other.has_timeouts for other in books.jobs.values())
    books.commands.append(AnnounceFinished(job, status, job.completed, job.failed, job.duration or 0.0))
    at_once = books.forgets_at_once(job)
    for lane in books.members(job.lanes_used):
        if lane.flags is not None and lane.flags[0] == job.number and lane.state is LaneState.READY:
            lane.flags = None  # it may start again while a chunk is still out
            books.commands.append(SetFlags(lane.number, job.number, False, False))
        if lane.loaded.pop(job.number, None) is not None and lane.state is LaneState.READY:
            lane.proven.discard(job.number)
            if at_once:
                lane.asked(books.now)
                lane.forgetting += 1
            books.commands.append(ForgetJob(lane.number, lane.generation, job, at_once))
    if job.stage is not None:
        _finish_stage(books, job)


def _finish_stage(books: Books, job: JobBook) -> None:
    """Seal the next stage after one that has ended; after the last one, end the pipeline."""
    assert job.stage is not None
    pipeline, after = job.stage.pipeline, job.stage.after
    if after is not None:
        after.sealed = True
        finish_if_over(books, after)
    if pipeline.is_over:
        pipeline.forget()
        finish_if_over(books, pipeline.head)


def put_back(books: Books, job: JobBook, indices: Sequence[int], suspects: Iterable[int] = ()) -> None:
    """Send items again that did not run, or are not charged for it; suspects are sent with care."""
    if not indices or not job.active or job.cancelled:
        return
    if job.dropped:
        drop(books, job, sorted(job.dropped.intersection(indices)))
        indices = [index for index in indices if index not in job.dropped]
    job.pending.suspect(list(suspects))
    job.pending.put_back(indices)


def drop(books: Books, job: JobBook, indices: Sequence[int]) -> None:
    """Fail items that were cancelled individually, without losing a try. Items that have ended stay."""
    job.dropped.update(indices)
    failures = {}
    for index in indices:
        if not job.table.ended(index):
            error = ItemCancelledError(f"item {job.table.named_plainly(index)} was cancelled")
            failures[index] = Failure(error, charged=False)
    job.excused += len(failures)
    fail(books, job, failures)


def begin_limits(books: Books, job: JobBook) -> None:
    """Count the job's failures and its time from now on."""
    job.excused = 0
    if job.options.deadline is not None:
        books.timers.add(books.now + job.options.deadline, TimerKind.STOP, job.number, 0, job.epoch)


def count_failures(books: Books, job: JobBook) -> None:
    """Stop the job before more items are sent, if too many have failed."""
    most = job.options.max_failures
    if most is not None and _failures(job) > most:
        books.timers.add(books.now, TimerKind.STOP, job.number, 1, job.epoch)
        if job.options.stops_at_once and not job.killed:
            hurry(books, job)  # here: it may end in this step


def hurry(books: Books, job: JobBook) -> None:
    """Note that the job, with the pipeline that it is part of, is killed, also if it has just ended."""
    for each in job.family:
        each.killed = True
    books.commands.append(HurryJob(job))


def _failures(job: JobBook) -> int:
    return job.failed - job.failed_before - job.excused


def take_stopped(books: Books, timer: Timer) -> JobBook | None:
    """Return the job to cancel now, with the reason noted; None if it has ended, or is being cancelled."""
    job = books.jobs.get(timer.subject)
    if job is None or job.epoch != timer.epoch or job.cancelled:
        return None
    failed, options = _failures(job), job.options
    if timer.detail:
        job.stopped_why = f"{failed} items failed, more than max_failures={options.max_failures}"
    else:
        job.stopped_why = f"it was not over after deadline={options.deadline:g} seconds"
    return job


def drop_all(job: JobBook) -> list[JobBook]:
    """Start no more items of the job, or of its pipeline; waiting ones are pending, without losing a try.

    Returns the jobs concerned, in the order in which they have to end: the head of a pipeline is the last one.
    """
    family = [each for each in job.family if each.active]
    for each in family:  # all of them first: the end of one stage may be that of the next
        each.cancelled = True
        if each.status is JobStatus.PAUSED:
            each.status = JobStatus.RUNNING
        each.drop_pending()
    return sorted(family, key=lambda each: each.pipeline is not None)
