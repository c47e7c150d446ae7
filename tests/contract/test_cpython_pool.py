"""CPython's own tests of `multiprocessing.Pool`, run against `mpqueue.Pool`.

They are the installed Python's (`test._test_multiprocessing`), so each version brings its own. What can't apply is
skipped here, each with its reason.
"""

from __future__ import annotations

import multiprocessing
import unittest
from typing import Any

import pytest

import mpqueue

standard: Any = pytest.importorskip(
    "test._test_multiprocessing", reason="this Python comes without its test package", exc_type=ImportError
)

#: Tests that can't apply, and why. Each has a counterpart in tests/integration/test_pool.py.
CANNOT_APPLY = {
    "test_unpickleable_result": "its unpicklable result is a lambda, which comes home here: functions travel by value",
    "test_worker_finalization_via_atexit_handler_of_multiprocessing": "runs a script that imports the other Pool",
}

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


@pytest.fixture(autouse=True)
def the_pool_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of the tests don't ask their class for the pool."""
    monkeypatch.setattr(multiprocessing, "Pool", mpqueue.Pool)


class Ours(standard.ProcessesMixin):  # type: ignore[misc]
    """The standard library's mixin for pools of processes, with another pool."""

    Pool = mpqueue.Pool

    def setUp(self) -> None:
        reason = CANNOT_APPLY.get(self._testMethodName)
        if reason:
            self.skipTest(reason)


class TestPool(standard._TestPool, Ours, unittest.TestCase):  # type: ignore[misc]
    """What a pool does."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        assert len(cls.pool._pool) == 4  # all there: what comes later would count as left behind by the first test


class TestPoolWorkerErrors(standard._TestPoolWorkerErrors, Ours, unittest.TestCase):  # type: ignore[misc]
    """Calls that fail."""


class TestPoolWorkerLifetime(standard._TestPoolWorkerLifetime, Ours, unittest.TestCase):  # type: ignore[misc]
    """Workers that are replaced."""


class TestInitializers(standard.TestInitializers):  # type: ignore[misc]
    """What workers do first."""

    test_manager_initializer = None  # not about pools

    def tearDown(self) -> None:
        super().tearDown()
        del self.ns, self.mgr  # and with them the connection
