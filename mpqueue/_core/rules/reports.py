"""Workers' reports about chunks, written into the books."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from mpqueue._core.commands import AnnounceRecords, Warn
from mpqueue._core.messages import ChunkPacked, ChunkPacking, ChunkRefused, ChunkReported, ChunkSent, RecordsLeft
from mpqueue._core.rules.outcomes import (
    fail_if_barred,
    finish_if_over,
    number_barred,
    put_back,
    record,
)
from mpqueue._core.state.books import Books, TimerKind
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.job_book import JobBook, SetupRecord
from mpqueue._core.state.lane_book import Chunk, LaneBook
from mpqueue._core.state.pending import Care
from mpqueue._wire.frames import Ended
from mpqueue._wire.parcels import AddedItems
from mpqueue.errors import WorkerCrashedError
from mpqueue.retry import Fail, RetryAfter, decide_by

T = TypeVar("T")

#: Seconds that a worker spends on any chunk, however few and short its items are: measured 40 to 70 us.
EMPTY_CHUNK_S = 50e-6


def reported(books: Books, lane: LaneBook, report: ChunkReported) -> None:
    """Record a part of a chunk that has arrived, or its last part."""
    chunk = lane.find(report.chunk)
    if chunk is None:
        return
    job = chunk.job
    job.table.live.has_user_objects |= report.has_user_objects
    if report.ended is Ended.MEMORY:
        books.renew_later(lane)
    if report.records:
        job.spoke = True
        books.commands.append(AnnounceRecords(job, lane.number, report.records))
    if job.active and job.listed:
        job.timings.add(lane.number, chunk, report, books.now)
    if report.unreadable is not None:
        report = _unreadable(books, chunk, report, report.unreadable)
    # Items beyond the chunk's end were given to other lanes. If an earlier part never arrived, all are sent again.
    done = min(report.done, chunk.end) if report.first == chunk.reported else chunk.reported
    _learn(job, report)
    if report.final:
        lane.last_chunk = chunk.number
        lane.waiting_since = books.now
        books.remove_chunk(lane, chunk)
        books.count_tries(lane, job, done - len(chunk.indices))
        rest = chunk.indices[max(done, chunk.reported) : chunk.end]
        alone = report.ended is Ended.UNREADABLE or chunk.unreadable
        put_back(books, job, rest, suspects=rest if alone else ())
    is_news = job.active and done > chunk.reported
    if is_news:
        _record(books, lane, chunk, report, done)
    if report.setup_failure is not None:
        setup_failed(books, lane, job, report.setup_failure)
    else:
        _is_good(books, lane, job)
    if not is_news:
        finish_if_over(books, job)


def _record(books: Books, lane: LaneBook, chunk: Chunk, report: ChunkReported, done: int) -> None:
    """Record the chunk's positions below ``done`` as ended."""
    job, indices = chunk.job, chunk.indices[report.first : done]
    _note(job, lane.number, indices, report)
    failures = report.failures
    if done != report.done:
        del report.results[len(indices) :]
        failures = _within(indices, failures)
    books.note_reported(chunk, done, final=report.final)
    if report.added:  # before their makers end, one of which may be the job's last item
        _take_in(job, indices, report.added)
    record(books, job, indices, report.results, failures, lane.pid, report.size)
    report.results.clear()  # the books have them: a taker from there must be the last to hold one


def _is_good(books: Books, lane: LaneBook, job: JobBook) -> None:
    """Note that the lane's worker runs the job's items."""
    if (
        job.number not in lane.proven and job.number in lane.loaded
    ):  # otherwise it has ended meanwhile, and the worker is asked to forget it
        lane.proven.add(job.number)
        books.sort_in(lane)
    lane.start_failures = 0
    books.no_lanes_since = None
    job.setups.pop(lane.number, None)


def _unreadable(books: Books, chunk: Chunk, report: ChunkReported, why: Failure) -> ChunkReported:
    """Return a report on lost results: their items run again, each by itself; an item that did so already has failed.

    If their worker has ended, no item fails: then neither the result nor its item is at fault.
    """
    if chunk.careful and not isinstance(why.error, WorkerCrashedError):
        failures = {**report.failures, len(report.results): why}
        return report._replace(done=report.done + 1, results=[*report.results, None], failures=failures)
    if not chunk.unreadable:
        chunk.unreadable = True
        text = f"job {chunk.job.id!r}: results are lost, and their items run again, each by itself: {why.message}"
        books.commands.append(Warn(text))
    return report


def _note(job: JobBook, lane: int, indices: Sequence[int], report: ChunkReported) -> None:
    """Note the items' costs, output and stacks."""
    job.table.note_times(indices, report.stretches)
    if report.output or job.table.output:
        output = _within(indices, report.output or {})
        job.table.note_output(indices, {indices[at]: text for at, text in output.items()})
    if report.peaks:
        job.table.note_peaks({indices[at]: peak for at, peak in _within(indices, report.peaks).items()})
    if report.profile is not None and job.samples is not None:
        job.samples.keep(lane, indices, report.profile)


def _take_in(job: JobBook, indices: Sequence[int], added: Mapping[int, AddedItems]) -> None:
    """Add the items that come with these items' results to the job."""
    for at, items in _within(indices, added).items():
        job.take_in(items, job.table.rule, indices[at])


def _within(indices: Sequence[int], by_place: Mapping[int, T]) -> dict[int, T]:
    """Return the entries of these items, by their places in the report, which may include other lanes' items by now."""
    return {at: one for at, one in by_place.items() if at < len(indices)}


def _learn(job: JobBook, report: ChunkReported) -> None:
    ran = report.done - report.first
    if ran > 0:
        job.sizer.learn(ran, _seconds_of_items(report))
        job.sizer.learn_results(ran, report.size)
    job.seconds_used += report.busy


def _seconds_of_items(report: ChunkReported) -> float:
    """Return the worker's seconds on the items, without what it does once for the job, or once for any chunk."""
    times = report.times
    if times is None:
        return report.busy
    return max(times.handling, report.busy - times.loading - times.setup - EMPTY_CHUNK_S)


def packing(books: Books, lane: LaneBook, message: ChunkPacking) -> None:
    """Free the lane for other work while the chunk waits, since it is unknown when it will be sent."""
    chunk = lane.find(message.chunk)
    if chunk is None:
        return
    job = chunk.job
    job.table.live.has_user_objects = True
    books.remove_chunk(lane, chunk)
    books.count_tries(lane, job, -len(chunk.indices))
    if books.any_needs and lane.tries < 0.5 / job.options.items_per_task:
        lane.devices = None  # its worker has been sent nothing
    if job.number not in lane.proven:
        lane.loaded.pop(job.number, None)  # the chunk was to bring the handler
    if job.active and not job.cancelled:
        chunk.settling, chunk.doomed = None, False  # it is on no lane whose limit could be lowered
        job.packing.append(chunk)
        if not job.dropped.isdisjoint(chunk.indices):
            unpack(books, chunk)
    finish_if_over(books, job)


def sent(_: Books, lane: LaneBook, message: ChunkSent) -> None:
    """Note the size of the chunk's items: it was sent."""
    chunk = lane.find(message.chunk)
    if chunk is None:
        return
    chunk.size, chunk.packing, chunk.left_at = message.size, message.packing, message.left_at
    if message.apart:
        chunk.care = max(chunk.care, Care.CAREFUL)
    chunk.job.sizer.learn_bytes(len(chunk.indices), message.size)


def records_left(books: Books, lane: LaneBook, message: RecordsLeft) -> None:
    """Announce a dead worker's unsent log records."""
    chunk = lane.find(message.chunk)
    if chunk is not None:
        chunk.job.spoke = True
        books.commands.append(AnnounceRecords(chunk.job, lane.number, message.records))


def packed(_: Books, message: ChunkPacked) -> None:
    """Let the first chunk that was being pickled be sent to any free lane."""
    job = message.job
    if job.packing:
        job.packed.append(job.packing.popleft())


def unpack(books: Books, chunk: Chunk) -> None:
    """Drop this chunk, which waits to be pickled or sent."""
    line = chunk.job.packing if chunk in chunk.job.packing else chunk.job.packed
    line.remove(chunk)
    put_back(books, chunk.job, chunk.indices)


def refused(books: Books, message: ChunkRefused) -> None:
    """Put back a chunk that was never sent; its items that can't be pickled fail."""
    job = message.job
    if not job.packing:
        return
    chunk = job.packing.popleft()
    bad = sorted(message.failures)
    put_back_around(books, job, chunk, bad, suspects=message.apart)
    record(
        books,
        job,
        [chunk.indices[position] for position in bad],
        [None] * len(bad),
        {at: message.failures[position] for at, position in enumerate(bad)},
        None,
    )


def put_back_around(books: Books, job: JobBook, chunk: Chunk, without: list[int], suspects: bool = False) -> None:
    """Put back the chunk's items that have not ended, except for these positions (sorted)."""
    start = chunk.reported
    for position in [*without, chunk.end]:
        part = chunk.indices[start : min(position, chunk.end)]
        if part:
            put_back(books, job, part, suspects=part if suspects else ())
        start = position + 1


def setup_failed(books: Books, lane: LaneBook, job: JobBook, failure: Failure) -> None:
    """Handle a job's failed handler or setup on a lane: again later by the job's policy, or never; perhaps its end."""
    if not job.active:
        return
    lane.loaded.pop(job.number, None)
    record_ = job.setups.setdefault(lane.number, SetupRecord())
    record_.failures += 1
    books.free_later(job.last_setup_failure)
    decision = decide_by(job.options.retry, record_.failures, failure.error, books.rng)
    if isinstance(decision, Fail) and decision.error is not None:
        failure = Failure(decision.error)
    job.last_setup_failure = failure
    if isinstance(decision, RetryAfter):
        record_.again_at = books.now + decision.delay
        books.timers.add(record_.again_at, TimerKind.SETUP_AGAIN, job.number, lane.number)
        return
    record_.again_at = None
    if not fail_if_barred(books, job) and number_barred(job) == 1:
        left = books.present - 1
        others = f"{left} other worker{'s' if left > 1 else ''}"
        books.commands.append(
            Warn(
                f"job {job.id!r}: setup failed on worker {lane.number} and is not tried there again; "
                f"the job continues on {others}: {failure.shown}"
            )
        )
