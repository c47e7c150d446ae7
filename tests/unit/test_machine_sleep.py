"""Time in which nobody could run: how it is noticed, and that it does not count."""

from __future__ import annotations

import pytest

from mpqueue._core.state.books import GRACE, LOOK, NOTICED, Lookout, Sleeps
from mpqueue.errors import ItemTimeoutError
from mpqueue.retry import RetryPolicy
from tests.support.fake_lanes import FakeLanes, errors, hang, statuses, succeed

ONCE = RetryPolicy(max_retries=0)


class Cpu:
    """Seconds of CPU time, as the test has them."""

    def __init__(self) -> None:
        self.used = 0.0

    def __call__(self) -> float:
        return self.used


def test_what_comes_in_time_or_was_not_awaited_is_no_sleep() -> None:
    lookout = Lookout(0.0, Cpu())
    assert lookout.look(5.0, 5.0) is None
    assert lookout.look(6.0 + NOTICED, 1.0) is None
    assert lookout.look(1000.0, None) is None
    assert lookout.look(1001.0, 20.0) is None


def test_a_look_that_is_late_tells_since_when_nobody_may_have_run() -> None:
    lookout = Lookout(0.0, Cpu())
    assert lookout.look(3.0, 3.0) is None
    assert lookout.look(10.0, 1.0) == 3.0
    assert lookout.look(11.0, 1.0) is None


def test_a_process_that_had_a_cpu_meanwhile_has_not_slept() -> None:
    cpu = Cpu()
    lookout = Lookout(0.0, cpu)
    cpu.used += 8.9
    assert lookout.look(10.0, 1.0) is None
    assert lookout.look(20.0, 1.0) == 10.0


def test_sleeps_put_off_what_began_before_their_end() -> None:
    sleeps = Sleeps()
    assert sleeps.after(0.0) == 0.0
    sleeps.add(10.0, 20.0)
    sleeps.add(20.0 + GRACE / 2, 30.0)  # begins in what is counted with the first
    assert sleeps.after(0.0) == pytest.approx(20.0 + GRACE)
    assert sleeps.after(15.0) == pytest.approx(15.0 + GRACE)
    assert sleeps.after(30.0 + GRACE) == 0.0
    sleeps.add(25.0, 26.0)  # all of it known
    assert sleeps.after(0.0) == pytest.approx(20.0 + GRACE)


def test_an_item_that_nobody_could_run_is_not_timed_out_and_one_that_hangs_is() -> None:
    fleet = FakeLanes(2)
    job = fleet.started([succeed(2.9), hang()], timeout=3.0, retry=ONCE, chunksize=1)
    fleet.run_until(2.95)
    fleet.sleep(100.0, workers_late=GRACE / 2)
    fleet.run_until_over(job)
    assert statuses(job) == ["completed", "failed"]
    assert errors(job) == [None, ItemTimeoutError]
    assert 103.0 < fleet.now < 103.2 + GRACE + LOOK


def test_the_time_without_workers_does_not_count_where_nobody_could_start_them() -> None:
    fleet = FakeLanes(1)
    fleet.broken.add(0)
    job = fleet.started([succeed()])
    fleet.run_until(1.0)
    fleet.sleep(1000.0)
    fleet.broken.clear()
    fleet.run_until_over(job)
    assert statuses(job) == ["completed"]


def test_the_clock_is_looked_at_only_while_a_limit_is_running() -> None:
    fleet = FakeLanes(2)

    def looks_soon() -> bool:
        deadline = fleet.scheduler.deadline
        return deadline is not None and deadline <= fleet.now + LOOK

    job, limited = fleet.job([succeed(200.0)]), fleet.job([succeed(10.0)], timeout=50.0)
    fleet.start(job)
    fleet.run_until(100.0)
    assert not looks_soon()
    fleet.start(limited)
    fleet.run_until(105.0)
    assert looks_soon()
    fleet.run_until_over(limited, at_rest=False)
    fleet.run_until(115.0)
    assert not looks_soon()
