"""Waits for a worker in which no code of the user's runs: each has an age at which the worker is replaced."""

from __future__ import annotations

from typing import Any

import pytest

from mpqueue._core.commands import Capabilities, GiveUpAnswer, InitializeLane, KillLane
from mpqueue._core.messages import LaneInitialized, LaneObserved, Slept
from mpqueue._core.rules.limits import ANSWER_LIMIT, BEGIN_LIMIT, SECOND_LOOK, UNPICKLE_LIMIT
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Verdict, Why
from mpqueue._engines.agent import node_pool
from mpqueue._engines.inline import InlinePool
from mpqueue._wire.frames import STRETCH_SECONDS
from mpqueue._wire.memory.ledger import NOWHERE, Claim, Phase
from mpqueue.errors import ItemTimeoutError, SetupError, WorkerCrashedError
from mpqueue.retry import RetryPolicy
from tests.support.auditor import Auditor
from tests.support.fake_lanes import FakeLanes, Watcher, attempts, errors, hang, statuses, succeed
from tests.support.fake_worker import FakeWorker, Try

AT_ONCE = RetryPolicy(1, base_delay=0.0)
#: Seconds by which a wait is over, wherever its first look fell.
OVER = 2 * ANSWER_LIMIT + 2 * SECOND_LOOK


def deafen(fleet: FakeLanes, monkeypatch: pytest.MonkeyPatch, generations: int) -> None:
    """The first workers of the lane lose all that is sent to them."""
    receive = FakeWorker.receive

    def lose(worker: FakeWorker, *frame: Any) -> None:
        if worker.generation > generations:
            receive(worker, *frame)

    monkeypatch.setattr(FakeWorker, "receive", lose)


def run_one(fleet: FakeLanes, seconds: float = 1000.0, *, timeout: float | None = None) -> JobBook:
    """A job of one item, which has begun."""
    job = fleet.started([succeed(seconds)], retry=AT_ONCE, timeout=timeout)
    fleet.run_until_ready()
    fleet.advance(0.5)
    return job


def test_a_worker_has_its_time_from_when_it_is_asked_however_long_it_had_nothing_to_do(
    fleet: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.run_until_over(run_one(fleet, 1.0))
    fleet.advance(1000.0)
    deafen(fleet, monkeypatch, 1)
    fleet.start(fleet.job([succeed()], retry=AT_ONCE, timeout=2.0))
    asked = fleet.now
    fleet.run_while(lambda: not fleet.counts[KillLane])
    assert fleet.now == pytest.approx(asked + BEGIN_LIMIT + SECOND_LOOK)


@pytest.mark.holds("wait: a worker starts a chunk that was sent to it")
def test_a_chunk_that_no_worker_takes_goes_to_another_one(fleet: FakeLanes, monkeypatch: pytest.MonkeyPatch) -> None:
    deafen(fleet, monkeypatch, 1)
    job = fleet.started([succeed()], retry=AT_ONCE)
    fleet.run_until_over(job, limit=OVER)
    assert (statuses(job), attempts(job)) == (["completed"], [1])
    (warning,) = fleet.warnings
    assert "it did not begin what it was sent within 30 s" in warning


def test_a_job_whose_chunks_no_worker_ever_takes_fails_in_the_end(
    fleet: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    deafen(fleet, monkeypatch, 1000)
    job = fleet.started([succeed()], retry=AT_ONCE)
    fleet.run_until_over(job, limit=3 * OVER, at_rest=False)
    assert errors(job) == [SetupError]
    assert "did not begin what it was sent" in job.table.failures[0].message


@pytest.mark.holds("wait: a worker that is done answers")
def test_a_worker_that_is_done_and_does_not_answer_is_replaced_and_its_item_charged(fleet: FakeLanes) -> None:
    job = fleet.started([succeed()], retry=AT_ONCE)
    worker_gone_quiet = silence(fleet)
    fleet.run_until_over(job, limit=10 * OVER)
    assert worker_gone_quiet
    assert errors(job) == [WorkerCrashedError]
    assert attempts(job) == [2]
    assert "was done and did not answer within 30 s" in job.table.failures[0].message


@pytest.mark.parametrize("begins", [False, True])
def test_an_initializer_that_a_worker_does_not_begin_or_answer_runs_in_the_next_worker(
    fleet: FakeLanes, monkeypatch: pytest.MonkeyPatch, begins: bool
) -> None:
    fleet.initialize_with(lambda _: Try(1.5 * ANSWER_LIMIT if fleet.books.lanes[0].generation == 1 else 0.0))
    handle = fleet.post if begins else fleet._initialize_lane

    def lose(told: Any) -> None:
        if told.generation > 1 or not isinstance(told, LaneInitialized | InitializeLane):
            handle(told)

    if begins:
        monkeypatch.setattr(fleet, "post", lose)
    else:
        fleet._actions[InitializeLane] = lose
    job = fleet.started([succeed()], retry=AT_ONCE)
    fleet.run_until_over(job, limit=2 * OVER)
    assert statuses(job) == ["completed"]
    assert fleet.warnings[-1] == "worker 0 is replaced: it did not begin what it was sent within 30 s"


def silence(fleet: FakeLanes) -> list[int]:
    """From now on no answer of a worker arrives; returns the generations whose answers did not."""
    quiet: list[int] = []
    post = fleet.post

    def lose(message: object) -> None:
        if type(message).__name__ == "ChunkReported":
            quiet.append(message.generation)  # type: ignore[attr-defined]
        else:
            post(message)  # type: ignore[arg-type]

    fleet.post = lose  # type: ignore[method-assign]
    return quiet


@pytest.mark.parametrize(
    "claim",
    [
        Claim(NOWHERE, Phase.IDLE, 0, 0, 0.0),
        Claim(77, Phase.RUNNING, 0, 1, 0.2),
        Claim(1, Phase.RUNNING, 0, 1, 1e10),
    ],
    ids=["no claim", "of another chunk", "in the future"],
)
@pytest.mark.parametrize("timeout", [None, 3.0])
def test_an_item_that_writes_over_its_ledger_and_hangs_is_ended(
    fleet: FakeLanes, claim: Claim, timeout: float | None
) -> None:
    job = run_one(fleet, timeout=timeout)
    fleet.watchers.append(overwrite(fleet, claim))
    fleet.run_until_over(job, limit=20 * OVER)
    assert errors(job) == [WorkerCrashedError]
    assert attempts(job) == [2]


def test_a_ledger_that_makes_no_sense_for_a_moment_is_not_one_that_makes_none(fleet: FakeLanes) -> None:
    run_one(fleet)
    good, bad = fleet.workers[0].claim, Claim(77, Phase.RUNNING, 0, 1, 0.2)  # type: ignore[union-attr]

    def looked(claim: Claim) -> int:
        fleet.handle(LaneObserved(0, 1, claim))
        return fleet.counts[KillLane]

    assert [looked(claim) for claim in (bad, good, bad, bad)] == [0, 0, 0, 1]


def overwrite(fleet: FakeLanes, claim: Claim) -> Watcher:
    """Whenever an item runs, that is what its ledger says."""

    def watch(_: object, __: object) -> None:
        for worker in fleet.workers:
            if worker is not None and worker.claim.phase is Phase.RUNNING:
                worker.claim = claim

    return watch


@pytest.mark.parametrize(
    "engine", [Capabilities(), InlinePool.capabilities, node_pool.CAPABILITIES], ids=["loky", "inline", "node"]
)
def test_an_answer_that_is_unpickled_for_too_long_is_given_up(engine: Capabilities) -> None:
    fleet, given_up = FakeLanes(1, engine=engine), list[float]()
    Auditor(fleet)
    fleet.watchers.append(
        lambda _, commands: given_up.extend(fleet.now for one in commands if isinstance(one, GiveUpAnswer))
    )
    run_one(fleet)
    fleet.unpickling_since = since = fleet.now
    fleet.run_until(since + UNPICKLE_LIMIT)
    assert given_up == []
    fleet.run_while(lambda: not given_up)
    assert since + UNPICKLE_LIMIT < given_up[0] <= since + OVER
    fleet.run_until(given_up[0] + SECOND_LOOK)
    assert len(given_up) == 2, "as long as one is"
    assert fleet.counts[KillLane] == 0


@pytest.mark.parametrize(
    ("phase", "items", "limit", "why"),
    [
        (Phase.LOADING, 0, 7.0, Why.SETUP_TIMEOUT),
        (Phase.UNPACKING, 1, 3.0, Why.TIMEOUT),
        (Phase.RUNNING, 1, 3.0, Why.TIMEOUT),
        (Phase.RUNNING, 2, 3.0 + STRETCH_SECONDS, Why.TIMEOUT),
        (Phase.PACKING, 1, 3.0, Why.TIMEOUT),
    ],
)
@pytest.mark.parametrize("unpickles", [False, True], ids=["", "while an answer is unpickled"])
def test_each_part_of_an_item_s_way_through_a_worker_has_its_limit(
    fleet: FakeLanes, phase: Phase, items: int, limit: float, why: Why, unpickles: bool
) -> None:
    fleet.started([succeed(1e3)] * 2, chunksize=2, timeout=3.0, setup_timeout=7.0)
    fleet.run_until(1.0)
    worker, (lane,) = fleet.workers[0], fleet.books.lanes
    assert worker is not None
    worker.claim = Claim(1, phase, 0, items, fleet.now)
    fleet.unpickling_since = -OVER if unpickles else None
    fleet.run_while(lambda: lane.verdict is None)
    assert lane.verdict == Verdict(why, 1, 0, since=1.0)
    assert fleet.now == pytest.approx(1.0 + limit)


@pytest.mark.parametrize("at", [0, 7, 19])
def test_a_tiny_item_that_holds_up_its_whole_worker_times_out_within_twice_the_timeout(
    fleet: FakeLanes, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(FakeWorker, "_cut", lambda _: None)  # nothing runs in the worker but the item
    items = [succeed(1e-5)] * 20
    items[at] = hang()
    fleet.run([succeed(1e-5)] * 100)
    job, began = fleet.job(items, chunksize=20, timeout=2.0, retry=RetryPolicy(0)), fleet.now
    fleet.run_all(job)
    assert [index for index, error in enumerate(errors(job)) if error is ItemTimeoutError] == [at]
    assert statuses(job).count("completed") == 19
    assert attempts(job) == [1] * 20
    assert fleet.now - began <= 2 * 2.0 + 2 * fleet.start_seconds + 0.1


def test_time_in_which_nobody_could_run_is_no_silence(fleet: FakeLanes, monkeypatch: pytest.MonkeyPatch) -> None:
    deafen(fleet, monkeypatch, 1)
    job = fleet.started([succeed()], retry=AT_ONCE)
    fleet.run_until_ready()
    fleet.handle(Slept(fleet.now, fleet.now + 100.0))
    fleet.advance(ANSWER_LIMIT + 90.0)
    assert fleet.counts[KillLane] == 0
    fleet.run_until_over(job, limit=OVER)
