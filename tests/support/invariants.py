"""What must be true of the scheduler's books after every step, whatever happened before."""

from __future__ import annotations

import math
from collections import Counter

from mpqueue._core.rules import blame
from mpqueue._core.rules.dispatch import may_start
from mpqueue._core.state.books import Books, Timer, TimerKind
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import CHUNKS_PER_LANE, Chunk, LaneBook, LaneState
from mpqueue._core.state.pending import LongestFirst, PendingItems
from mpqueue._core.state.pipeline import Pipeline
from mpqueue._core.state.resources import MEMORY
from mpqueue.status import COMPLETED, FAILED, PENDING, RETRY, JobStatus

#: What sums of fractions may be off.
EPSILON = 1e-6


def check_invariants(books: Books) -> None:
    """Raise AssertionError where the books contradict themselves. Costs time by the number of items and timers."""
    timers = list(books.timers._heap)
    for lane in books.lanes:
        _check_lane(books, lane, timers)
    for number, job in books.jobs.items():
        assert job.number == number
        assert job.active, f"{job.id} is {job.status} and still among the active jobs"
        assert not (job.paused and job.cancelled), "a pause ends with the cancellation"
        check_counters(job)
        _check_lanes_of(books, job)
        if job.pipeline is not None:
            check_pipeline(job.pipeline)
        else:
            _check_whereabouts(books, job, timers)
    _check_resources(books)
    if not books.capabilities.is_here and books.opened:
        _check_demand(books)
    _check_nobody_waits_needlessly(books)
    if books.opened and not books.closing:
        _check_lanes_come_back(books, timers)


def _check_demand(books: Books) -> None:
    """The engine knows how many lanes could have something, within half and twice."""
    waiting: float = 0
    seconds = 0.0
    for job in books.jobs.values():
        if job.runnable:
            items = len(job.pending) + sum(len(chunk.indices) for chunk in job.packed)
            seconds += items * (job.sizer.seconds_per_item or 0.0)
            waiting += min(items, (job.options.max_lanes or math.inf) - job.lanes_held)
    if books.most_lanes is not None:  # a size that was set is not outgrown
        waiting = min(waiting, max(0, books.most_lanes - books.at_work.bit_count()))
    told = books.told_demand.lanes
    assert (told > 0) == (waiting > 0)
    assert told <= 2 * waiting
    assert waiting <= 2 * told
    assert int(seconds).bit_length() == int(books.told_demand.seconds).bit_length(), "within half and twice"


def _check_resources(books: Books) -> None:
    """What lanes hold is what is missing of all that there is, and nobody holds what another one does."""
    resources, held, units = books.resources, Counter[str](), Counter[tuple[str, int]]()
    for lane in books.lanes:
        assert all(chunk.grant is lane.grant for chunk in lane.chunks)
        assert (lane.grant is None) == (not lane.chunks or lane.chunks[0].needs is None), "held for nothing"
        if lane.grant is None:
            continue
        needs = lane.grant.needs
        assert all(chunk.needs == needs for chunk in lane.chunks), "a lane holds chunks of equal needs"
        held.update(dict(needs.amounts), cpus=needs.cpus - 1)
        units.update((name, unit) for name, some in lane.grant.units.items() for unit in some)
        assert {name: len(some) for name, some in lane.grant.units.items()} == {
            name: amount for name, amount in needs.amounts if name != MEMORY
        }
        if books.device is not None and books.device in lane.grant.units:
            assert lane.devices == lane.grant.units[books.device]
    assert held.pop("cpus", 0) == resources.more_cpus
    assert {name: limit - held[name] for name, limit in resources.limits.items()} == resources.left
    assert all(left >= 0 for left in resources.left.values()), "more than there is"
    assert all(count == 1 for count in units.values()), "two have the same unit"
    assert all(0 <= unit < resources.limits[name] for name, unit in units)


def check_ended(job: JobBook) -> None:
    """The same for a job that has ended."""
    assert job.status.final
    check_counters(job)
    statuses = Counter(job.table.status[index] for index in range(len(job.table)))
    unfinished = len(job.table) - job.completed - job.failed
    assert statuses[PENDING] == unfinished, "what has not ended ends as pending"
    if job.status is JobStatus.CANCELLED:
        assert job.cancelled
    else:
        assert not job.cancelled
        assert unfinished == 0
        assert (job.status is JobStatus.COMPLETED_WITH_ERRORS) == (job.failed > 0)
    assert waiting_items(job.pending) == []
    assert job.last_setup_failure is None
    if job.duration is not None:
        assert job.started_at is not None
        assert job.finished_at == job.started_at + job.duration


def check_counters(job: JobBook) -> None:
    """A job's counters are those of its items, and no item had more tries than the policy allows."""
    statuses = Counter(job.table.status[index] for index in range(len(job.table)))
    assert job.completed == statuses[COMPLETED]
    assert job.failed == statuses[FAILED]
    tries = [job.table.attempts[index] for index in range(len(job.table))]
    assert max(tries, default=0) <= job.options.retry.max_retries + 1


def check_pipeline(pipeline: Pipeline) -> None:
    """The head runs nothing; each input has something under way unless it has ended; no stage gets too much."""
    head, jobs = pipeline.head, pipeline.jobs
    assert waiting_items(head.pending) == []
    assert not head.lanes
    assert len({job.paused for job in jobs if job.active} | {head.paused}) == 1, "paused together"
    assert len({job.cancelled for job in jobs if job.active} | {head.cancelled}) == 1, "cancelled together"
    for job in jobs:
        assert job.stage is not None
        assert job.sealed == (job.stage.place == 0 or jobs[job.stage.place - 1].status.final)
        assert all(result is None for result in job.table.results), "a stage keeps no results"
        turned, coming, early = job.stage.turned, job.stage.coming, job.stage.early
        assert min((*turned, *coming, *early), default=job.stage.turn) >= job.stage.turn, "an input has its turn once"
        assert turned.isdisjoint((*coming, *early)), "what had its turn in an earlier run has none in this one"
        assert job.stage.skipped == len(turned) + sum(not left and root not in early for root, left in coming.items())
        if (origins := job.table.origins) is not None:
            live = {index for index in range(len(job.table)) if not job.table.ended(index)}
            assert job.status.final or origins.paths.keys() == live
            assert pipeline.has_spread or all(len(path) == 1 for path in origins.paths.values())
    most = head.options.max_lanes
    assert most is None or sum(job.lanes_held for job in jobs) <= most
    if head.cancelled:
        return
    under_way = {index for index in range(len(jobs[0].table)) if not jobs[0].table.ended(index)}
    for job in jobs[1:]:
        assert job.table.origins is not None
        assert job.stage is not None
        under_way |= {path[0] for path in job.table.origins.paths.values()} | job.stage.early.keys()
    waiting = {index for index in range(len(head.table)) if not head.table.ended(index)}
    assert waiting == under_way, "an input is under way until it has ended"


def waiting_items(pending: PendingItems) -> list[int]:
    """All items that wait to be dispatched."""
    fresh = [index for lo, hi in pending._fresh for index in range(lo, hi)]
    if isinstance(pending, LongestFirst):
        fresh += [index for _, index in pending._heap]
    grouped = [index for group in pending._groups for index in group]
    waiting = [*fresh, *pending._due, *pending._suspects, *grouped]
    assert len(pending) == len(waiting)
    return waiting


def _check_lane(books: Books, lane: LaneBook, timers: list[Timer]) -> None:
    chunks, job = lane.chunks, lane.job
    assert len(chunks) <= CHUNKS_PER_LANE
    _check_sets(books, lane)
    assert all(chunk.job is job for chunk in chunks), "a lane holds chunks of one job at a time"
    assert not chunks or lane.state in (LaneState.READY, LaneState.DYING)
    numbers = [chunk.number for chunk in chunks]
    assert numbers == sorted(set(numbers))
    assert all(number < lane.next_chunk for number in numbers)
    assert len({number % 2 for number in numbers}) == len(numbers), "each has a limit of its own in the ledger"
    for chunk in chunks:
        assert 0 <= chunk.reported <= chunk.end <= len(chunk.indices)
        assert len(chunk.attempts) in (0, len(chunk.indices))
        _check_needs(chunk)
        if chunk.settling is not None and chunk.settled_at > books.now:
            assert _has_timer(timers, TimerKind.LIMIT_SETTLED, lane, chunk.settled_at)
    assert all(job is None or job.number in lane.loaded or not job.active for _ in chunks)
    if chunks:
        began = lane.free_at - sum(chunk.expected for chunk in chunks)
        assert chunks[0].sent_at - EPSILON <= began <= books.now + EPSILON, "when it will be free, if all goes well"
    assert lane.forgetting >= 0
    assert lane.tries >= sum(len(chunk.indices) / chunk.job.options.items_per_task for chunk in chunks) - EPSILON
    if books.max_items_per_worker is not None:
        assert lane.tries <= books.max_items_per_worker + EPSILON
    if lane.check_due is not None:
        assert _has_timer(timers, TimerKind.LANE_CHECK, lane, lane.check_due)
    if lane.state is LaneState.READY:
        assert lane.proven <= lane.loaded.keys(), "nothing is proven that is not loaded"
        _check_flags(lane, job)
    assert (lane.verdict is None) or lane.state is LaneState.DYING


def _check_needs(chunk: Chunk) -> None:
    """Each of its items needs what it was given."""
    if chunk.needs is not None:
        assert chunk.job.needs is not None
        assert {chunk.job.needs.of_item(index).amounts for index in chunk.indices} == {chunk.needs.amounts}


def _check_sets(books: Books, lane: LaneBook) -> None:
    """The lane is in the sets that it belongs to, and in no other."""
    assert (lane.state is LaneState.ABSENT) == (lane.number in books.absent)
    ready, held = lane.state is LaneState.READY, [chunk.care for chunk in lane.chunks]
    worn = books.worn_out(lane)
    belongs = {
        "ready": ready,
        "free": ready and not held and not worn,
        "at_work": bool(held),
    }
    assert belongs == {name: getattr(books, name) & lane.bit != 0 for name in belongs}
    assert all(not lanes & lane.bit or fate == lane.dies_with for fate, lanes in books.dying_together.items())
    assert lane.dies_with is None or books.dying_together[lane.dies_with] & lane.bit
    for job in books.jobs.values():
        follows = ready and len(held) == 1 and lane.chunks[0].may_be_followed and job.number in lane.proven and not worn
        assert (job.lanes & lane.bit != 0) == (job is lane.job)
        assert (job.lanes_to_follow & lane.bit != 0) == (job is lane.job and follows)
        assert job.lanes_used & lane.bit or job.number not in lane.loaded
        if job is lane.job and ready and all(chunk.settling is None for chunk in lane.chunks):
            loose = any(chunk.unclaimed or chunk.stretch > 1 for chunk in lane.chunks)
            assert job.lanes_to_rob & lane.bit or not loose


def _check_flags(lane: LaneBook, job: JobBook | None) -> None:
    """A lane that holds chunks of a paused or cancelled job has its flags set, any other has not."""
    stopped = job is not None and (job.paused or (job.cancelled and job.active))
    if job is not None and stopped:
        assert lane.flags == (job.number, job.paused, job.cancelled)
    elif not (job is not None and job.cancelled):
        assert lane.flags is None


def _has_timer(timers: list[Timer], kind: TimerKind, lane: LaneBook, due: float) -> bool:
    return any(
        timer.kind is kind and (timer.subject, timer.detail) == (lane.number, lane.generation) and timer.due == due
        for timer in timers
    )


def _check_lanes_of(books: Books, job: JobBook) -> None:
    chunks = [chunk for lane in books.lanes for chunk in lane.chunks if chunk.job is job]
    if job.busy is not None:
        left = sum(max(0.0, lane.free_at - books.now) for lane in books.lanes if lane.job is job)
        assert math.isclose(job.busy.left(books.now), left, abs_tol=EPSILON)
    assert job.items_out == sum(chunk.end - chunk.reported for chunk in chunks)
    assert math.isclose(job.seconds_expected, sum(chunk.expected for chunk in chunks), abs_tol=EPSILON)
    assert math.isfinite(job.seconds_used)
    assert job.options.max_lanes is None or job.lanes_held <= job.options.max_lanes


def _check_whereabouts(books: Books, job: JobBook, timers: list[Timer]) -> None:
    """Each item is in one place: waiting, waiting for a retry's time, in a chunk, or at its end."""
    table = job.table
    ended = {index for index in range(len(table)) if table.ended(index)}
    retrying = [index for index in range(len(table)) if table.status[index] == RETRY]
    travelling = [
        index
        for lane in books.lanes
        for chunk in lane.chunks
        if chunk.job is job
        for index in chunk.indices[chunk.reported : chunk.end]
    ]
    travelling += [index for chunk in (*job.packing, *job.packed) for index in chunk.indices]
    waiting = waiting_items(job.pending)
    if table.is_stream:  # what is dropped of one stays in its line until its turn comes
        waiting = [index for index in waiting if index not in job.dropped or index not in ended]
    places = Counter([*ended, *retrying, *travelling, *waiting])
    assert all(count == 1 for count in places.values()), f"in two places: {places.most_common(3)}"
    due = Counter(
        timer.detail
        for timer in timers
        if timer.kind is TimerKind.RETRY and (timer.subject, timer.epoch) == (job.number, job.epoch)
        if timer.due > books.now
    )
    if job.cancelled:
        assert not job.waiting
        assert not retrying
        assert job.lanes, "a cancelled job ends with its last chunk"
    else:
        assert len(places) == len(table), f"lost: {set(range(len(table))) - places.keys()}"
        assert all(due[index] == 1 for index in retrying), "a retry without a timer, or with two"
        assert not job.all_ended, "a job ends with its last item"


def may_serve(books: Books, lane: LaneBook, job: JobBook) -> bool:
    """True where the job's items may go there now."""
    if not job.may_use(lane.number, books.now) or (books.any_needs and not may_start(books, job, lane)):
        return False
    return not books.any_alone or blame.keeps_suspects_apart(books, lane, job)


def _check_nobody_waits_needlessly(books: Books) -> None:
    if books.held:
        waits_for = (LaneState.STARTING, LaneState.DYING)
        assert any(lane.chunks or lane.forgetting or lane.state in waits_for for lane in books.lanes), (
            "held for nothing"
        )
        return
    for lane in books.lanes:
        if books.idle(lane) and not lane.forgetting:
            for job in books.jobs.values():
                if job.runnable and may_serve(books, lane, job) and job.may_have_more(None):
                    raise AssertionError(f"lane {lane.number} is idle and {job.id} has items for it")


def _check_lanes_come_back(books: Books, timers: list[Timer]) -> None:
    """A lane without a worker has the time of its next start; where there is none at all, patience has an end."""
    for lane in books.lanes:
        if lane.state is LaneState.DOWN:
            kind, whose = TimerKind.LANE_START, (lane.number, lane.generation)
            assert any(timer.kind is kind and (timer.subject, timer.detail) == whose for timer in timers)
    if not any(lane.state in (LaneState.READY, LaneState.DYING) for lane in books.lanes):
        assert books.no_lanes_since is not None
        assert any(timer.kind is TimerKind.NO_LANES for timer in timers)
