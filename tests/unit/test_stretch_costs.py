"""The costs of a stretch's items: a peak of memory is reported only for an item that ran alone, and only its own."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mpqueue._os import process_facts
from mpqueue._worker.timing import PEAK_SECONDS, WORTH_COUNTING, Costs

KIB_AT_PEAK = 5


@pytest.fixture
def resets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file by which the kernel resets the peak, in a ``/proc`` that tells one."""
    here = tmp_path / "self"
    here.mkdir()
    (here / "status").write_text(f"Name:\tpython\nVmHWM:\t{KIB_AT_PEAK} kB\n")
    (here / "clear_refs").touch()
    monkeypatch.setattr(process_facts, "PROC", str(tmp_path))
    return here / "clear_refs"


def peaks_after(*, size: int = 1, seconds: float = PEAK_SECONDS, pace: float | None = None) -> dict[int, int]:
    costs = Costs()
    costs.stretch_begins(3, 3 + size, pace)
    costs.handler_ended()
    costs.stretch_ended(3, 3 + size, seconds, None)
    return costs.peaks_between(2, 9)


def test_the_peak_of_an_item_that_ran_alone_is_told_at_its_position(resets: Path) -> None:
    assert peaks_after() == {1: KIB_AT_PEAK * 1024}
    assert resets.read_text() == "5", "the kernel was asked to reset the peak"


def test_no_peak_is_told_if_the_kernel_refuses_to_reset_it(resets: Path) -> None:
    """It would be that of an earlier item. gVisor has no such file; a filter of system calls may refuse to write it."""
    resets.unlink()
    assert peaks_after() == {}
    resets.mkdir()
    assert peaks_after() == {}


def test_a_peak_is_not_looked_for_where_that_would_cost_much_of_the_item(resets: Path) -> None:
    assert peaks_after(seconds=math.nextafter(PEAK_SECONDS, 0)) == {}
    resets.write_text("")
    assert peaks_after(pace=WORTH_COUNTING / 2) == {}
    assert peaks_after(size=2) == {}
    assert resets.read_text() == "", "nobody asked"
    assert peaks_after(pace=WORTH_COUNTING * 2) != {}
