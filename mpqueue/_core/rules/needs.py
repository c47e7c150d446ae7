"""The choice of the items that may start, by their needs and the resources left.

Items of a job that have the same needs are of one *kind*. For each job, the next kind is the one with the earliest item
that fits; so small items pass large ones that wait for room. Items that do not fit when a lane gets its next ones are
*passed*; `PASSED_SECONDS` after the first time they are first in line: until one of them has started, no item of the
same or a lower priority starts that takes resources they lack.

A lane that holds a chunk is treated as if it had run it: it gets another chunk in advance only if that would be of the
same kind. So a lane with short items becomes free for items with other needs.

Needs never exceed the queue's resources, so the first in line start when the running items have ended.

If a worker sees only the units of a resource that it had before its first item (`Books.device`), its lane keeps these;
a lane without free units gets a new worker.
"""

from __future__ import annotations

import math
from itertools import pairwise

from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneBook, LaneState
from mpqueue._core.state.lane_sets import members
from mpqueue._core.state.resources import CPUS, NO_NEEDS, Left, Needs, NeedsRange

#: Seconds for which items may be passed by others that need less.
PASSED_SECONDS = 5.0


def arrange(books: Books) -> None:
    """Find out which items are first in line now."""
    best, books.first_in_line = None, None
    for job in books.jobs.values():
        if job.by_kind is None:
            continue
        _forget_what_is_gone(job)
        kind = job.packed[0].kind if job.packed else job.by_kind.longest_passed()
        since = None if kind is None else job.by_kind.passed.get(kind)
        if kind is not None and since is not None and books.now >= since + PASSED_SECONDS and _has_a_lane(books, job):
            standing = (-job.options.priority, since)
            if best is None or standing < best:
                best, books.first_in_line = standing, (job, _needs(books, job, kind))


def _forget_what_is_gone(job: JobBook) -> None:
    """Forget that kinds were passed if none of their items waits any more."""
    assert job.by_kind is not None
    if gone := job.by_kind.passed_and_gone:
        packed = {chunk.kind for line in (job.packing, job.packed) for chunk in line}
        for kind in gone - packed:
            job.by_kind.forget_passed(kind)


def _has_a_lane(books: Books, job: JobBook) -> bool:
    """True if a present worker may run items of the job, and the job may have one more."""
    return job.may_have_more(None) and job.runnable and _may_use_any(books, job, books.ready)


def _may_use_any(books: Books, job: JobBook, lanes: int) -> bool:
    """True if the job's setup has not failed on all of these lanes."""
    if not job.setups:
        return lanes != 0
    return any(job.may_use(number, books.now) for number in members(lanes))


def may_start(books: Books, job: JobBook, lane: LaneBook | None = None) -> bool:
    """True if the lane may have items of the job; turns the job to their kind. Kinds before them are passed.

    ``lane``: None is an idle one; for a lane that holds a chunk, it is about the items after that.
    """
    kind = startable(books, job, lane)
    if job.by_kind is not None:
        _pass_before(books, job, kind)
    if kind is None:
        return False
    job.kind = kind
    if job.by_kind is not None:
        job.by_kind.turn_to(kind)
    return True


def _pass_before(books: Books, job: JobBook, kind: int | None) -> None:
    """Note that the kinds before this one (None: all) were passed."""
    assert job.by_kind is not None
    if not job.packed:
        job.by_kind.pass_all_before(kind, books.now)
    elif kind is None:
        job.by_kind.pass_(job.packed[0].kind, books.now)


def startable(books: Books, job: JobBook, lane: LaneBook | None = None) -> int | None:
    """Return the kind of the job's items that the lane may have next; None if it may have none."""
    allowed = _allowed(books, job, lane)
    if lane is not None and books.device is not None and (amounts := _device_amounts(books, lane)) is not None:
        allowed = [each.with_amount(books.device, amount, amount) for each in allowed for amount in amounts]
    return _first(books, job, allowed)


def _first(books: Books, job: JobBook, allowed: list[NeedsRange]) -> int | None:
    """Return the next kind, of those in one of these ranges."""
    if job.packed or job.by_kind is None:
        kind = job.packed[0].kind if job.packed else 0
        needs = NO_NEEDS if job.needs is None else _needs(books, job, kind)
        return kind if any(each.has(needs) for each in allowed) else None
    return job.by_kind.first(allowed)


def fits(books: Books, job: JobBook, needs: Needs) -> bool:
    """True if one more lane may run such items of the job now."""
    return any(each.has(needs) for each in _allowed(books, job, None))


def _allowed(books: Books, job: JobBook, lane: LaneBook | None) -> list[NeedsRange]:
    """Return the allowed needs of items that one more lane runs now, or this lane after its chunks.

    They take no resources that the first in line wait for.
    """
    left = _left(books, lane)
    whole = NeedsRange(_up_to(books, left.places), left.amounts)
    if books.first_in_line is None or job.options.priority > books.first_in_line[0].options.priority:
        return [whole]
    first, wanted = books.first_in_line
    allowed = [_just(books, wanted, left)] if job is first and left.has(wanted) else []
    if lacking := left.lacks(wanted):
        if CPUS not in lacking:
            allowed.append(whole._replace(amounts={**left.amounts, **dict.fromkeys(lacking, 0)}))
    elif not _may_use_any(books, first, books.free if lane is None or not lane.chunks else books.free | lane.bit):
        # They wait for a lane where their setup has not failed, perhaps for long. All their other needs are kept for
        # them; they get one place with that lane. Otherwise they are sent now, or on this lane.
        beside = {name: amount - wanted.amount(name) for name, amount in left.amounts.items()}
        allowed.append(NeedsRange(_up_to(books, left.places + 1 - wanted.cpus), beside))
    return allowed


def _just(books: Books, wanted: Needs, left: Left) -> NeedsRange:
    """Return the range of exactly these needs."""
    exact = {name: wanted.amount(name) for name in left.amounts}
    return NeedsRange(_up_to(books, wanted.cpus), exact, {**exact, CPUS: wanted.cpus})


def _up_to(books: Books, places: int) -> float:
    """Return how many CPUs may be asked for if that many places are left; a request for more than all gets all."""
    return math.inf if places >= books.wanted else places


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


def in_line(books: Books) -> object:
    """Return the first in line with the resources they lack, lanes too; others stand back for them. None: no job is."""
    if books.first_in_line is None:
        return None
    first, wanted = books.first_in_line
    return first.number, wanted, _left(books, None).lacks(wanted), _may_use_any(books, first, books.free)


def started(books: Books, job: JobBook) -> None:
    """Note that items of the job's kind have just been sent."""
    if job.by_kind is not None:
        job.by_kind.forget_passed(job.kind)
    if books.first_in_line is not None:
        arrange(books)


def may_follow(books: Books, job: JobBook, lane: LaneBook) -> bool:
    """True if the items that the job is turned to have the same needs as the lane's."""
    return next_needs(books, job) == lane.chunks[0].needs


def next_needs(books: Books, job: JobBook) -> Needs | None:
    """Return the needs of each item of the kind that the job is turned to; None if the job names none."""
    return None if job.needs is None else _needs(books, job, job.kind)


def lane_to_renew(books: Books) -> LaneBook | None:
    """Return an idle lane that needs a new worker, if items could start but for the units that the workers see."""
    if any(lane.state is LaneState.STARTING for lane in books.lanes):
        return None
    idle = [books.lanes[number] for number in members(books.free)]
    for job in books.jobs.values():
        if job.by_kind is None or not _has_a_lane(books, job):
            continue
        usable = [lane for lane in idle if job.may_use(lane.number, books.now)]
        lane = next((lane for lane in usable if not lane.forgetting), None)
        if lane is not None and _lack_units(books, job, usable):
            return lane
    return None


def _lack_units(books: Books, job: JobBook, lanes: list[LaneBook]) -> bool:
    """True if items of the job could start, but none of these lanes has the units."""
    assert books.device is not None
    suited = {0}
    for lane in lanes:
        amounts = _device_amounts(books, lane)
        if amounts is None:
            return False
        suited |= amounts
    between = [(low + 1, high - 1) for low, high in pairwise([*sorted(suited), math.inf])]
    allowed = [each.with_amount(books.device, *part) for each in _allowed(books, job, None) for part in between]
    return _first(books, job, allowed) is not None


def _device_amounts(books: Books, lane: LaneBook) -> set[int] | None:
    """Return how many units of `Books.device` items on the lane may need; None: any number."""
    if lane.devices is None:
        return {0} if lane.tries else None
    has_them = lane.grant is not None and books.device in lane.grant.units
    if has_them or books.resources.are_free(books.device or "", lane.devices):
        return {0, len(lane.devices)}
    return {0}


def _needs(books: Books, job: JobBook, kind: int) -> Needs:
    """Return the needs of such items, with at most as many CPUs as there are places now."""
    assert job.needs is not None
    needs = job.needs.kinds[kind]
    return needs if needs.cpus <= books.wanted else needs._replace(cpus=books.wanted)
