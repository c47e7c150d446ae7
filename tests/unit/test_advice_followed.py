"""Advice on workers and CPUs is right: the job is run again as the report says, on a machine that is computed.

All other advice is followed by real workers: tests/integration/test_advice.py.
"""

from __future__ import annotations

import heapq
import re
from itertools import product

import pytest

from mpqueue._report.figures import Figures, measure
from mpqueue._report.rules import Advice, advise
from tests.support.runs import START, Run

#: Rules that say how many workers there should be.
ON_WORKERS = frozenset({"too many workers", "unused CPUs", "waits"})
ITEMS = 96


def run_job(workers: int, cpus: int, computes: float, waits: float, others: int = 0) -> Figures:
    """A job of like items on so many workers that share CPUs fairly. Each item waits, then computes: seconds.

    Other programs use so many of the CPUs.
    """
    run, now, computed = Run(range(ITEMS), lanes=workers), 0.0, 0.0
    left = ITEMS - workers
    begun = dict.fromkeys(range(workers), 0.0)
    waiting = [(waits * (1 + lane / workers), lane) for lane in range(workers)]  # not all in step
    heapq.heapify(waiting)
    computing: list[tuple[float, int]] = []  # by what each has computed when its item is through
    since = dict.fromkeys(range(workers), 0.0)
    while waiting or computing:
        rate = min(1.0, (cpus - others) / max(1, len(computing)))
        through = now + (computing[0][0] - computed) / rate if computing else float("inf")
        at = min(through, waiting[0][0] if waiting else float("inf"))
        computed, now = computed + (at - now) * rate, at
        if at < through:
            _, lane = heapq.heappop(waiting)
            heapq.heappush(computing, (computed + computes, lane))
            since[lane] = now
            continue
        _, lane = heapq.heappop(computing)
        run.chunk(begun[lane], now, lane=lane, cpu=computes, delayed=now - since[lane] - computes)
        if left:
            left -= 1
            begun[lane] = now
            heapq.heappush(waiting, (now + waits, lane))
    return measure(run.end(now), START + 1e6, cpus)


def advice_on_workers(figures: Figures) -> tuple[Advice, int] | None:
    for one in advise(figures):
        if one.rule.name in ON_WORKERS:
            found = re.search(r"JobQueue\((\d+)\)", one.text)
            assert found is not None, one.text
            return one, int(found[1])
    return None


@pytest.mark.parametrize(
    ("computes", "waits"), [(0.001, 0.2), (0.05, 0.2), (0.05, 0.1), (0.1, 0.05), (0.1, 0.01), (0.1, 0.0)]
)
def test_a_job_that_follows_the_advice_on_workers_is_as_quick_as_it_says(computes: float, waits: float) -> None:
    for workers, cpus in product((1, 2, 3, 6, 12), (1, 2, 4)):
        before = run_job(workers, cpus, computes, waits)
        if (found := advice_on_workers(before)) is None:
            continue
        advice, wanted = found
        after = run_job(wanted, cpus, computes, waits)
        if advice.rule.name == "too many workers":
            assert wanted < workers
            assert after.wall <= 1.12 * before.wall, (workers, cpus, advice.text)
        else:
            assert wanted > workers
            assert before.wall / after.wall > 1.1, (workers, cpus, advice.text)
            assert before.wall / after.wall < 1.1 * advice.gain, "it says: up to"


def test_each_of_these_rules_is_followed_somewhere() -> None:
    jobs = (run_job(6, 2, 0.1, 0.01), run_job(1, 4, 0.1, 0.0), run_job(2, 2, 0.01, 0.2))
    assert {found[0].rule.name for job in jobs if (found := advice_on_workers(job))} == ON_WORKERS


def test_a_handler_that_waits_is_not_said_to_have_too_many_workers() -> None:
    """Some of its time it has no CPU, but the workers are there to wait at the same time."""
    for computes in (0.02, 0.05):
        job = run_job(6, 2, computes, 0.1)
        assert "too many workers" not in {one.rule.name for one in advise(job)}
        assert job.wall < run_job(2, 2, computes, 0.1).wall


def test_a_busy_machine_that_is_left_to_the_job_is_as_quick_as_the_report_says() -> None:
    before, after = run_job(2, 2, 0.1, 0.01, others=1), run_job(2, 2, 0.1, 0.01)
    (advice,) = (one for one in advise(before) if one.rule.name == "busy machine")
    assert 1.5 < before.wall / after.wall < 1.1 * advice.gain
    assert "busy machine" not in {one.rule.name for one in advise(after)}
