"""The chunk timer's alarm: it goes off once, at the time that was set last."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpqueue._os import alarm as alarms
from mpqueue._os.alarm import Alarm, SleepingAlarm, TimerAlarm
from tests.support.descriptors import no_descriptor_left
from tests.support.systems import LINUX_ONLY
from tests.support.waiting import spend

#: Seconds: as short as they may be, since the test waits for them.
SOON, LATER = 0.001, 0.003


@pytest.fixture(params=[pytest.param(TimerAlarm, marks=LINUX_ONLY), SleepingAlarm])
def alarm(request: pytest.FixtureRequest) -> Iterator[Alarm]:
    made = request.param()
    yield made
    made.close()


def set_and_wait(alarm: Alarm, seconds: float) -> float:
    """Set it, and wait until it goes off; returns how long that took."""
    began = time.monotonic()
    alarm.set(seconds)
    alarm.wait()
    return time.monotonic() - began


def test_it_goes_off_once_at_the_time_that_was_set_last(alarm: Alarm) -> None:
    assert set_and_wait(alarm, SOON) >= SOON * 0.9
    alarm.set(SOON)
    assert set_and_wait(alarm, LATER) >= LATER * 0.9
    alarm.set(1000)
    set_and_wait(alarm, SOON)
    alarm.set(0)
    spend(SOON)  # what happens while nobody waits is not lost
    alarm.wait()
    assert set_and_wait(alarm, LATER) >= LATER * 0.9


@LINUX_ONLY
def test_a_timer_whose_descriptor_is_another_file_now_leaves_that_alone(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("a user's file")
    alarm = TimerAlarm()
    with path.open("rb", buffering=0) as file:
        timer = os.dup(alarm._timer)
        os.dup2(file.fileno(), alarm._timer)
        with pytest.raises(OSError, match="Invalid argument"):
            alarm.set(0)
        assert file.read() == b"a user's file"
    os.close(timer)
    alarm.close()


@LINUX_ONLY
def test_without_a_descriptor_there_is_one_that_sleeps() -> None:
    with no_descriptor_left():
        assert isinstance(alarms._make_timer(), SleepingAlarm)
    made = alarms._make_timer()
    assert isinstance(made, TimerAlarm)
    made.close()
