"""The check of how much work a run is: it fails for more work, and for nothing else."""

from __future__ import annotations

from benchmarks.work import BY_CHANCE, risen


def test_a_figure_that_rises_by_more_than_3_percent_is_named_with_both_counts() -> None:
    (line,) = risen({"run": 1000, "create": 1000}, {"run": 1031, "create": 1029})
    assert line == "run: 1,031, where 1,000 are kept (+3.1%)"


def test_less_work_is_no_fault() -> None:
    assert risen({"run": 1000}, {"run": 1}) == []


def test_a_new_figure_has_to_be_kept() -> None:
    (line,) = risen({}, {"run": 5})
    assert "not among the figures that are kept" in line


def test_a_figure_that_depends_on_chance_may_rise_by_10_percent() -> None:
    assert risen({BY_CHANCE: 100}, {BY_CHANCE: 109}) == []
    assert len(risen({BY_CHANCE: 100}, {BY_CHANCE: 111})) == 1
