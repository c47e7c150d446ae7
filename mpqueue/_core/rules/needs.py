"""Which items may start, given what they need and what is left of it.

Items of a job that have the same needs are of one *kind*. Of each job the kind goes next whose first item is the first
of those that fit; so small items pass large ones that wait for room. Items that do not fit when a lane is asked what it
runs next are *passed*; `PASSED_SECONDS` after the first time they are first in line: until one of them has started,
nothing of the same priority or a lower one starts that takes from them what they lack.

A lane that holds a chunk is asked as if it had run it, and held nothing: it gets another chunk in advance only where it
would get the same kind then. So a lane whose items are short becomes free for those of other needs.

What is needed is never more than there is, so the first in line start when what runs now has ended.

If a worker sees only the units of a resource that it was given before it ran anything (`Books.device`), its lane
keeps these; a lane without units that are free gets a new worker.
"""

from __future__ import annotations

from collections import Counter

from mpqueue._core.rules import fleet
from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneBook, LaneState
from mpqueue._core.state.lane_sets import members
from mpqueue._core.state.needs.pending_by_kind import PendingByKind
from mpqueue._core.state.needs.resources import NO_NEEDS, Left, Needs
from mpqueue._core.state.timer_heap import TimerKind

#: Seconds for which items may be passed by others that need less.
PASSED_SECONDS = 5.0


def begin(books: Books, job: JobBook) -> None:
    """The job starts: from now on it matters what items need."""
    if job.needs is not None:
        books.any_needs = True
        books.resources.limit_memory(job.needs.memory)


def arrange(books: Books) -> None:
    """Find out who is first in line now."""
    best, books.first_in_line = None, None
    for (number, kind), since in list(books.passed.items()):
        job = books.jobs.get(number)
        if job is None or not _waits(job, kind):
            del books.passed[number, kind]
        elif kind in _waiting(job) and books.now >= since + PASSED_SECONDS and _has_a_lane(books, job):
            standing = (-job.options.priority, since)
            if best is None or standing < best:
                best, books.first_in_line = standing, (job, _needs(books, job, kind))


def _has_a_lane(books: Books, job: JobBook) -> bool:
    """True where a worker that is there may run items of the job, and the job may have one more."""
    return job.may_have_more(None) and job.runnable and _may_use_any(books, job, books.ready)


def _may_use_any(books: Books, job: JobBook, lanes: int) -> bool:
    """True where the job's setup has not failed on all of these lanes."""
    if not job.setups:
        return lanes != 0
    return any(job.may_use(number, books.now) for number in members(lanes))


def may_start(books: Books, job: JobBook, lane: LaneBook | None = None) -> bool:
    """True where the lane may have items of the job; turns the job to their kind. What they go before is passed.

    ``lane``: None is one that has nothing to do; of one that holds something, what it may have after that.
    """
    kind, before = _next_kind(books, job, lane)
    for passed in before:
        _pass(books, job, passed)
    if kind is None:
        return False
    job.kind = kind
    if isinstance(job.pending, PendingByKind):
        job.pending.turn_to(kind)
    return True


def startable(books: Books, job: JobBook, lane: LaneBook | None = None) -> int | None:
    """The kind of the job's items that the lane may have next; None where it may have none."""
    return _next_kind(books, job, lane)[0]


def _next_kind(books: Books, job: JobBook, lane: LaneBook | None) -> tuple[int | None, list[int]]:
    """The kind that the lane may have next, and those before it that it may not."""
    if job.needs is None:
        return (0 if fits(books, job, NO_NEEDS, lane) else None), []
    waiting = _waiting(job)
    for place, kind in enumerate(waiting):
        needs = _needs(books, job, kind)
        if fits(books, job, needs, lane) and (lane is None or _suits(books, lane, needs)):
            return kind, waiting[:place]
    return None, waiting


def fits(books: Books, job: JobBook, needs: Needs, lane: LaneBook | None = None) -> bool:
    """True where one more lane may run such items of the job now, or this one after what it holds."""
    return _left(books, lane).has(needs) and not _stands_back(books, job, needs, lane)


def _left(books: Books, lane: LaneBook | None) -> Left:
    """What there is for one more lane, or for this one once it has run what it holds."""
    resources = books.resources
    if lane is None or not lane.chunks:
        return Left(books.places, resources.left)
    if lane.grant is None:
        return Left(max(0, books.places) + 1, resources.left)
    cpus, amounts = lane.grant.needs
    # There are fewer places than none after a `resize`; what it holds, it may have again all the same.
    return Left(max(0, books.places) + cpus, resources.left | {name: resources.left[name] + n for name, n in amounts})


def _stands_back(books: Books, job: JobBook, needs: Needs, lane: LaneBook | None) -> bool:
    """True where such items would take from the first in line what they wait for."""
    if books.first_in_line is None:
        return False
    first, wanted = books.first_in_line
    if job.options.priority > first.options.priority or (job is first and needs == wanted):
        return False
    left = _left(books, lane)
    lacking = left.lacks(wanted)
    if lacking:
        return "cpus" in lacking or any(name in lacking for name, _ in needs.amounts)
    if _may_use_any(books, first, books.free if lane is None or not lane.chunks else books.free | lane.bit):
        return True  # they go out now, or on this lane
    # They wait for a lane where their setup has not failed, perhaps for long. All else that they need is kept for them;
    # one place they get with that lane.
    return not left._replace(places=left.places + 1).has(_together(needs, wanted))


def _together(one: Needs, other: Needs) -> Needs:
    amounts = Counter(dict(one.amounts))
    amounts.update(dict(other.amounts))
    return Needs(one.cpus + other.cpus, tuple(amounts.items()))


def in_line(books: Books) -> object:
    """What decides who stands back: the first in line, and what they lack, of lanes too; None where no job is."""
    if books.first_in_line is None:
        return None
    first, wanted = books.first_in_line
    return first.number, wanted, _left(books, None).lacks(wanted), _may_use_any(books, first, books.free)


def started(books: Books, job: JobBook) -> None:
    """Items of the job's kind have just been sent."""
    books.passed.pop((job.number, job.kind), None)
    if books.first_in_line is not None and books.first_in_line[0] is job:
        arrange(books)


def may_follow(books: Books, job: JobBook, lane: LaneBook) -> bool:
    """True where the items that the job is turned to need the same as those that the lane holds."""
    return next_needs(books, job) == lane.chunks[0].needs


def next_needs(books: Books, job: JobBook) -> Needs | None:
    """What each of the items needs that the job is turned to; None where it names nothing."""
    return None if job.needs is None else _needs(books, job, job.kind)


def renew_a_lane(books: Books) -> bool:
    """Give an idle lane a new worker, where items could start but for the units that the workers see; True if so."""
    if any(lane.state is LaneState.STARTING for lane in books.lanes):
        return False
    idle = [books.lanes[number] for number in members(books.free)]
    for job in books.jobs.values():
        if job.needs is None or not _has_a_lane(books, job):
            continue
        usable = [lane for lane in idle if job.may_use(lane.number, books.now)]
        for kind in _waiting(job):
            needs = _needs(books, job, kind)
            if not fits(books, job, needs) or any(_suits(books, lane, needs) for lane in usable):
                continue
            for lane in usable:
                if not lane.forgetting:
                    fleet.recycle(books, lane)
                    return True
    return False


def _suits(books: Books, lane: LaneBook, needs: Needs) -> bool:
    amount = dict(needs.amounts).get(books.device or "", 0)
    if not amount:
        return True
    if lane.devices is None:
        return not lane.tries
    if len(lane.devices) != amount:
        return False
    has_them = lane.grant is not None and books.device in lane.grant.units
    return has_them or books.resources.are_free(books.device or "", lane.devices)


def _waiting(job: JobBook) -> list[int]:
    """The kinds of which items may go out next, in the order in which they should."""
    if job.packed:
        return [job.packed[0].kind]
    if isinstance(job.pending, PendingByKind):
        return job.pending.waiting()
    return [0] if job.needs is not None and job.pending else []


def _waits(job: JobBook, kind: int) -> bool:
    """True where an item of that kind waits for anything."""
    if any(chunk.kind == kind for line in (job.packing, job.packed) for chunk in line):
        return True
    return job.pending.has(kind) if isinstance(job.pending, PendingByKind) else len(job.pending) > 0


def _needs(books: Books, job: JobBook, kind: int) -> Needs:
    """What such items need: never more places than there are, whatever was said when there were more."""
    assert job.needs is not None
    needs = job.needs.kinds[kind]
    return needs if needs.cpus <= books.wanted else needs._replace(cpus=books.wanted)


def _pass(books: Books, job: JobBook, kind: int) -> None:
    if (job.number, kind) not in books.passed:
        books.passed[job.number, kind] = books.now
        books.timers.add(books.now + PASSED_SECONDS, TimerKind.PASSED)
