"""The order of what is done at exit."""

from __future__ import annotations

import logging
import threading

import pytest

from mpqueue._parent.surroundings import interpreter_exit
from mpqueue.errors import QueueClosedError


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(interpreter_exit, "_callbacks", {})
    monkeypatch.setattr(interpreter_exit, "_has_begun", False)
    monkeypatch.setattr(
        interpreter_exit, "_registrations", {"own": True, "after loky's": True, "with multiprocessing": True}
    )
    return []


def test_the_last_registered_is_called_first_and_the_last_resorts_last(done: list[str]) -> None:
    interpreter_exit.on_exit(lambda: done.append("queue"))
    interpreter_exit.on_exit(lambda: done.append("pool"), last=True)
    interpreter_exit.on_exit(lambda: done.append("another queue"))
    interpreter_exit._run()
    interpreter_exit._run()
    assert done == ["another queue", "queue", "pool"]


def test_what_was_taken_back_is_not_called(done: list[str]) -> None:
    take_back = interpreter_exit.on_exit(lambda: done.append("queue"))
    take_back()
    take_back()
    interpreter_exit._run()
    assert done == []


def test_one_that_raises_is_logged_and_does_not_keep_the_others(
    done: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    interpreter_exit.on_exit(lambda: done.append("first"))
    interpreter_exit.on_exit(lambda: 1 // 0)
    with caplog.at_level(logging.ERROR):
        interpreter_exit._run()
    assert done == ["first"]
    assert "ZeroDivisionError" in caplog.text


def test_nothing_begins_once_the_program_is_ending(done: list[str]) -> None:
    refused = list[QueueClosedError]()

    def begin_another() -> None:
        with pytest.raises(QueueClosedError, match="the program is ending") as caught:
            interpreter_exit.on_exit(begin_another)
        refused.append(caught.value)

    interpreter_exit.on_exit(lambda: done.append("bystander"))
    interpreter_exit.on_exit(begin_another)
    interpreter_exit._run()
    begin_another()
    assert done == ["bystander"]
    assert len(refused) == 2


def test_a_child_process_of_multiprocessing_waits_for_what_there_is_and_not_for_what_begins_meanwhile(
    done: list[str],
) -> None:
    def begin_another() -> None:
        done.append("queue")
        interpreter_exit.on_exit(begin_another)

    interpreter_exit.on_exit(begin_another)
    interpreter_exit._call_all()
    assert done == ["queue"]


def test_a_program_whose_threads_have_ended_begins_nothing(done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't register atexit after shutdown")

    monkeypatch.setattr(interpreter_exit, "_registrations", {"own": False, "with multiprocessing": True})
    monkeypatch.setattr(threading, "_register_atexit", refuse)
    for _ in range(2):
        with pytest.raises(QueueClosedError, match="the program is ending"):
            interpreter_exit.on_exit(lambda: done.append("queue"))
    assert not done
