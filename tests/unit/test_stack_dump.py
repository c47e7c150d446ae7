"""The stack of a worker that is about to be killed: when all of it is here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mpqueue._engines.loky.process import stack_dump
from mpqueue._engines.loky.process.stack_dump import LOOK_PATIENCE, PATIENCE, SETTLE, StackDump
from mpqueue._os import channels


class Timer:
    def __init__(self, pause: float, call: Callable[[], object]) -> None:
        self.pause, self.call, self.cancelled = pause, call, False


class Watcher:
    """Remembers what it is asked for."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []
        self.read: Callable[[], object] = lambda: None

    def later(self, pause: float, call: Callable[[], object]) -> Timer:
        self.timers.append(Timer(pause, call))
        return self.timers[-1]

    def cancel(self, timer: Timer) -> None:
        timer.cancelled = True

    def on_readable(self, _fd: int, call: Callable[[], object]) -> None:
        self.read = call

    def forget(self, _fd: int) -> None: ...

    @property
    def due(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]


class Worker:
    def __init__(self) -> None:
        self.sent: list[int] = []
        self.stopped, self.is_deaf = False, False

    def is_stopped(self) -> bool:
        return self.stopped

    def catches(self, _signal: int) -> bool:
        return not self.is_deaf

    def send(self, signal: int) -> None:
        self.sent.append(signal)


def ask(fd: int) -> tuple[StackDump, Watcher]:
    watcher: Any = Watcher()
    worker: Any = Worker()
    dump = StackDump(fd, worker, watcher)
    dump.listen()
    dump.request(lambda: None)
    assert len(worker.sent) == 1
    return dump, watcher


def test_each_piece_is_waited_for_anew(pipe: tuple[int, int]) -> None:
    dump, watcher = ask(pipe[0])
    (first,) = watcher.due
    assert first.pause == PATIENCE
    for piece in (b"Thread 0x", b"12 (most recent call first):\n", b"  File ..."):
        before = watcher.due
        channels.write(pipe[1], piece)
        watcher.read()
        (timer,) = watcher.due
        assert timer not in before
        assert timer.pause == SETTLE
    assert dump.take() == "Thread 0x12 (most recent call first):\n  File ..."
    assert not watcher.due


def test_text_without_end_is_not_waited_for(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_dump, "MOST", 10)
    _, watcher = ask(pipe[0])
    for _ in range(5):
        channels.write(pipe[1], b"x" * 8)
        watcher.read()
    assert len(watcher.timers) == 3
    assert len(watcher.due) == 1


def looked_at(fd: int) -> tuple[StackDump, Watcher, Worker, list[str | None]]:
    watcher: Any = Watcher()
    worker: Any = Worker()
    dump = StackDump(fd, worker, watcher)
    dump.listen()
    told: list[str | None] = []
    dump.look(told.append)
    return dump, watcher, worker, told


def test_who_looks_gets_the_text_and_the_next_one_another(pipe: tuple[int, int]) -> None:
    dump, watcher, worker, told = looked_at(pipe[0])
    dump.look(told.append)
    assert [timer.pause for timer in watcher.due] == [LOOK_PATIENCE]
    for text in (b"one", b"other"):
        channels.write(pipe[1], text)
        watcher.read()
        (timer,) = watcher.due
        timer.cancelled = True
        timer.call()
        if text == b"one":
            assert told == ["one", "one"]
            channels.write(pipe[1], b"late")  # what nobody has asked for
            watcher.read()
            dump.look(told.append)
    assert told == ["one", "one", "other"]
    assert len(worker.sent) == 2
    assert dump.take() is None


def test_a_worker_that_would_not_answer_is_not_asked(pipe: tuple[int, int]) -> None:
    dump, watcher, worker, told = looked_at(pipe[0])
    watcher.due[0].call()  # nothing came
    assert told == [None]
    worker.stopped = True
    dump.look(told.append)
    worker.stopped, worker.is_deaf = False, True
    dump.look(told.append)
    assert told == [None] * 3
    assert len(worker.sent) == 1


def test_one_that_is_killed_while_somebody_looks_is_waited_for_as_briefly_as_any(pipe: tuple[int, int]) -> None:
    dump, watcher, _, told = looked_at(pipe[0])
    killed: list[bool] = []
    dump.request(lambda: killed.append(True))
    (timer,) = watcher.due
    assert timer.pause == PATIENCE
    channels.write(pipe[1], b"here")
    assert dump.take() == "here"
    assert told == ["here"]
    assert not killed
    assert not watcher.due


def test_one_that_dies_while_somebody_looks_has_told_what_it_could(pipe: tuple[int, int]) -> None:
    dump, watcher, _, told = looked_at(pipe[0])
    assert dump.take() is None
    assert told == [None]
    assert not watcher.due
