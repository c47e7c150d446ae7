"""Dispatch: the choice of the items, and of their job, that go to each lane next.

Two things hold back all lanes at once. If memory is short, fewer lanes work, at least one. An item that has to run
*apart* waits until nothing else runs, while no new items are sent, and then has the queue to itself. Both have limits,
since either may never end: it waits for `APART_WAIT_S`, and after `APART_ALONE` the others go on beside it.

Items with needs start by the resources left, in their order: if the next one of a job does not fit, those behind it
wait too. Other jobs go on with what is left. After `PASSED_SECONDS` of waiting, a job is first in line: all that its
next item needs is kept for it, and until that has started, no job of the same or a lower priority takes of it.

A lane that holds a chunk is treated as if it had run it: it gets another chunk in advance only if that has the same
needs. So a lane with short items becomes free for items with other needs.

Needs never exceed the queue's resources, so the first in line starts when the running items have ended.

If a worker sees only the units of a resource that it had before its first item (`Books.device`), its lane keeps these;
a lane without free units gets a new worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from mpqueue._core.commands import SendChunk
from mpqueue._core.messages import ItemsAdded, JobSealed
from mpqueue._core.rules import blame, fleet, outcomes, reports
from mpqueue._core.rules.chunking import limit
from mpqueue._core.rules.limits import watch_lane
from mpqueue._core.state.books import Books, TimerKind
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk, LaneBook, LaneState, members
from mpqueue._core.state.pending import Care
from mpqueue._core.state.resources import NO_NEEDS, Left, Needs
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
        _order_waiting(books)
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
    if books.any_needs and books.device is not None and (renewed := lane_to_renew(books)) is not None:
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
    if books.any_needs and not may_start(books, job):
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
        if held is not None and books.any_needs and not may_follow(books, job, lane):
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
    if books.any_needs and not may_start(books, job, lane):
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
        chunk.needs = needs_of_item(books, job, chunk.indices[0])
    books.count_tries(lane, job, len(chunk.indices))
    lane.asked(books.now)
    books.add_chunk(lane, chunk)
    with_handler = job.number not in lane.loaded
    lane.loaded[job.number] = job
    books.commands.append(SendChunk(lane.number, lane.generation, chunk, with_handler))
    watch_lane(books, lane)
    if books.any_needs:
        _note_started(books, job)
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


#: Seconds for which a job's next item may be passed by those of other jobs.
PASSED_SECONDS = 5.0


def _order_waiting(books: Books) -> None:
    """Find out which jobs wait now, and which of them is first in line."""
    best, books.first_in_line = None, None
    for job in books.jobs.values():
        if not _has_a_lane(books, job):
            continue
        if job.waits_since is None:
            job.waits_since = books.now if _has_to_wait(books, job) else None
        elif books.now >= job.waits_since + PASSED_SECONDS:
            standing = (-job.options.priority, job.waits_since)
            if best is None or standing < best:
                best, books.first_in_line = standing, (job, next_needs(books, job))


def _has_a_lane(books: Books, job: JobBook) -> bool:
    """True if a present worker may run items of the job, and the job may have one more."""
    return job.may_have_more(None) and job.runnable and _may_use_any(books, job, books.ready)


def _may_use_any(books: Books, job: JobBook, lanes: int) -> bool:
    """True if the job's setup has not failed on all of these lanes."""
    if not job.setups:
        return lanes != 0
    return any(job.may_use(number, books.now) for number in members(lanes))


def _has_to_wait(books: Books, job: JobBook) -> bool:
    """True if the job's next item waits for more than the next lane that becomes free."""
    needs = next_needs(books, job)
    places = books.places if books.free else max(1, books.places)
    if not Left(places, books.resources.left).has(needs):
        return True
    return books.device is not None and not any(_sees(books, lane, needs) for lane in _usable(books, job, books.ready))


def _usable(books: Books, job: JobBook, lanes: int) -> list[LaneBook]:
    """Return those of the lanes on which the job's setup has not failed."""
    return [lane for lane in books.members(lanes) if job.may_use(lane.number, books.now)]


def may_start(books: Books, job: JobBook, lane: LaneBook | None = None) -> bool:
    """True if the lane may have the job's next item.

    ``lane``: None is an idle one; for a lane that holds a chunk, it is about the item after that.
    """
    needs = next_needs(books, job)
    return fits(books, job, needs, lane) and (lane is None or _sees(books, lane, needs))


def fits(books: Books, job: JobBook, needs: Needs, lane: LaneBook | None = None) -> bool:
    """True if one more lane may run such items of the job now, or this lane after its chunks."""
    left = _left(books, lane)
    return left.has(needs) and not _are_kept(books, job, needs, left, lane)


def _are_kept(books: Books, job: JobBook, needs: Needs, left: Left, lane: LaneBook | None) -> bool:
    """True if the job has to leave these resources to the first in line."""
    if books.first_in_line is None:
        return False
    first, wanted = books.first_in_line
    if first is job or job.options.priority > first.options.priority:
        return False
    if any(amount > left.amounts[name] - wanted.amount(name) for name, amount in needs.amounts):
        return True
    if any(amount > left.amounts[name] for name, amount in wanted.amounts):
        return False  # it waits for other items to end, and their lanes will be free then
    if _may_use_any(books, first, books.free if lane is None or not lane.chunks else books.free | lane.bit):
        return True  # it is sent now, or as soon as there are as many CPUs
    return needs.cpus > left.places + 1 - wanted.cpus  # it gets one place with a lane where its setup works


def _left(books: Books, lane: LaneBook | None) -> Left:
    """Return the resources left for one more lane, or for this one once it has run its chunks."""
    resources = books.resources
    if lane is None or not lane.chunks:
        return Left(books.places, resources.left)
    if lane.grant is None:
        return Left(max(0, books.places) + 1, resources.left)
    cpus, amounts = lane.grant.needs
    # After a `resize` the number of places may be negative; a lane may still have again the places that it holds.
    return Left(max(0, books.places) + cpus, resources.left | {name: resources.left[name] + n for name, n in amounts})


def _note_started(books: Books, job: JobBook) -> None:
    """Note that the job's next items have just been sent."""
    job.waits_since = None
    if books.first_in_line is not None and books.first_in_line[0] is job:
        _order_waiting(books)


def may_follow(books: Books, job: JobBook, lane: LaneBook) -> bool:
    """True if the job's next item has the same needs as those on the lane."""
    return next_needs(books, job) == (lane.chunks[0].needs or NO_NEEDS)


def next_needs(books: Books, job: JobBook) -> Needs:
    """Return the needs of the job's next item. Only for a job with one at hand."""
    return needs_of_item(books, job, job.next_index) or NO_NEEDS


def needs_of_item(books: Books, job: JobBook, index: int) -> Needs | None:
    """Return the needs of the job's item, with at most as many CPUs as there are places; None if the job has none."""
    if job.needs is None:
        return None
    needs = job.needs.of_item(index)
    return needs if needs.cpus <= books.wanted else needs._replace(cpus=books.wanted)


def lane_to_renew(books: Books) -> LaneBook | None:
    """Return an idle lane that needs a new worker, if an item could start but for the units that the workers see."""
    if any(lane.state is LaneState.STARTING for lane in books.lanes):
        return None
    for job in books.jobs.values():
        if job.needs is None or not _has_a_lane(books, job) or not may_start(books, job):
            continue
        usable, needs = _usable(books, job, books.free), next_needs(books, job)
        lane = next((lane for lane in usable if not lane.forgetting), None)
        if lane is not None and not any(_sees(books, lane, needs) for lane in usable):
            return lane
    return None


def _sees(books: Books, lane: LaneBook, needs: Needs) -> bool:
    """True if the lane's worker sees the units of `Books.device` for such items, or has run nothing so far."""
    amount = 0 if books.device is None else needs.amount(books.device)
    if not amount:
        return True
    if lane.devices is None:
        return not lane.tries
    has_them = lane.grant is not None and books.device in lane.grant.units
    return amount == len(lane.devices) and (has_them or books.resources.are_free(books.device or "", lane.devices))
