"""A pytest plugin, for joblib's own tests: what they ask of joblib's process backend is asked of mpqueue's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import joblib.parallel
import pytest

from mpqueue import joblib_backend


class LokyBackend(joblib_backend.MPQueueBackend):
    """With one try a call, as joblib's own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"max_retries": 0, **options})


joblib.parallel.BACKENDS["loky"] = LokyBackend


@pytest.fixture(scope="session", autouse=True)
def _close() -> Iterator[None]:
    yield
    joblib_backend.close()
