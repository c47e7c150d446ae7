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
        file, _, name = place.partition("::")
        test, _, case = name.removesuffix("]").partition("[")
        functions = [
            node
            for node in ast.walk(ast.parse((promises.ROOT / file).read_text()))
            if isinstance(node, ast.FunctionDef)
        ]
        if test:
            assert test in [function.name for function in functions], place
            (marks,) = [function.decorator_list for function in functions if function.name == test]
            for mark in marks:
                assert ast.unparse(mark) != "pytest.mark.long", place
                if case and isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.long":
                    assert not {case, *case.split("-")}.isdisjoint(ast.literal_eval(mark.keywords[0].value)), place
