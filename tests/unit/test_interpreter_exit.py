"""The order of what is done at exit."""

from __future__ import annotations

import logging

import pytest

from mpqueue._parent.surroundings import interpreter_exit


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(interpreter_exit, "_callbacks", {})
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
