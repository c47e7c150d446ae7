"""The choice of the jobs whose next items may start, by their needs and the resources left.

The items of a job start in their order: if the next one does not fit, those behind it wait too. Other jobs go on with
what is left. After `PASSED_SECONDS` of waiting, a job is first in line: all that its next item needs is kept for it,
and until that has started, no job of the same or a lower priority takes of it.

A lane that holds a chunk is treated as if it had run it: it gets another chunk in advance only if that has the same
needs. So a lane with short items becomes free for items with other needs.

Needs never exceed the queue's resources, so the first in line starts when the running items have ended.

If a worker sees only the units of a resource that it had before its first item (`Books.device`), its lane keeps these;
a lane without free units gets a new worker.
"""

from __future__ import annotations

from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneBook, LaneState, members
from mpqueue._core.state.resources import NO_NEEDS, Left, Needs

#: Seconds for which a job's next item may be passed by those of other jobs.
PASSED_SECONDS = 5.0


def arrange(books: Books) -> None:
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


def started(books: Books, job: JobBook) -> None:
    """Note that the job's next items have just been sent."""
    job.waits_since = None
    if books.first_in_line is not None and books.first_in_line[0] is job:
        arrange(books)


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
