"""What a lane and its worker do with the scheduler's commands, held against a real worker and against the fake one.

The tests of the scheduler and the simulation show something about mpqueue as far as the fake worker does what a real
one does: this is the page that both are held to.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpqueue._core.messages import (
    ChunkRefused,
    ChunkReported,
    JobForgotten,
    LaneDied,
    LaneInitialized,
)
from mpqueue._core.state.job_book import JobBook
from mpqueue._wire.frames import CHUNK_SECONDS, LIMIT, Ended
from mpqueue._wire.memory.ledger import Phase
from mpqueue._worker import timing
from tests.simulation.workbench import PATIENT, UNTIL_TOLD, Bench, FakeBench, RealBench
from tests.support import systems
from tests.support.fake_lanes import crash, fail, packed, spoil, succeed
from tests.support.fake_worker import Outcome, Packing, Try

pytestmark = pytest.mark.usefixtures("forked_workers")

IDLE, LOADING, UNPACKING, RUNNING = Phase.IDLE, Phase.LOADING, Phase.UNPACKING, Phase.RUNNING
#: An item, and the loading of a handler, that last until `Bench.let_go`.
WAITS, LOADS_LONG = succeed(UNTIL_TOLD), [Try(UNTIL_TOLD)]
#: An item that takes hardly any time.
TINY = succeed(1e-5)
#: An item behind which the next one is claimed by itself.
APART = succeed(2 * timing.ALONE_S)
#: An item that takes more than half of a chunk's time.
SLOW = succeed(0.03)


@contextlib.contextmanager
def new_bench(kind: str, folder: Path) -> Iterator[Bench]:
    """A bench with a worker up."""
    if kind == "fake":
        fake = FakeBench()
        fake.start()
        yield fake
        return
    real = RealBench(folder)
    try:
        real.start()
        yield real
    finally:
        real.close()


KINDS = ["fake", pytest.param("real", marks=pytest.mark.slow)]


@pytest.fixture(params=KINDS, scope="module")
def lasting_bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One worker for all tests in which it lives on."""
    with new_bench(request.param, tmp_path_factory.mktemp("bench")) as bench:
        if isinstance(bench, RealBench):
            bench.warm_up()
        yield bench


@pytest.fixture
def bench(lasting_bench: Bench) -> Bench:
    """A worker that ends its chunks when all is done, however long that takes. It is to live on."""
    lasting_bench.begin(PATIENT)
    return lasting_bench


@pytest.fixture
def punctual_bench(lasting_bench: Bench) -> Bench:
    """A worker that ends its chunks when they are due. It is to live on."""
    lasting_bench.begin(LIMIT * CHUNK_SECONDS)
    return lasting_bench


@pytest.fixture(params=KINDS)
def mortal_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A worker that may die."""
    with new_bench(request.param, tmp_path) as bench:
        yield bench


def outcome(report: ChunkReported) -> tuple[Any, ...]:
    """What part of the chunk ended, why, which items failed, and whether more is to come."""
    assert len(report.results) == report.done - report.first
    assert {at for at, result in enumerate(report.results) if result is None} == set(report.failures)
    return report.first, report.done, report.ended, set(report.failures), report.final


def claims(bench: Bench, job: JobBook) -> list[tuple[Phase, int, int]]:
    """What was claimed when each item ran, those of one stretch once."""
    found: list[tuple[Phase, int, int]] = []
    for index in range(job.total):
        claim = bench.claims.get((job.number, index))
        if claim is not None and claim not in found[-1:]:
            found.append(claim)
    return found


# -- a chunk ---------------------------------------------------------------------------------------------------------


def test_a_new_worker_claims_nothing(bench: Bench) -> None:
    assert bench.observe()[:4] == (0, IDLE, 0, 0)


def test_a_chunk_is_loaded_run_and_reported_and_then_nothing_is_claimed(bench: Bench) -> None:
    job = bench.job(APART, WAITS, succeed(), loads=[Try()])
    chunk = bench.send(job)
    bench.await_claim(chunk, RUNNING, 1, 2)
    bench.let_go()
    report = bench.take(ChunkReported)
    assert (report.chunk, outcome(report)) == (chunk, (0, 3, Ended.DONE, set(), True))
    assert sum(count for count, *_ in report.stretches) == 3
    times = report.times
    assert times is not None
    assert times.begun <= times.ended <= report.received <= report.decoded
    assert 0 < times.handling <= times.ended - times.begun
    assert bench.observe()[:4] == (chunk, IDLE, 3, 3)


def test_failures_are_told_by_position(bench: Bench) -> None:
    job = bench.job(succeed(), fail(), succeed(), fail(times=1))
    report = bench.run(job, attempts=[1, 1, 1, 2])
    assert outcome(report) == (0, 4, Ended.DONE, {1}, True)
    assert (type(report.failures[1].error), report.failures[1].charged) == (ValueError, True)


def test_two_chunks_are_run_one_after_the_other(bench: Bench) -> None:
    one, two = bench.job(WAITS), bench.job(succeed(), succeed())
    first, second = bench.send(one), bench.send(two)
    bench.await_claim(first, RUNNING, 0, 1)
    bench.let_go()
    assert [bench.take(ChunkReported).chunk for _ in range(2)] == [first, second]
    assert bench.observe()[:4] == (second, IDLE, 2, 2)


def test_the_handler_is_brought_once(bench: Bench) -> None:
    job = bench.job(succeed(), loads=[Try(), Try(outcome=Outcome.FAILURE)])
    for brings in (True, False):
        assert outcome(bench.run(job, brings=brings)) == (0, 1, Ended.DONE, set(), True)


def test_an_item_that_can_t_be_pickled_holds_its_chunk_back(bench: Bench) -> None:
    job = bench.job(succeed(), packed(Packing.UNPICKLABLE), succeed())
    bench.send(job)
    refused = bench.take(ChunkRefused)
    assert (refused.job, [*refused.failures], refused.failures[1].charged) == (job, [1], False)
    assert bench.observe()[:4] == (0, IDLE, 0, 0)


def test_an_item_that_can_t_be_unpickled_sends_its_chunk_back(bench: Bench) -> None:
    job = bench.job(succeed(), packed(Packing.UNREADABLE), succeed())
    assert outcome(bench.run(job)) == (0, 0, Ended.UNREADABLE, set(), True)
    assert bench.observe()[1:4] == (UNPACKING, 0, 3)
    report = bench.run(job, careful=True, brings=False)
    assert outcome(report) == (0, 3, Ended.DONE, {1}, True)
    assert report.failures[1].charged is False


# -- stretches -------------------------------------------------------------------------------------------------------


def test_tiny_items_run_in_stretches_that_grow_from_one(bench: Bench) -> None:
    job = bench.job(*[TINY] * 1000)
    *_, (_, pace, _) = bench.run(job).stretches
    found = [(lo, hi) for _, lo, hi in claims(bench, job)]
    sizes = [hi - lo for lo, hi in found]
    # One that a busy machine held up is cut off before its end.
    assert all(lo < after <= hi for (lo, hi), (after, _) in itertools.pairwise(found))
    assert (found[0], found[-1][1]) == ((0, 1), 1000)
    assert max(sizes) > 1
    assert all(after <= timing.STRETCH_GROWTH * before for before, after in itertools.pairwise(sizes))
    again = bench.job(*[TINY] * 10)
    again.number, again.handler = job.number, job.handler
    bench.claims.clear()
    bench.run(again, brings=False)
    # It knows by now how quick they are, unless a busy machine held up the last of them.
    assert claims(bench, again)[0][2] > 1 or pace >= timing.ALONE_S


def test_slow_items_and_careful_ones_are_claimed_one_by_one(bench: Bench) -> None:
    slow, careful = bench.job(*[APART] * 4), bench.job(*[succeed()] * 20)
    bench.run(slow)
    assert claims(bench, slow) == [(RUNNING, at, at + 1) for at in range(4)]
    bench.run(careful, careful=True)
    assert claims(bench, careful) == [(RUNNING, at, at + 1) for at in range(20)]


# -- what ends a chunk before its last item -------------------------------------------------------------------------


@pytest.mark.parametrize("careful", [False, True])
def test_nothing_is_claimed_from_a_limit_on(bench: Bench, careful: bool) -> None:
    job = bench.job(WAITS, *[succeed()] * 9, loads=LOADS_LONG)
    chunk = bench.send(job, careful=careful)
    bench.await_claim(chunk, LOADING, 0, 0)
    bench.lower(chunk, 5)
    bench.lower(chunk + 1, 0)  # the one behind it
    bench.let_go()
    assert outcome(bench.take(ChunkReported)) == (0, 5, Ended.LIMIT, set(), True)
    assert bench.observe()[:4] == (chunk, IDLE, 5, 5)
    assert outcome(bench.run(job, careful=careful, brings=False)) == (0, 0, Ended.LIMIT, set(), True)


def test_a_limit_below_what_was_claimed_ends_the_chunk_behind_that(bench: Bench) -> None:
    job = bench.job(APART, WAITS, succeed())
    chunk = bench.send(job)
    bench.await_claim(chunk, RUNNING, 1, 2)
    bench.lower(chunk, 0)
    bench.let_go()
    assert outcome(bench.take(ChunkReported)) == (0, 2, Ended.LIMIT, set(), True)


def test_a_limit_may_keep_the_whole_chunk_from_beginning(bench: Bench) -> None:
    job = bench.job(succeed(), loads=LOADS_LONG)
    chunk = bench.send(job)
    bench.await_claim(chunk, LOADING, 0, 0)
    bench.lower(chunk, 0)
    bench.let_go()
    assert outcome(bench.take(ChunkReported)) == (0, 0, Ended.LIMIT, set(), True)


@pytest.mark.parametrize("flag", ["pause", "cancel"])
def test_flags_are_looked_at_between_two_items(bench: Bench, flag: str) -> None:
    job = bench.job(WAITS, succeed())
    chunk = bench.send(job)
    bench.await_claim(chunk, RUNNING, 0, 1)
    bench.set_flags(job.number, **{flag: True})
    bench.let_go()
    ended = Ended.PAUSED if flag == "pause" else Ended.CANCELLED
    assert outcome(bench.take(ChunkReported)) == (0, 1, ended, set(), True)


@pytest.mark.parametrize("flag", ["pause", "cancel"])
def test_flags_keep_a_chunk_from_beginning_until_they_are_cleared(bench: Bench, flag: str) -> None:
    job, other = bench.job(*[succeed()] * 3), bench.job(succeed())
    bench.set_flags(job.number, **{flag: True})
    assert outcome(bench.run(job))[:2] == (0, 0)
    assert outcome(bench.run(other))[:2] == (0, 1), "they are of one job"
    bench.set_flags(job.number)
    assert outcome(bench.run(job, brings=False))[:2] == (0, 3)


def test_a_chunk_ends_when_its_time_is_over(punctual_bench: Bench) -> None:
    bench = punctual_bench
    report = bench.run(bench.job(*[SLOW] * 5))
    if not report.final:  # an item had ended when another one still ran
        report = bench.take(ChunkReported)
    assert (report.done in (1, 2), report.ended, report.final) == (True, Ended.TIME, True)


def slow_among_tiny_ones(bench: Bench) -> JobBook:
    """A job whose sixth item of eleven is slow, of which the worker has learned that all are tiny."""
    quick = [TINY] * 5
    job = bench.job(*quick, fail(UNTIL_TOLD), *quick)
    learning = bench.job(*[TINY] * 1000)
    learning.number, learning.handler = job.number, job.handler
    bench.send(learning)
    while not bench.take(ChunkReported).final:
        """A part of it has come home, as the machine is busy."""
    return job


def test_what_ended_before_a_slow_item_comes_home_and_only_that_item_is_claimed(lasting_bench: Bench) -> None:
    bench = lasting_bench
    bench.begin(0.5)  # in which five tiny items end on any machine
    job = slow_among_tiny_ones(bench)
    chunk = bench.send(job, brings=False)
    early = bench.take(ChunkReported)
    assert outcome(early) == (0, 5, Ended.DONE, set(), False)
    bench.await_claim(chunk, RUNNING, 5, 6)
    bench.let_go()
    rest = bench.take(ChunkReported)
    assert outcome(rest) == (5, 6, Ended.TIME, {0}, True)
    assert early.times is not None
    assert rest.times is not None
    assert early.times.ended == rest.times.begun, "each second once"


def test_in_a_chunk_that_has_time_too_a_slow_item_is_soon_claimed_alone_and_the_others_run(bench: Bench) -> None:
    job = slow_among_tiny_ones(bench)
    chunk = bench.send(job, brings=False)
    bench.await_claim(chunk, RUNNING, 5, 6)
    bench.let_go()
    assert outcome(bench.take(ChunkReported)) == (0, 11, Ended.DONE, {5}, True)


@pytest.mark.parametrize("careful", [False, True])
def test_before_the_first_item_has_ended_nothing_comes_home(punctual_bench: Bench, careful: bool) -> None:
    bench = punctual_bench
    bench.send(bench.job(succeed(4 * LIMIT * CHUNK_SECONDS), succeed()), careful=careful)
    assert outcome(bench.take(ChunkReported)) == (0, 1, Ended.TIME, set(), True)


# -- setup -----------------------------------------------------------------------------------------------------------


def test_a_handler_that_can_t_be_loaded_is_loaded_anew_with_the_next_chunk(bench: Bench) -> None:
    job = bench.job(succeed(), succeed(), loads=[Try(outcome=Outcome.FAILURE), Try()])
    report = bench.run(job)
    assert outcome(report) == (0, 0, Ended.SETUP_FAILED, set(), True)
    assert report.setup_failure is not None
    assert isinstance(report.setup_failure.error, ValueError)
    assert bench.observe()[1:4] == (UNPACKING, 0, 0)
    assert outcome(bench.run(job)) == (0, 2, Ended.DONE, set(), True)


def test_a_job_that_was_forgotten_is_loaded_anew(bench: Bench) -> None:
    job = bench.job(succeed(), loads=[Try(), Try(outcome=Outcome.FAILURE)])
    assert outcome(bench.run(job))[:3] == (0, 1, Ended.DONE)
    before = bench.observe()
    bench.forget(job)
    assert bench.take(JobForgotten).job == job.number
    assert bench.observe()[:4] == (before.chunk, IDLE, 0, 0)
    assert outcome(bench.run(job))[:3] == (0, 0, Ended.SETUP_FAILED)


def test_of_a_light_job_the_worker_hears_with_its_next_chunk_that_it_may_go(bench: Bench) -> None:
    job = bench.job(*[TINY] * 1000)
    bench.run(job)
    before = bench.observe()
    bench.forget(job)
    assert bench.observe()[:4] == before[:4]
    bench.run(job)
    assert claims(bench, job)[0] == (RUNNING, 0, 1), "its items' pace is forgotten too"


def test_a_worker_forgets_in_the_order_in_which_it_was_told(bench: Bench) -> None:
    job, other = bench.job(succeed(), loads=[Try()]), bench.job(WAITS)
    bench.run(job)
    chunk = bench.send(other)
    bench.forget(job)
    bench.await_claim(chunk, RUNNING, 0, 1)
    bench.let_go()
    assert bench.take(ChunkReported).chunk == chunk
    assert bench.take(JobForgotten).job == job.number


def test_the_initializer_is_run_as_loading_of_no_chunk(bench: Bench) -> None:
    bench.initialize(Try(UNTIL_TOLD, Outcome.FAILURE))
    bench.await_claim(0, LOADING, 0, 0)
    bench.let_go()
    failure = bench.take(LaneInitialized).failure
    assert failure is not None
    assert isinstance(failure.error, ValueError)
    assert bench.observe()[:4] == (0, IDLE, 0, 0)


# -- deaths and generations ------------------------------------------------------------------------------------------


#: As Linux tells of them, which the fake worker does everywhere.
SEGFAULT, KILLED = (-11, "SIGSEGV"), (-9, "SIGKILL")


def died(bench: Bench, message: LaneDied, how: tuple[int, str | None]) -> tuple[Any, ...]:
    """Check how, and return at what: chunk, phase, and which items."""
    assert message.claim is not None
    if bench.is_real and how == SEGFAULT:
        how = systems.SEGFAULT
    elif bench.is_real and how == KILLED:
        how = systems.KILLED
    assert (message.exitcode, message.signal) == how
    return message.claim[:4]


def test_an_item_that_kills_its_worker_is_named_by_the_claim(mortal_bench: Bench) -> None:
    mortal_bench.send(mortal_bench.job(APART, crash(), succeed()))
    message = mortal_bench.take(LaneDied)
    assert died(mortal_bench, message, SEGFAULT) == (1, RUNNING, 1, 2)
    assert (message.alone, message.innocent, message.stack) == (True, False, None)


def test_a_death_is_all_that_is_heard_of_the_chunks_of_its_worker(mortal_bench: Bench) -> None:
    job = mortal_bench.job(WAITS, crash())
    chunk = mortal_bench.send(job)
    mortal_bench.send(job, brings=False)
    mortal_bench.await_claim(chunk, RUNNING, 0, 1)
    mortal_bench.let_go()
    assert died(mortal_bench, mortal_bench.take(LaneDied), SEGFAULT) == (1, RUNNING, 1, 2)
    mortal_bench.replace()
    assert mortal_bench.observe()[:4] == (0, IDLE, 0, 0)
    assert outcome(mortal_bench.run(mortal_bench.job(succeed()))) == (0, 1, Ended.DONE, set(), True)


def test_a_handler_that_kills_its_worker_dies_loading(mortal_bench: Bench) -> None:
    mortal_bench.send(mortal_bench.job(succeed(), loads=[Try(outcome=Outcome.CRASH)]))
    assert died(mortal_bench, mortal_bench.take(LaneDied), SEGFAULT) == (1, LOADING, 0, 0)


@pytest.mark.parametrize("careful", [False, True])
def test_an_item_that_kills_its_worker_unpickled_dies_so(mortal_bench: Bench, careful: bool) -> None:
    mortal_bench.send(mortal_bench.job(succeed(), packed(Packing.DEADLY), succeed()), careful=careful)
    assert died(mortal_bench, mortal_bench.take(LaneDied), SEGFAULT) == (1, UNPACKING, *((1, 2) if careful else (0, 3)))


def test_an_initializer_that_kills_its_worker_dies_loading(mortal_bench: Bench) -> None:
    mortal_bench.initialize(Try(outcome=Outcome.CRASH))
    assert died(mortal_bench, mortal_bench.take(LaneDied), SEGFAULT) == (0, LOADING, 0, 0)


@pytest.mark.parametrize("careful", [False, True])
def test_a_worker_that_dies_before_it_can_answer_claims_nothing_any_more(mortal_bench: Bench, careful: bool) -> None:
    mortal_bench.send(mortal_bench.job(succeed(), spoil(), succeed()), careful=careful)
    assert died(mortal_bench, mortal_bench.take(LaneDied), (1, None)) == (1, IDLE, 3, 3)


@pytest.mark.parametrize("dump_stack", [False, True])
def test_a_killed_worker_says_where_it_was_if_asked(mortal_bench: Bench, dump_stack: bool) -> None:
    chunk = mortal_bench.send(mortal_bench.job(APART, WAITS))
    mortal_bench.await_claim(chunk, RUNNING, 1, 2)
    message = mortal_bench.kill(dump_stack=dump_stack)
    assert died(mortal_bench, message, KILLED) == (1, RUNNING, 1, 2)
    assert (message.stack is not None) is dump_stack
    mortal_bench.replace()
    mortal_bench.send(mortal_bench.job(WAITS))
    mortal_bench.let_go()
    assert outcome(mortal_bench.take(ChunkReported)) == (0, 1, Ended.DONE, set(), True), "of the dead one nothing comes"


def test_an_idle_worker_may_be_killed_too(mortal_bench: Bench) -> None:
    mortal_bench.run(mortal_bench.job(succeed()))
    message = mortal_bench.kill()
    assert died(mortal_bench, message, KILLED) == (1, IDLE, 1, 1)
    assert (message.alone, message.innocent) == (True, False)


def test_what_is_asked_of_the_worker_before_goes_nowhere(mortal_bench: Bench) -> None:
    job = mortal_bench.job(succeed())
    before = mortal_bench.generation
    mortal_bench.kill()
    mortal_bench.replace()
    now, mortal_bench.generation = mortal_bench.generation, before
    mortal_bench.send(job)
    mortal_bench.forget(job)
    mortal_bench.generation = now
    assert mortal_bench.observe()[:4] == (0, IDLE, 0, 0)
    assert outcome(mortal_bench.run(job))[:2] == (0, 1)


def test_of_a_worker_that_is_recycled_nothing_is_heard(mortal_bench: Bench) -> None:
    job = mortal_bench.job(succeed())
    mortal_bench.run(job)
    mortal_bench.recycle()
    assert mortal_bench.observe()[:4] == (0, IDLE, 0, 0)
    assert outcome(mortal_bench.run(job))[:2] == (0, 1)
