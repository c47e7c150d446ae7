"""How much is run: what each commit must pass, or, by ``make test-long``, all that is worth running now and then.

A test marked `long` runs in the long form only. Where the forms differ by a number, a test looks at `IS_LONG`.
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
    """In the short form, take the tests marked `long` out of ``items``."""
    if IS_LONG:
        return
    longer = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=longer)
    items[:] = [item for item in items if not item.get_closest_marker("long")]
