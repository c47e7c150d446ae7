"""Each promise has a test that is marked with it, and each mark is of a promise."""

from __future__ import annotations

from tests.support import promises


def test_each_promise_is_held_by_a_test() -> None:
    held = promises.held()
    assert [promise for promise in promises.promises() if promise not in held] == []


def test_each_mark_is_of_a_promise() -> None:
    assert sorted(set(promises.held()) - set(promises.promises())) == []


def test_the_table_is_that_of_the_marks() -> None:
    assert promises.PAGE.read_text() == promises.table(), "`make held-promises` writes it anew"
