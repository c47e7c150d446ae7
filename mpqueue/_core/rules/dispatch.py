"""Dispatch: the choice of the items, and of their job, that go to each lane next.

Two things hold back all lanes at once. If memory is short, fewer lanes work, at least one. An item that has to run
*apart* waits until nothing else runs, while no new items are sent, and then has the queue to itself. Both have limits,
since either may never end: it waits for `APART_WAIT_S`, and after `APART_ALONE` the others go on beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from mpqueue._core.commands import SendChunk
from mpqueue._core.messages import ItemsAdded, JobSealed
from mpqueue._core.rules import blame, fleet, needs, outcomes, reports
from mpqueue._core.rules.chunking import limit
from mpqueue._core.rules.overdue import watch_lane
from mpqueue._core.state.books import Books
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk, LaneBook, LaneState, members
from mpqueue._core.state.pending import Care
from mpqueue._core.state.resources import Needs
from mpqueue._core.state.timers import TimerKind
from mpqueue.errors import JobStateError

#: Worker seconds by which a job may be ahead of an equal one before a lane with its handler leaves it.
STICKINESS = 0.1
#: Seconds that an item which has to run apart waits for running items. Then it runs beside them.
APART_WAIT_S = 10.0
#: Seconds that such an item has the queue to itself: it may hang. If memory is still short then, few lanes go on.
APART_ALONE = 60.0
#: The most idle lanes that get work in one step: others that have ended their first items wait no longer, and by then
#: more is known for the rest.
MOST_AT_ONCE = 256
#: The multiples of this fraction by which the first long chunks of neighbouring lanes differ, so that lanes that begin
#: together do not come back together, and wait for each other: multiples of the golden ratio are spread evenly.
GOLDEN = 0.6180339887
#: States of lanes on which no worker is coming.
NO_WORKER = (LaneState.DOWN, LaneState.ABSENT)


def dispatch(books: Books) -> None:
    """Give work to every lane that has room; empty lanes first, so that no item waits needlessly."""
    if books.wears_out:
        for lane in books.members(books.ready & ~(books.free | books.at_work)):  # worn out, or not wanted any more
            if not lane.forgetting:
                fleet.recycle(books, lane)
    books.held = False
    if books.any_needs:
        needs.arrange(books)
    runnable = books.any_alone = False
    for job in books.jobs.values():
        runnable = runnable or job.runnable
        books.any_alone = books.any_alone or job.pending.any_alone
    if not runnable:
        return
    if books.any_alone and _run_apart(books):
        books.held = True
        return
    _feed_lanes(books)
    if books.any_needs and books.device is not None and (renewed := needs.lane_to_renew(books)) is not None:
        fleet.recycle(books, renewed)
        _feed_lanes(books)  # others had to leave that lane to its renewal
    if books.any_alone and _run_apart(books):  # the item before it was sent
        books.held = True


def _feed_lanes(books: Books) -> None:
    most = books.headroom.lanes
    if most is not None and most < len(books.lanes):
        _feed_idle(books, most)
    else:
        _feed_idle(books, None)
        if _feed_behind(books):
            _feed_idle(books, None)  # the next items may need something else


def _feed_idle(books: Books, most: int | None) -> None:
    """Give each idle lane a chunk, as long as there is a job that may have more lanes.

    ``most``: only that many lanes may work at a time, with one chunk each; None: all. It repeats if a lane got nothing
    before another one got something: others may have had to stand back for that.
    """
    again, asked = True, 0
    while again:
        again = refused = False
        for number in members(books.free):
            if most is not None and books.at_work.bit_count() >= most:
                books.held = True
                return
            if asked == MOST_AT_ONCE:
                books.timers.add(books.now, TimerKind.GO_ON)  # the next step goes on
                return
            asked += 1
            if _feed(books, books.lanes[number]):
                again = again or (refused and (books.any_needs or books.any_alone))
            elif not any(_may_have_more_lanes(books, job) for job in books.jobs.values()):
                return
            else:
                refused = True


def _may_have_more_lanes(books: Books, job: JobBook) -> bool:
    """False if no idle lane may have the job's next items."""
    most = job.options.max_lanes
    if not job.runnable or (most is not None and job.lanes_held >= most):
        return False
    if books.any_needs and not needs.may_start(books, job):
        return False
    return job.next_care <= Care.ALONE


def _feed_behind(books: Books) -> bool:
    """Give lanes a second chunk, so that they need not wait after the first; True if one with needs did.

    If there are needs and a lane gets none, others that hold the same are not asked now.
    """
    lanes = 0
    for job in books.jobs.values():
        if job.lanes_to_follow and job.sizer.may_prefetch and job.runnable and not _stands_back(books, job):
            lanes |= job.lanes_to_follow
    sent, refused = False, set[tuple[int, Needs | None]]()
    for number in members(lanes):
        lane = books.lanes[number]
        if not books.any_needs:
            _feed(books, lane)
        elif (held := (lane.chunks[0].job.number, lane.chunks[0].needs)) not in refused:
            if _feed(books, lane):
                sent = True
            else:
                refused.add(held)
    return sent


def _stands_back(books: Books, job: JobBook) -> bool:
    """True if each lane that holds a chunk of the job would rather serve another job next."""
    if len(books.jobs) == 1 or job.stage is not None:
        return False
    best = (-job.options.priority, job.lanes_held - 1, job.seconds_used + job.seconds_expected - STICKINESS, job.number)
    return any(
        other is not job
        and other.stage is None
        and not other.setups
        and _may_have_more_lanes(books, other)
        and (-other.options.priority, other.lanes_held, other.seconds_used + other.seconds_expected, other.number)
        < best
        for other in books.jobs.values()
    )


def _run_apart(books: Books) -> bool:
    """True if an item runs apart, or waits for it: then nothing else may begin."""
    if any(_is_alone(books, chunk) for lane in books.members(books.at_work) for chunk in lane.chunks):
        return True
    job = _next_apart(books)
    if job is None:
        books.apart_since = None
        return False
    if books.apart_since is None:
        books.apart_since = books.now
        books.timers.add(books.now + APART_WAIT_S, TimerKind.APART)
    if books.now < books.apart_since + APART_WAIT_S and books.at_work:
        return True
    lanes = [
        lane
        for lane in books.lanes
        if not lane.chunks and lane.state not in NO_WORKER and _may_have(books, job, lane, Care.APART)
    ]
    if not lanes:
        return False  # it has to wait for a busy lane, perhaps for ever: the others go on
    fresh = [lane for lane in lanes if books.idle(lane) and not lane.tries]
    if fresh:
        books.apart_since = None
        books.timers.add(books.now + APART_ALONE, TimerKind.APART)
        return _send(books, fresh[0], job, 1, Care.APART)
    if not any(lane.state is LaneState.STARTING for lane in lanes):
        used = [lane for lane in lanes if lane.state is LaneState.READY and not lane.forgetting]
        if used:
            fleet.recycle(books, used[0])
    return True


def _is_alone(books: Books, chunk: Chunk) -> bool:
    return chunk.care is Care.APART and books.now < chunk.sent_at + APART_ALONE


def _next_apart(books: Books) -> JobBook | None:
    """Return the job whose next item has to run apart, if a lane may have it.

    Jobs of a higher priority go first, but only as far as they can use the present lanes.
    """
    waiting = [
        job
        for job in books.jobs.values()
        if job.runnable
        and job.next_care is Care.APART
        and any(_may_have(books, job, lane, Care.APART) for lane in books.lanes if lane.state not in NO_WORKER)
    ]
    if not waiting:
        return None

    def standing(job: JobBook) -> tuple[bool, int]:
        free = any(books.idle(lane) and _may_have(books, job, lane, Care.APART) for lane in books.lanes)
        return free, job.options.priority

    job = max(waiting, key=standing)
    if any(other.runnable and other.options.priority > job.options.priority for other in books.jobs.values()):
        _feed_lanes(books)
        if not any(books.idle(lane) and _may_have(books, job, lane, Care.APART) for lane in books.lanes):
            return None
    return job


def _feed(books: Books, lane: LaneBook) -> bool:
    """Send the lane its next chunk; False if there is none for it."""
    held = lane.job  # may be followed, see `Books.sort_in`
    # A job whose waiting items were all cancelled has nothing to send: the next one follows.
    while (job := _choose(books, lane)) is not None and (held is None or job is held):
        if held is not None and books.any_needs and not needs.may_follow(books, job, lane):
            return False
        room = books.room(lane, job)
        if room is not None and job.packed and len(job.packed[0].indices) > room:
            reports.unpack(books, job.packed[0])
            continue  # the next items may need something else
        size = _size(books, lane, job)
        if room is not None:
            size = min(size, room)
            job.pending.limit_group(room)
        if job.stage is not None:
            size = min(size, job.stage.room)
        if _send(books, lane, job, size, Care.ALONE if held is None else Care.CAREFUL):
            return True
        if held is not None:
            return False
    return False


def _size(books: Books, lane: LaneBook, job: JobBook) -> int:
    """Return how many items of the job the lane should get now."""
    pending, lanes = len(job.pending), _lanes_for(books, job)
    job.sizer.aim = books.aim  # lanes come and go
    if not job.sizer.nears_end(pending, lanes):
        size = job.sizer.size(pending, lanes)
        if job.number in lane.proven or job.sizer.aim <= job.sizer.chunk_seconds:
            return size
        return max(1, int(size * (lane.number * GOLDEN % 1.0)))
    return job.sizer.size(pending, lanes, books.seconds_held(job), max(0.0, lane.free_at - books.now))


def _choose(books: Books, lane: LaneBook) -> JobBook | None:
    """Return the job that this lane should serve: the highest priority; of equals the one that has used less.

    The stages of a pipeline count as one job; the last stage goes first.
    """
    runnable = list[JobBook]()
    for job in books.jobs.values():
        if job.pipeline is not None:
            may_have = (each for each in reversed(job.pipeline.jobs) if each.runnable and _may_have(books, each, lane))
            runnable += islice(may_have, 1)
        elif job.stage is None and job.runnable and _may_have(books, job, lane):
            runnable.append(job)
    if len(runnable) <= 1:
        return runnable[0] if runnable else None

    def standing(job: JobBook) -> tuple[int, int, float, int]:
        if job.stage is not None:
            pipeline = job.stage.pipeline
            held = pipeline.lanes_held - (lane.job in pipeline.jobs)
            used = pipeline.seconds - STICKINESS * any(each.number in lane.loaded for each in pipeline.jobs)
            return (-job.options.priority, held, used, pipeline.head.number)
        held = job.lanes_held - (job is lane.job)
        used = job.seconds_used + job.seconds_expected
        if job.number in lane.loaded:
            used -= STICKINESS
        return (-job.options.priority, held, used, job.number)

    return min(runnable, key=standing)


def _may_have(books: Books, job: JobBook, lane: LaneBook, care: Care = Care.ALONE) -> bool:
    """False if the job's setup failed on the lane, or if the job has as many lanes as it may have.

    Also if its next item needs more care than that, or more resources than are left.
    """
    if books.any_needs and not needs.may_start(books, job, lane):
        return False
    if job.next_care > care:
        return False
    if not job.may_have_more(lane.job) or not job.may_use(lane.number, books.now):
        return False
    return not books.any_alone or blame.keeps_suspects_apart(books, lane, job)


def _lanes_for(books: Books, job: JobBook) -> int:
    """Return how many lanes share the job's items: all but those that other runnable jobs of its priority can claim."""
    rivals = len(books.jobs)
    if rivals > 1:
        rivals = sum(other.runnable and other.options.priority >= job.options.priority for other in books.jobs.values())
    share = max(1, books.present // max(1, rivals))
    return share if job.options.max_lanes is None else min(share, job.options.max_lanes)


def _take(job: JobBook, size: int, care: Care) -> tuple[Sequence[int], Care]:
    """Take the next items, as far as they need no more care than that; without those cancelled meanwhile."""
    while job.pending and job.pending.next_care <= care:
        indices, needed = job.pending.take(size)
        if job.dropped:
            indices = [index for index in indices if index not in job.dropped]
        if indices:
            return indices, needed
    return (), Care.NONE


def _send(books: Books, lane: LaneBook, job: JobBook, size: int, most: Care) -> bool:
    chunk = job.packed.popleft() if job.packed else _make_chunk(books, job, size, most)
    if chunk is None:
        return False
    chunk.number, chunk.sent_at = lane.number_chunk(), books.now
    if books.any_needs:
        chunk.needs = needs.needs_of_item(books, job, chunk.indices[0])
    books.count_tries(lane, job, len(chunk.indices))
    lane.asked(books.now)
    books.add_chunk(lane, chunk)
    with_handler = job.number not in lane.loaded
    lane.loaded[job.number] = job
    books.commands.append(SendChunk(lane.number, lane.generation, chunk, with_handler))
    watch_lane(books, lane)
    if books.any_needs:
        needs.started(books, job)
    return True


def _make_chunk(books: Books, job: JobBook, size: int, most: Care) -> Chunk | None:
    indices, care = _take(job, size, most)
    if not indices:
        return None
    tries = job.table.attempts
    # If nothing failed so far, every coming try is the first one.
    attempts = [tries[index] for index in indices] if job.table.history else ()
    return Chunk(
        number=0,
        job=job,
        indices=indices,
        care=care,
        expected=len(indices) * (job.sizer.seconds_per_item or 0.0),
        sent_at=books.now,
        limit=limit(books.capabilities, job.sizer.aim),
        attempts=[tried + 1 for tried in attempts] if any(attempts) else (),
    )


# -- Jobs whose items arrive while they run: streams and open jobs. ----------------------------------------------------


def items_added(books: Books, message: ItemsAdded) -> None:
    """Let more items be dispatched, or fail at once if that is not possible; or count items that have ended before."""
    job = message.job
    job.table.admit(message.indices)
    how = message.how
    if not job.active:
        return
    if how is None:
        job.completed += len(message.indices)
    elif isinstance(how, Failure):
        for index in message.indices:
            job.table.fail_try(index, how, None)
        outcomes.fail(books, job, dict.fromkeys(message.indices, how))
    elif not job.cancelled:
        if how is Care.NONE:
            job.pending.add(message.indices)
        else:
            for index in message.indices:
                job.pending.handle_with(index, how)
                job.pending.add_due(index)
        outcomes.fail_if_barred(books, job)


def sealed(books: Books, message: JobSealed) -> None:
    """Take no more items from outside. Raises `JobStateError` for a stage, which the stage before it seals."""
    job = message.job
    if job.stage is not None:
        raise JobStateError(f"job {job.id!r}: expected an open job to seal, got a stage of a pipeline")
    job.sealed = True
    outcomes.finish_if_over(books, job)
