"""CPython's own tests of `multiprocessing.Pool`, run against `mpqueue.Pool`.

They are the installed Python's (`test._test_multiprocessing`), so each version brings its own. What can't apply is
skipped here, each with its reason.
"""

from __future__ import annotations

import multiprocessing
import unittest
from collections.abc import Callable
from typing import Any

import pytest

import mpqueue

standard: Any = pytest.importorskip(
    "test._test_multiprocessing", reason="this Python comes without its test package", exc_type=ImportError
)

#: Tests that can't apply, and why. Each has its counterpart in tests/integration/test_pool.py.
CANNOT_APPLY = {
    "test_unpickleable_result": "a lambda, its unpicklable result, comes home here: functions travel by value",
    "test_worker_finalization_via_atexit_handler_of_multiprocessing": (
        "runs a script that imports the standard library's Pool by name"
    ),
}

pytestmark = [pytest.mark.slow, pytest.mark.unsettled]


@pytest.fixture(autouse=True)
def standard_pool_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of the tests don't ask their class for the pool."""
    monkeypatch.setattr(multiprocessing, "Pool", mpqueue.Pool)


def against_ours(name: str) -> Callable[[type], Any]:
    """The class's tests, those of ``name`` in the standard library's, for processes."""

    def build(stub: type) -> Any:
        body: dict[str, Any] = {"Pool": staticmethod(mpqueue.Pool), "__module__": __name__, "__doc__": stub.__doc__}
        body["__qualname__"] = stub.__qualname__
        for test, reason in CANNOT_APPLY.items():
            if hasattr(getattr(standard, name), test):
                body[test] = unittest.skip(reason)(getattr(getattr(standard, name), test))
        return type(stub.__name__, (getattr(standard, name), standard.ProcessesMixin, unittest.TestCase), body)

    return build


@against_ours("_TestPool")
class TestPool:
    """What a pool does."""


@against_ours("_TestPoolWorkerErrors")
class TestPoolWorkerErrors:
    """Calls that fail."""


@against_ours("_TestPoolWorkerLifetime")
class TestPoolWorkerLifetime:
    """Workers that are replaced."""


class TestInitializers(standard.TestInitializers):  # type: ignore[misc]
    """What workers do first."""

    test_manager_initializer = None  # not about pools
