"""Rules of advice hold whatever the figures: they never contradict each other, and their numbers can be true."""

from __future__ import annotations

import math
import re
from itertools import combinations
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mpqueue._core.state.timings import Sums
from mpqueue._report.figures import (
    Figures,
    FirstItems,
    ItemTimes,
    MemoryFigures,
    PaceFigures,
    Part,
    SlowItem,
    Tries,
)
from mpqueue._report.rules import LIMITS, MAX_ADVICE, RULES, advise, conclude, contradict

BY_NAME = {rule.name: rule for rule in RULES}
PARTS = (
    *("handler", "setup", "loading", "unpickling", "pickling", "for_pickling", "for_unpickling", "for_parent"),
    *("transfer", "own", "starting", "replacing", "lost", "idle", "tail"),
)


def make_figures(seed: int) -> Figures:
    """Figures that hang together as little as figures may: parts add up to the whole, all else is nearly any number.

    From a seed, which makes each rule meet each other: values that are drawn one by one are mostly alike.
    """
    chance = Random(seed)
    choose = chance.choice

    def span() -> float:
        return choose([0.0, 1e-7, 1e-3, 0.1, 1.0, 60.0, chance.uniform(0, 1e5)])

    def count() -> int:
        return choose([1, 2, 100, 1000, 10**7, chance.randrange(10**6)])

    def size() -> int:
        return choose([0, 0, 100, 50_000, 31_000_000, 2 * 10**9])

    def pace() -> PaceFigures:
        return PaceFigures(choose([1.0, 2.0, 8.0]), choose([1, 100]), choose([0.01, 0.1]))

    workers, cpus = choose([1, 2, 3, 4, 16, 64]), choose([1, 2, 4, 8, 64])
    parts = dict.fromkeys(["handler", *chance.sample(PARTS, chance.randrange(4))], 0.0)
    parts = {name: choose([0.0, 1e-6, 0.1, 1.0, 1.0, 5.0]) for name in parts}
    wall = math.fsum(parts.values()) / workers
    extra = choose(["parent", "listeners", "tries", "handler", "items", "told", "retries", "", "", "", ""])

    def some(what: str) -> float:
        return choose([0.2, 0.6, 1.0, 4.0]) * wall if what == extra else 0.0

    sums = Sums(parent_pickling=some("parent"), parent_unpickling=some("parent"))
    sums.handling, sums.setup, sums.loading = (parts.get(name, 0.0) for name in ("handler", "setup", "loading"))
    sums.unpacking, sums.packing = parts.get("unpickling", 0.0), parts.get("pickling", 0.0)
    sums.overhead, sums.reports, sums.items = parts.get("own", 0.0), count(), count()
    in_hand = sums.handling + sums.setup + sums.loading + sums.unpacking + sums.packing + sums.overhead
    sums.cpu, sums.delayed = choose([0.0, 0.1, 1.0, 1.0, 4.0]) * in_hand, choose([0.0, 0.0, 0.3, 4.0]) * in_hand
    sums.bytes_out, sums.bytes_home = size(), size()
    sums.deaths = choose([0, 0, 2])
    median = choose([1e-7, 1e-4, 0.05, 2.0])
    mean, longest = median * choose([1.0, 2.0, 100.0]), median * choose([1.0, 2.0, 100.0])
    items = ItemTimes(1, mean, median, mean, longest, longest, ())
    return Figures(
        job_id="job",
        status="completed",
        total=count(),
        completed=count(),
        failed=choose([0, 3]),
        retries=choose([0, 3]),
        wall=wall,
        workers=workers,
        cpus=cpus,
        shared=choose([False, False, True]),
        chunksize=choose([None, 1, 500]),
        sums=sums,
        work=[Part(name, name, seconds, "") for name, seconds in parts.items()],
        parent=[Part("listeners", "in listeners", some("told"), "")],
        items=choose([None, items, items, items]),
        slowest=[SlowItem("a", "'a'", longest, None, 1, "completed")],
        memory=choose([None, None, None, MemoryFigures(3, size(), size(), "a", size())]),
        tries=Tries(choose([0, 3]), some("tries"), [("ValueError: no", 3)]),
        paces=choose([None, None, (pace(), pace())]),
        spans=(),
        events=(),
        handler_bytes=size(),
        handler_weight="",
        handler_seconds=some("handler"),
        told_after=some("told"),
        items_seconds=some("items"),
        grows=choose([False, False, True]),
        elsewhere=choose([False, False, True]),
        first=choose([None, None, FirstItems(workers, sums.handling, choose([0.0, 1e-6, 1.0]))]),
        retry_waits=some("retries"),
        longest_tail=longest * choose([0.0, 0.5, 1.0, 3.0]),
        longest_first=choose([False, False, True]),
        most=choose([None, None, None, 1, 3]),
        needs=choose([False, False, False, True]),
    )


all_figures = st.builds(make_figures, st.integers(0, 2**64))


@given(all_figures, st.one_of(st.none(), all_figures))
def test_whatever_the_figures_the_advice_is_short_true_and_of_one_mind(figures: Figures, alone: Figures | None) -> None:
    found = advise(figures, alone)
    assert len(found) <= MAX_ADVICE
    for one, other in combinations(found, 2):
        assert not contradict(one.rule, other.rule), (one.text, other.text)
    assert [one.gain for one in found] == sorted((one.gain for one in found), reverse=True)
    for one in found:
        assert 1 <= one.gain <= 1000.5
        assert one.finding.anyway or one.finding.saved >= LIMITS.worth
        shares = [float(share) for share in re.findall(r"([\d.]+) %", one.text)]
        assert all(share <= 100 for share in shares), one.text
        assert not re.search(r"\b(nan|inf)\b|-\d+(\.\d+)? ", one.text), one.text
        assert one.text.endswith(".")
    assert len(conclude(figures, found)) == max(len(found), bool(conclude(figures, found)))


@given(all_figures)
@example(make_figures(160340))  # a share that is rounded up beyond the whole
def test_a_rule_finds_a_part_of_the_time_or_nothing(figures: Figures) -> None:
    for rule in RULES:
        finding = None if not figures.worker_seconds else rule.find(figures)
        assert finding is None or 0 <= finding.saved <= 1, (rule.name, finding)


@pytest.mark.parametrize(("one", "other"), [
    ("short items", "long items"), ("short items", "few items"), ("short items", "waits"),
    ("waits", "too many workers"), ("waits", "threads"), ("waits", "busy machine"),
    ("waits", "memory"), ("waits", "shared bottleneck"), ("waits", "unused CPUs"), ("unused CPUs", "too many workers"),
    ("unused CPUs", "shared bottleneck"), ("unused CPUs", "memory"), ("too many workers", "busy machine"),
    ("too many workers", "threads"), ("threads", "busy machine"), ("long items", "waits for retries"),
])  # fmt: skip
def test_what_can_t_both_be_true_contradicts_each_other(one: str, other: str) -> None:
    assert contradict(BY_NAME[one], BY_NAME[other])
    assert contradict(BY_NAME[other], BY_NAME[one])


def test_a_plain_loop_contradicts_all_that_improves_a_pool() -> None:
    loop = BY_NAME["plain loop"]
    assert {rule.name for rule in RULES if not contradict(loop, rule)} == {"plain loop", "listeners"}


def test_each_rule_has_a_name_of_its_own_and_none_contradicts_itself() -> None:
    assert len(BY_NAME) == len(RULES)
    assert all(not contradict(rule, rule) for rule in RULES)
