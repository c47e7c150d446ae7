"""Random histories of a queue, against what must hold after every step and what must come true in the end.

``MPQUEUE_HISTORIES=5000`` makes it 5,000 histories. A history that fails is made as short as can be and printed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mpqueue._core.commands import Capabilities
from mpqueue._core.state import item_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.pipeline import Pipeline
from mpqueue._core.state.resources import JobNeeds, Needs, needs_of
from mpqueue._wire.frames import CHUNK_SECONDS
from mpqueue.errors import ItemCancelledError, JobStateError, SetupError, StageError
from mpqueue.retry import RetryPolicy
from mpqueue.status import COMPLETED, FAILED, JobStatus
from tests.support.auditor import Auditor
from tests.support.fake_lanes import MEMORY, FakeLanes, bring, crash, fail, hang, hog, leak, packed, spoil, succeed
from tests.support.fake_worker import Item, Outcome, Packing, Try

#: 80 histories of 50 rules each are 4,000 rules, and several steps of the scheduler for most of them.
HISTORIES = int(os.environ.get("MPQUEUE_HISTORIES", "80"))
RULES = 50

#: Seconds; no item comes near the shorter of the timeouts, so that who times out is no matter of chance.
DURATIONS = (0.0, 20e-6, 0.001, 0.03, 0.2, 3.0)
TIMEOUTS = (1.0, 10.0)
#: Bytes that a worker may have where that is limited: less than twice what the larger of the decent hogs needs.
MOST_MEMORY = 60
#: Seconds of the fleet's clock in which all that was begun has to end.
PATIENCE = 100_000.0


#: What there is, beside memory.
RESOURCES = {"gpu": 2, "license": 3}
needs = st.builds(
    needs_of,
    cpus=st.sampled_from((1, 1, 2, 4)),
    memory=st.sampled_from((0, 0, 10, 60, 100)),
    uses=st.fixed_dictionaries({"gpu": st.sampled_from((0, 0, 1, 2)), "license": st.sampled_from((0, 0, 1, 3))}),
)


@st.composite
def items(draw: st.DrawFn) -> Item:
    """One item."""
    seconds, times = draw(st.sampled_from(DURATIONS)), draw(st.integers(1, 5))
    return draw(
        st.sampled_from(
            (
                succeed(seconds),
                fail(seconds),
                fail(seconds, times=times),
                crash(seconds, times=times),
                hang(times=times),
                spoil(seconds, times=times),
                leak(1, seconds),
                leak(15, seconds),
                hog(20),
                hog(1000),
                *map(packed, Packing),
            )
        )
    )


@st.composite
def batches(draw: st.DrawFn) -> list[Item]:
    """A job's items: mostly good ones, in runs."""
    runs = draw(
        st.lists(st.tuples(st.one_of(st.sampled_from(DURATIONS).map(succeed), items()), st.integers(1, 12)), max_size=6)
    )
    return [item for item, count in runs for _ in range(count)]


loads = st.sampled_from(
    (
        None,
        None,
        lambda lane, time: Try(0.5),
        lambda lane, time: Try(0.1, Outcome.FAILURE if time == 1 else Outcome.RESULT),
        lambda lane, time: Try(0.1, Outcome.CRASH if time % 2 else Outcome.RESULT),
        lambda lane, time: Try(0.1, Outcome.FAILURE if lane == 0 else Outcome.RESULT),
        lambda lane, time: Try(0.1, Outcome.FAILURE),
        lambda lane, time: Try(0.1, Outcome.HANG if time == 1 else Outcome.RESULT),
    )
)


@st.composite
def flows(draw: st.DrawFn, stages: int) -> Item:
    """An item of a pipeline, and all that comes of it."""
    item = draw(st.one_of(st.sampled_from(DURATIONS).map(succeed), items()).filter(lambda item: ends_itself([item])))
    if stages == 1:
        return replace(item, yields=draw(st.sampled_from((None, None, None, (Item(),) * 2))))
    count = draw(st.sampled_from((None, None, None, 0, 1, 3)))
    if count is None:
        return replace(item, returns=draw(flows(stages - 1)))
    return replace(item, yields=tuple(draw(flows(stages - 1)) for _ in range(count)))


class Histories(RuleBasedStateMachine):
    """A queue, its users, and a world that kills workers."""

    @initialize(
        lanes=st.integers(1, 4),
        latency=st.sampled_from((0.0, 0.0003, 0.004)),
        chunk_seconds=st.sampled_from((CHUNK_SECONDS, CHUNK_SECONDS, 0.2)),
        chunk_cost=st.sampled_from((1e-4, 1e-4, 0.1)),
        kill_seconds=st.sampled_from((0.0, 0.05)),
        pack_seconds=st.sampled_from((None, None, 0.0, 0.02, 1.0)),
        max_items=st.sampled_from((None, None, 3, 20)),
        max_memory=st.sampled_from((None, None, MOST_MEMORY)),
        rough=st.booleans(),
        device=st.sampled_from((None, None, "gpu")),
        rows_kept=st.sampled_from((None, 0, 3)),
    )
    def open_queue(
        self,
        lanes: int,
        device: str | None,
        max_items: int | None,
        max_memory: int | None,
        chunk_seconds: float,
        chunk_cost: float,
        rough: bool,
        rows_kept: int | None,
        **world: Any,
    ) -> None:
        """Make the queue; in a rough world workers are killed from outside, and can't be started at times."""
        self.patches = pytest.MonkeyPatch()
        if rows_kept is not None:  # so few that stages forget some
            self.patches.setattr(item_table, "ROWS_KEPT", rows_kept)
        engine = Capabilities(chunk_seconds=chunk_seconds, chunk_cost=chunk_cost, is_here=False)
        self.fleet = FakeLanes(
            lanes,
            max_items_per_worker=max_items,
            max_memory=max_memory,
            engine=engine,
            resources=RESOURCES,
            device=device,
            **world,
        )
        self.auditor = Auditor(self.fleet)
        self.jobs: list[JobBook] = []
        self.streams: list[JobBook] = []
        self.open_jobs: dict[int, list[Item]] = {}  #: what each was given, by its place among the jobs
        self.pipelines: list[JobBook] = []
        self.held_back: set[tuple[JobBook, str]] = set()  #: and by which place
        self.ended: list[tuple[JobBook, int, float]] = []  #: items whose end was asked for, and when
        self.rough = rough
        self.closed = False

    # -- users ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.closed and len(self.jobs) < 6)
    @rule(
        items=batches(),
        load=loads,
        timeout=st.sampled_from((None, *TIMEOUTS)),
        chunksize=st.sampled_from((None, None, 1, 4, 50)),
        priority=st.sampled_from((0, 0, 1)),
        max_lanes=st.sampled_from((None, None, 1, 2)),
        max_retries=st.sampled_from((3, 3, 0, 1)),
        max_failures=st.sampled_from((None, None, 0, 3)),
        deadline=st.sampled_from((None, None, None, 0.5, 20.0)),
        started=st.booleans(),
        costed=st.booleans(),
        kinds=st.one_of(st.just([]), st.just([]), st.lists(needs, min_size=1, max_size=3)),
    )
    def create(
        self,
        items: list[Item],
        started: bool,
        costed: bool,
        kinds: list[Needs],
        max_retries: int,
        timeout: float | None,
        load: Any,
        **options: Any,
    ) -> None:
        """Create a job, and perhaps start it."""
        if timeout is None:
            items = [item for item in items if item.tries[0].outcome is not Outcome.HANG]
        options.update(timeout=timeout, load=load, setup_timeout=None if load is None else 5.0)
        job = self.fleet.job(items, retry=RetryPolicy(max_retries=max_retries), **options)
        if costed:
            job.order_by([item.tries[0].seconds for item in items])
        if kinds:
            of = None if len(kinds) == 1 else [index % len(kinds) for index in range(len(items))]
            job.need(JobNeeds([self.possible(one) for one in kinds], of, memory=100))
        self.jobs.append(job)
        if started:
            self.fleet.start(job)

    def possible(self, needs: Needs) -> Needs:
        """The same, of no more CPUs than there are."""
        return needs._replace(cpus=min(needs.cpus, self.fleet.books.wanted))

    @precondition(lambda self: not self.closed and len(self.jobs) < 6)
    @rule(max_lanes=st.sampled_from((None, 1)))
    def open_stream(self, max_lanes: int | None) -> None:
        """Start a job whose items are still to come."""
        stream = self.fleet.stream(max_lanes=max_lanes)
        self.jobs.append(stream)
        self.streams.append(stream)

    @precondition(lambda self: self.streams)
    @rule(number=st.integers(0, 5), items=batches())
    def add_to_stream(self, number: int, items: list[Item]) -> None:
        """Add items to a stream that takes any."""
        stream = self.streams[number % len(self.streams)]
        if not stream.sealed:
            self.fleet.add(stream, [item for item in items if item.tries[0].outcome is not Outcome.HANG])

    @precondition(lambda self: self.streams)
    @rule(number=st.integers(0, 5))
    def seal_stream(self, number: int) -> None:
        """No more items will come."""
        self.fleet.seal(self.streams[number % len(self.streams)])

    @precondition(lambda self: self.streams)
    @rule(number=st.integers(0, 5), index=st.integers(0, 20), kill=st.booleans())
    def drop_from_stream(self, number: int, index: int, kill: bool) -> None:
        """Cancel one item of a stream."""
        stream = self.streams[number % len(self.streams)]
        if index < len(stream.table):
            self.fleet.drop(stream, index, kill=kill)

    @precondition(lambda self: not self.closed and len(self.jobs) < 6)
    @rule(items=batches(), started=st.booleans(), max_retries=st.sampled_from((3, 0)))
    def open_job(self, items: list[Item], started: bool, max_retries: int) -> None:
        """Create a job that gets more items, and perhaps start it."""
        job = self.fleet.open_job(ends_itself(items), retry=RetryPolicy(max_retries=max_retries))
        self.open_jobs[len(self.jobs)] = ends_itself(items)
        self.jobs.append(job)
        if started:
            self.fleet.start(job)

    @precondition(lambda self: self.open_jobs)
    @rule(number=st.integers(0, 5), items=batches(), later=batches())
    def offer(self, number: int, items: list[Item], later: list[Item]) -> None:
        """Add items to an open job that takes some still; the first one brings more along."""
        at = sorted(self.open_jobs)[number % len(self.open_jobs)]
        job, items = self.jobs[at], ends_itself(items)
        if items:
            items[0] = bring(items[0], *ends_itself(later))
        if not (job.sealed or job.cancelled or job.status.final):
            self.fleet.offer(job, items)
            self.open_jobs[at] += items

    @precondition(lambda self: self.open_jobs)
    @rule(number=st.integers(0, 5))
    def seal(self, number: int) -> None:
        """An open job gets nothing more from outside."""
        self.fleet.seal(self.jobs[sorted(self.open_jobs)[number % len(self.open_jobs)]])

    @precondition(lambda self: not self.closed and len(self.jobs) < 6)
    @rule(
        data=st.data(),
        loads=st.lists(loads, min_size=1, max_size=3),
        count=st.integers(0, 6),
        most=st.sampled_from((None, 1, 2, 5)),
        most_lanes=st.sampled_from((None, None, 1, 2)),
        max_lanes=st.sampled_from((None, None, 1, 2)),
        ordered=st.one_of(st.booleans(), st.lists(st.booleans(), min_size=3, max_size=3)),
        priority=st.sampled_from((0, 0, 1)),
        kinds=st.one_of(st.just([]), st.just([]), st.lists(needs, min_size=3, max_size=3)),
    )
    def open_pipeline(
        self, data: st.DataObject, loads: list[Any], count: int, kinds: list[Needs], **options: Any
    ) -> None:
        """Start a pipeline; each of its stages may have needs of its own."""
        given = [data.draw(flows(len(loads))) for _ in range(count)]
        head = self.fleet.stages(given, loads, setup_timeout=5.0, retry=RetryPolicy(max_retries=2), **options)
        for job, one in zip(head.family[1:], kinds, strict=False):
            job.need(JobNeeds([self.possible(one)], None, memory=100))
        self.pipelines.append(head)
        self.jobs.append(head)
        self.fleet.start(head)

    def pick(self, number: int) -> JobBook:
        """One of the jobs."""
        return self.jobs[number % len(self.jobs)]

    @precondition(lambda self: self.jobs and not self.closed)
    @rule(number=st.integers(0, 5))
    def start(self, number: int) -> None:
        """Start a job, where that is allowed."""
        job = self.pick(number)
        self.call(self.fleet.start, job, allowed=job.status is JobStatus.PENDING)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 5))
    def pause(self, number: int) -> None:
        """Pause a job, where that is allowed."""
        job = self.pick(number)
        self.call(self.fleet.pause, job, allowed=job.paused or (job.active and not job.cancelled))
        assert job.paused or job.cancelled or not job.active

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 5))
    def resume(self, number: int) -> None:
        """Resume a job, where that is allowed."""
        job = self.pick(number)
        self.call(self.fleet.resume, job, allowed=job.active)
        assert not job.paused

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 5), place=st.sampled_from(["journal", "sink"]), held=st.booleans())
    def hold_back(self, number: int, place: str, held: bool) -> None:
        """Too much of a job waits to be written somewhere, or not any more."""
        job = self.pick(number)
        if ((job, place) in self.held_back) is not held:
            self.held_back.symmetric_difference_update({(job, place)})
            self.fleet.hold_back(job, held=held)
        assert not job.runnable or not any(other is job for other, _ in self.held_back)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 5), kill=st.booleans(), why=st.sampled_from([None, "its sink fails"]))
    def cancel(self, number: int, kill: bool, why: str | None) -> None:
        """Cancel a job."""
        job = self.pick(number)
        over = job.status.final
        self.fleet.cancel(job, kill=kill, why=why)
        assert job.cancelled or over
        assert not job.paused

    @precondition(lambda self: self.jobs)
    @rule(
        number=st.integers(0, 5),
        stage=st.integers(0, 3),
        places=st.lists(st.integers(0, 40), min_size=1, max_size=4),
        kill=st.booleans(),
    )
    def cancel_items(self, number: int, stage: int, places: list[int], kill: bool) -> None:
        """Cancel some items of a job, or of one of its stages."""
        family = self.pick(number).family
        job = family[stage % len(family)]
        if job in self.streams or not len(job.table):
            return
        indices = sorted({place % len(job.table) for place in places})
        ended = {index: job.table.status[index] for index in indices if job.table.ended(index)}
        on_lanes = {
            index
            for lane in self.fleet.books.lanes
            for chunk in lane.chunks
            if chunk.job is job
            for index in chunk.indices
        }
        was_active, waiting = job.active, [index for index in indices if index not in on_lanes and index not in ended]
        self.fleet.drop(job, *indices, kill=kill)
        assert all(job.table.status[index] == status for index, status in ended.items()), "what has ended stays"
        if was_active and job.pipeline is None:
            assert all(isinstance(job.table.failures[index].error, ItemCancelledError) for index in waiting)
        if was_active and kill:
            self.ended += [(job, index, self.fleet.now) for index in indices]
            for each in job.pipeline.jobs if job.pipeline is not None else ():
                assert each.stage is not None
                self.ended += [(each, index, self.fleet.now) for index in each.stage.items_of(set(indices))]

    @precondition(lambda self: self.jobs and not self.closed)
    @rule(
        number=st.integers(0, 5),
        places=st.one_of(st.none(), st.lists(st.integers(0, 40), max_size=4)),
        stray=st.integers(0, 4),
    )
    def retry_failed(self, number: int, places: list[int] | None, stray: int) -> None:
        """Run failed items again, or some of them, where that is allowed."""
        job = self.pick(number)
        if job in self.streams:
            return
        allowed = job.status in (JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS) and job.pipeline is None
        failed = [index for index in range(len(job.table)) if job.table.status[index] == FAILED]
        among = failed if stray else range(len(job.table))
        indices = None if places is None else sorted({among[place % len(among)] for place in places if among})
        allowed = allowed and set(failed).issuperset(indices or ())
        self.call(partial(self.fleet.retry_failed, indices=indices), job, allowed=allowed)
        if allowed:
            again = failed if indices is None else indices
            self.ended = [one for one in self.ended if one[0] is not job or one[1] not in again]

    @precondition(lambda self: not self.closed)
    @rule(cancel=st.booleans(), within=st.sampled_from((None, 0.0, 0.5, 5.0)), sure=st.integers(0, 9))
    def close(self, cancel: bool, within: float | None, sure: int) -> None:
        """Close the queue, or drain it, one time in ten."""
        if sure == 0:
            self.closed = True
            self.fleet.close(cancel=cancel, within=within)

    def call(self, method: Any, job: JobBook, *, allowed: bool) -> None:
        """Call a method that is refused where it makes no sense, with nothing changed."""
        if allowed:
            method(job)
            return
        before = (job.status, job.completed, job.failed, job.epoch, len(job.pending), job.lanes)
        with pytest.raises(JobStateError):
            method(job)
        assert before == (job.status, job.completed, job.failed, job.epoch, len(job.pending), job.lanes)

    # -- the world -------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.closed)
    @rule(lanes=st.integers(1, 5), kill=st.booleans(), sure=st.integers(0, 2))
    def resize(self, lanes: int, kill: bool, sure: int) -> None:
        """Let there be more workers, or fewer."""
        if sure == 0:
            self.fleet.resize(lanes, kill=kill)

    @precondition(lambda self: self.rough)
    @rule(lane=st.integers(0, 3))
    def kill_a_worker(self, lane: int) -> None:
        """Kill a worker from outside."""
        self.fleet.kill(lane % len(self.fleet.workers))

    @precondition(lambda self: self.rough)
    @rule(lane=st.integers(0, 3))
    def let_starts_fail(self, lane: int) -> None:
        """From now on that lane's worker can't be started."""
        self.fleet.broken.add(lane % len(self.fleet.workers))

    @precondition(lambda self: self.rough)
    @rule()
    def let_starts_succeed(self) -> None:
        """From now on all can."""
        self.fleet.broken.clear()

    @precondition(lambda self: self.fleet.books.max_memory is not None)
    @rule(part=st.sampled_from((0.01, 0.12, 1.0)))
    def let_memory_be(self, part: float) -> None:
        """Let so much of the machine's memory be free."""
        self.fleet.let_memory_be(int(part * MEMORY))

    # -- time ------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.0001, 0.0015, 0.01, 0.12, 0.6, 2.0, 9.0, 40.0)))
    def let_time_pass(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.fleet.advance(seconds)

    @rule(steps=st.integers(1, 8))
    def let_things_happen(self, steps: int) -> None:
        """Let the next few things happen, and stop at that very moment."""
        for _ in range(steps):
            if self.fleet.next_moment < self.fleet.now + PATIENCE:
                self.fleet.step()

    @invariant()
    def no_deadline_is_missed(self) -> None:
        """Nothing runs beyond its timeout, and no retry is overdue."""
        if hasattr(self, "auditor"):
            self.auditor.check_deadlines()
            self.check_ends()

    def check_ends(self) -> None:
        """An item whose end was asked for is on no worker a second later."""
        for lane in self.fleet.books.lanes:
            for chunk in lane.chunks if lane.verdict is None else ():
                held = chunk.indices[chunk.reported : chunk.end]
                late = [
                    index
                    for job, index, at in self.ended
                    if job is chunk.job and index in held and self.fleet.now > at + 1
                ]
                assert not late, f"items {late} of {chunk.job.id} run still"

    # -- the end -----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """With workers that start, every running job ends; and as its items say."""
        if not hasattr(self, "fleet"):
            return
        try:
            self.end_all()
        finally:
            self.patches.undo()

    def end_all(self) -> None:
        """Let every running job end, and look whether it did as its items say."""
        fleet, auditor = self.fleet, self.auditor
        fleet.broken.clear()
        fleet.available = MEMORY
        for job, _ in self.held_back:
            fleet.hold_back(job, held=False)
        for job in (*self.streams, *(self.jobs[at] for at in self.open_jobs)):
            fleet.seal(job)
        fleet.run_until_over(
            *(job for job in self.jobs if job.active and not job.paused), limit=PATIENCE, at_rest=False
        )
        for job in self.jobs:
            if job.paused:
                fleet.resume(job)
        fleet.run_until_over(*(job for job in self.jobs if job.active), limit=PATIENCE)
        auditor.check_runs()
        for at, given in self.open_jobs.items():
            check_growth(self.jobs[at], given)
        for job in self.jobs:
            assert job.cancelled or job.stopped_why is None
            if job.pipeline is not None:
                check_flows(job.pipeline, fleet.books.max_memory, exactly=not self.rough)
            elif job.started_at is not None and not job.cancelled:
                check_outcomes(job, fleet.books.max_memory, exactly=not self.rough)
        assert fleet.books.resources.left == fleet.books.resources.limits, "something was not given back"
        fleet.close()
        fleet.run_until(fleet.now + 60.0)
        assert fleet.at_rest


def ends_itself(items: list[Item]) -> list[Item]:
    """Those that end without a timeout."""
    return [item for item in items if item.tries[0].outcome is not Outcome.HANG]


def check_growth(job: JobBook, given: list[Item]) -> None:
    """What was given is there, and what each completed item brought along, once."""
    table = job.table
    brought = [add for at, item in enumerate(table.payloads) if table.status[at] == COMPLETED for add in item.adds]
    assert sorted(map(id, table.payloads)) == sorted(map(id, [*given, *brought]))


def check_flows(pipeline: Pipeline, most_memory: int | None, *, exactly: bool) -> None:
    """Each input came to what its items say, in the order in which they were yielded; nothing is left behind."""
    head, jobs = pipeline.head, pipeline.jobs
    for job in jobs:
        assert job.status.final
        assert job.stage is not None
        assert not job.stage.early
        if (origins := job.table.origins) is not None:
            assert not origins.paths
            assert all(job.table.ended(index) or job.table.payloads[index] is None for index in range(len(job.table)))
    if head.cancelled:
        return
    assert head.nothing_under_way
    for index, item in enumerate(head.table.payloads):
        failure = head.table.failures[index].error if head.table.status[index] == FAILED else None
        assert failure is None or isinstance(failure, StageError | SetupError | ItemCancelledError)
        assert index in head.dropped or not isinstance(failure, ItemCancelledError)
        expected = flow_of(item, jobs, most_memory)
        if (
            not exactly
            or index in head.dropped
            or isinstance(failure, SetupError)
            or isinstance(getattr(failure, "__cause__", None), SetupError)
        ):
            continue
        if isinstance(expected, str):
            assert expected in str(failure)
        else:
            assert (failure, head.table.results[index]) == (None, expected)


def flow_of(item: Item, jobs: Sequence[JobBook], most_memory: int | None) -> Any:
    """What comes of an input: its result, or the name of the stage in which it fails first."""
    ends: list[Any] = []
    is_many = _flow(item, jobs, most_memory, ends)
    failure = next((end for end in ends if isinstance(end, str)), None)
    return failure or (ends if is_many else ends[0])


def _flow(item: Item, jobs: Sequence[JobBook], most_memory: int | None, ends: list[Any]) -> bool:
    assert jobs[0].stage is not None
    if expected_of(item, jobs[0], most_memory)[0] == FAILED:
        ends.append(jobs[0].stage.name)
        return False
    if item.yields is not None:
        for each in item.yields:
            if len(jobs) == 1:
                ends.append(each)
            else:
                _flow(each, jobs[1:], most_memory, ends)
        return True
    following = item.returns or Item()
    if len(jobs) == 1:
        ends.append(following)
        return False
    return _flow(following, jobs[1:], most_memory, ends)


def check_outcomes(job: JobBook, most_memory: int | None, *, exactly: bool) -> None:
    """Everything came to what its items say; and ``exactly`` so, where nobody killed workers from outside."""
    table = job.table
    if any(isinstance(failure.error, SetupError) for failure in table.failures.values()):
        return
    for index in range(len(table)):
        outcome = (table.status[index], table.attempts[index])
        assert table.results[index] == (index if outcome[0] == COMPLETED else None)
        if exactly and index not in job.dropped:
            expected = expected_of(table.payloads[index], job, most_memory)
            assert outcome == expected, (table.payloads[index], table.history.get(index))


def expected_of(item: Item, job: JobBook, most_memory: int | None) -> tuple[int, int]:
    """Status and tries of an item that nobody interferes with, whatever its neighbours did."""
    most = job.options.retry.max_retries + 1
    if item.packing is not Packing.FINE:
        return FAILED, most if item.packing is Packing.DEADLY else 0
    timeout = job.options.timeout
    if most_memory is not None and item.needs > most_memory:
        return FAILED, most
    for attempt in range(1, most + 1):
        doing = item.tries[min(attempt, len(item.tries)) - 1]
        if doing.outcome is Outcome.RESULT and (timeout is None or doing.seconds < timeout):
            return COMPLETED, attempt
    return FAILED, most


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=HISTORIES,
    stateful_step_count=RULES,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
TestHistories = pytest.mark.timeout(0)(pytest.mark.slow(TestHistories))
