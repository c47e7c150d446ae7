"""What the page says of a worker's use of the CPUs: since a moment, read off samples."""

from __future__ import annotations

import os

import pytest

from mpqueue._core.state.lane_book import LaneState
from mpqueue._live_page.worker_history import EVERY, Sample, Usage
from mpqueue._parent.running import LaneNow


def test_cpu_time_since_a_moment_lies_between_those_of_the_samples_around_it() -> None:
    usage, lanes = Usage(), [LaneNow(0, LaneState.READY, os.getpid())]
    assert usage.cpu_since(0, 0.0) is None, "not sampled yet"
    ((number, now),) = usage.look(lanes, 0.0)
    assert (number, usage.look(lanes, EVERY / 2)) == (0, []), "too soon"
    samples = usage._workers[0].samples
    samples.clear()
    assert usage.cpu_since(0, 0.0) is None
    samples += [Sample(0.0, now.cpu - 2, 0.0, 0), Sample(2.0, now.cpu - 1, 0.5, 0)]
    moments = {-EVERY / 2: 2.0, 0.0: 2.0, 1.0: 1.5, 2.0: 1.0, 9.0: 1.0}
    assert {at: usage.cpu_since(0, at) for at in moments} == pytest.approx(moments, abs=0.3)
    assert usage.cpu_since(0, -2 * EVERY) is None, "before all samples"
