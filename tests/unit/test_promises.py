"""Each promise has a test that is marked with it, and each mark is of a promise."""

from __future__ import annotations

import ast

import pytest

from tests.support import promises
from tests.support.lots import LOTS, arguments


def test_each_promise_is_held_by_a_test() -> None:
    held = promises.held()
    assert [promise for promise in promises.promises() if promise not in held] == []


def test_each_mark_is_of_a_promise() -> None:
    assert sorted(set(promises.held()) - set(promises.promises())) == []


def test_the_table_is_that_of_the_marks() -> None:
    assert promises.PAGE.read_text() == promises.table(), "`make held-promises` writes it anew"


@pytest.mark.parametrize("lot", LOTS)
def test_what_a_lot_has_is_there_and_runs_at_each_commit(lot: str) -> None:
    """Else it would be found by the lot itself, which takes minutes, or by nobody."""
    for place in arguments(LOTS[lot]):
        file, _, test = place.partition("[")[0].partition("::")
        functions = [
            node
            for node in ast.walk(ast.parse((promises.ROOT / file).read_text()))
            if isinstance(node, ast.FunctionDef)
        ]
        if test:
            assert test in [function.name for function in functions], place
            (marks,) = [function.decorator_list for function in functions if function.name == test]
            assert "pytest.mark.long" not in map(ast.unparse, marks), place
