"""The watchdog's alarm: it goes off once, at the time that was set last."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpqueue._os.alarm import Alarm, SleepingAlarm, TimerAlarm, make_alarm
from mpqueue._worker.chunk.watchdog import CUT, Watchdog
from tests.support.descriptors import no_descriptor_left
from tests.support.waiting import wait_until

#: Seconds after which something that should not happen has not happened.
LONG_ENOUGH = 0.2


@pytest.fixture(params=[TimerAlarm, SleepingAlarm])
def alarm(request: pytest.FixtureRequest) -> Iterator[Alarm]:
    made = request.param()
    yield made
    made.close()


def waiting(alarm: Alarm) -> threading.Thread:
    thread = threading.Thread(target=alarm.wait, daemon=True)
    thread.start()
    return thread


def test_it_goes_off_when_its_time_has_come(alarm: Alarm) -> None:
    thread = waiting(alarm)
    began = time.monotonic()
    alarm.set(0.05)
    thread.join(30)
    assert not thread.is_alive()
    assert time.monotonic() - began >= 0.05


def test_one_that_is_set_anew_does_not_go_off_before(alarm: Alarm) -> None:
    alarm.set(LONG_ENOUGH)
    thread = waiting(alarm)
    began = time.monotonic()
    alarm.set(2 * LONG_ENOUGH)
    thread.join(30)
    assert not thread.is_alive()
    assert time.monotonic() - began >= 2 * LONG_ENOUGH


def goes_off_once_set(alarm: Alarm) -> None:
    """It is quiet, and then goes off at once."""
    thread = waiting(alarm)
    thread.join(LONG_ENOUGH)
    assert thread.is_alive()
    alarm.set(0)
    thread.join(30)
    assert not thread.is_alive()


def test_one_that_is_set_to_an_earlier_time_goes_off_then(alarm: Alarm) -> None:
    alarm.set(1000)
    goes_off_once_set(alarm)


def test_one_that_has_gone_off_is_quiet_until_it_is_set_again(alarm: Alarm) -> None:
    alarm.set(0)
    alarm.wait()
    goes_off_once_set(alarm)


def test_what_happened_while_nobody_waited_is_not_lost(alarm: Alarm) -> None:
    alarm.set(0)
    threading.Event().wait(0.01)
    thread = waiting(alarm)
    thread.join(30)
    assert not thread.is_alive()


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


def test_without_a_descriptor_there_is_one_that_sleeps() -> None:
    with no_descriptor_left():
        assert isinstance(make_alarm(), SleepingAlarm)
    made = make_alarm()
    assert isinstance(made, TimerAlarm)
    made.close()


class LateChunk:
    """As much of a chunk as the watchdog asks for: one that will be late, in an item behind others that are over."""

    def __init__(self) -> None:
        self.started, self.station = time.monotonic(), self
        self.stretch_started, self.cut_at = self.started, None
        self.limit = 0.02
        self.careful, self.stretch, self.stretch_lo = True, [1, 2], 0
        self.results, self.running = self, self
        self.lock, self.out, self.sent = threading.Lock(), [None], 0
        self.asked = threading.Event()

    @property
    def outbox(self) -> None:
        self.asked.set()


def watched(watchdog: Watchdog, *, late: bool = True) -> LateChunk:
    chunk = LateChunk()
    watchdog.watch(chunk)  # type: ignore[arg-type]
    if late:
        assert chunk.asked.wait(30)
        assert time.monotonic() - chunk.started >= chunk.limit
    return chunk


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    made = Watchdog()
    yield made
    made.watch(None)
    made.end()


def test_each_late_chunk_is_noticed(watchdog: Watchdog) -> None:
    for _ in range(3):
        watched(watchdog)


def test_chunks_that_are_over_in_time_are_none_of_its_business(watchdog: Watchdog) -> None:
    watched(watchdog)  # so that it runs
    chunks = [watched(watchdog, late=False) for _ in range(20)]
    watchdog.watch(None)
    threading.Event().wait(2 * CUT * chunks[0].limit)
    assert not any(chunk.asked.is_set() for chunk in chunks)


def test_a_handler_that_closes_its_descriptors_leaves_it_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpqueue._os.alarm.LONGEST_WAIT", 0.1)
    watchdog = Watchdog()
    watched(watchdog)
    alarm, first = watchdog._alarm, watchdog._left
    assert isinstance(alarm, TimerAlarm)
    alarm.close()
    watched(watchdog)
    assert isinstance(watchdog._alarm, SleepingAlarm)
    watched(watchdog)
    watchdog.watch(None)
    watchdog.end()
    assert first is not None
    assert watchdog._left is not None
    assert watchdog._left.is_set()
    wait_until(first.is_set)


@pytest.mark.parametrize("make", [TimerAlarm, SleepingAlarm])
def test_it_ends_also_while_nothing_is_late(make: Callable[[], Alarm], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpqueue._worker.chunk.watchdog.make_alarm", make)
    watchdog = Watchdog()
    watched(watchdog)
    assert watchdog._left is not None
    assert not watchdog._left.is_set()
    watchdog.end()
    assert watchdog._left.is_set()


def test_it_ends_also_where_its_thread_could_not_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("mpqueue._worker.chunk.watchdog._thread.start_new_thread", refuse)
    watchdog = Watchdog()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        watched(watchdog, late=False)
    watchdog.end()
