"""How much is run: what each commit must pass, or, by ``make test-all``, all that is worth running each night.

A test or file marked `long` runs in the long form only. Marked ``long(but=["a", "b"])``, these run in the short form
too: cases, by their whole id or by a part of it, or tests of the file. Where the forms differ by a number, a test looks
at `IS_LONG`.
"""

from __future__ import annotations

import os

import pytest
from _pytest.mark import ParameterSet

#: Whether this is the long form.
IS_LONG = bool(os.environ.get("MPQUEUE_TEST_LONG"))


def long(*values: object) -> ParameterSet:
    """A case of a parametrized test for the long form only."""
    return pytest.param(*values, marks=pytest.mark.long)


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the short form, take what is for the long one out of ``items``."""
    if IS_LONG:
        return
    longer = [item for item in items if _is_long(item)]
    config.hook.pytest_deselected(items=longer)
    items[:] = [item for item in items if not _is_long(item)]


def _is_long(item: pytest.Item) -> bool:
    test, _, case = item.name.partition("[")
    case = case.removesuffix("]")
    names = {test, case, *case.split("-")}
    return any(names.isdisjoint(mark.kwargs.get("but", ())) for mark in item.iter_markers("long"))
