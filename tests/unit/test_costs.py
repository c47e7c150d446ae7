"""How what a stretch cost is divided among its items."""

from __future__ import annotations

import math

import pytest

from mpqueue._os.memory import memory_use as memory
from mpqueue._worker.chunk.costs import Costs
from mpqueue._worker.memory_growth import Growth


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the process's CPU clock says, one after the other."""
    said: list[float] = []
    monkeypatch.setattr("time.process_time", lambda: said.pop(0))
    return said


def test_a_stretch_is_divided_evenly(cpu: list[float]) -> None:
    costs = Costs()
    cpu += [10.0, 10.2]
    costs.stretch_begins(0, 4, 0.001)
    assert costs.stretch_ended(0, 4, 0.4, None) == pytest.approx(0.1)
    for first, done in ((0, 4), (1, 3)):
        (stretch,) = costs.between(first, done, 9.0)
        assert stretch == pytest.approx((done - first, 0.1, 0.05))
    assert costs.peaks_between(0, 4) == {}


def test_what_is_left_of_one_that_was_cut_off_is_the_last_item_s(cpu: list[float]) -> None:
    costs = Costs()
    cpu += [0.0, 1.0]
    costs.stretch_begins(0, 3, 0.001)
    assert costs.stretch_ended(0, 3, 2.0, 0.25) == pytest.approx(1.5)
    quick, last = costs.between(0, 3, 9.0)
    assert quick == (2, 0.25, 0.25)
    assert last == pytest.approx((1, 1.5, 0.5))


def test_what_has_not_ended_has_the_pace_that_is_expected_and_no_cpu_seconds(cpu: list[float]) -> None:
    costs = Costs()
    cpu += [0.0, 1.0]
    costs.stretch_begins(0, 1, 0.0)
    costs.stretch_ended(0, 1, 1.0, None)
    known, expected = costs.between(0, 3, 0.5)
    assert known == (1, 1.0, 1.0)
    assert expected[:2] == (2, 0.5)
    assert math.isnan(expected[2])


@pytest.mark.parametrize(
    ("pace", "seconds", "peaks"),
    [(None, 1.0, {0: 77}), (1.0, 1.0, {0: 77}), (1.0, 0.001, {}), (0.001, 1.0, {})],
    ids=["the first", "as expected", "too quick", "was to be quick"],
)
def test_the_peak_is_read_of_what_ran_alone_and_long_enough(
    pace: float | None, seconds: float, peaks: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resets: list[None] = []
    monkeypatch.setattr(memory.peak, "begin", lambda: resets.append(None))
    monkeypatch.setattr(memory.peak, "end", lambda: 77)
    costs = Costs()
    for at in range(3):
        costs.stretch_begins(at, at + 1, pace)
        costs.stretch_ended(at, at + 1, seconds, None)
    assert costs.peaks_between(1, 2) == peaks
    assert len(resets) == (3 if pace != 0.001 else 0)


def test_a_leak_is_seen_by_what_two_items_in_a_row_have_added() -> None:
    growth = Growth()
    assert growth.likely(100) == 100
    assert growth.likely(110) == 110
    assert growth.likely(115) == 120
    assert growth.likely(135) == 140
    assert growth.likely(135) == 135, "what was loaded once stays and is no leak"
    assert growth.likely(90) == 90
    assert growth.likely(190) == 190


def test_the_kernel_is_asked_for_the_peak_only_where_pages_came(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    faults, resident = [10], [100]
    monkeypatch.setattr(memory, "_page_faults", lambda: faults[0])

    def reset() -> bool:
        asked.append("reset")
        return True

    monkeypatch.setattr(memory, "_reset_peak", reset)
    peak = memory.LinuxPeak()

    def read() -> int:
        asked.append("read")
        return resident[0]

    monkeypatch.setattr(memory, "_peak_bytes", read)

    def run(grows: int) -> int | None:
        peak.begin()
        faults[0] += bool(grows)
        resident[0] += grows
        return peak.end()

    assert [run(0), run(0), run(0)] == [100, 100, 100]
    assert asked == ["reset", "read"]
    assert run(50) == 150
    assert asked == ["reset", "read", "read"]
    resident[0] = 120
    assert [run(0), run(0), run(5)] == [120, 120, 125]
    assert asked == ["reset", "read", "read", "reset", "read", "read"]
