"""Unit tests are about decisions: no thread takes part in one."""

from __future__ import annotations

import threading
from typing import NoReturn

import pytest


@pytest.fixture(autouse=True)
def no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test that starts one: it belongs into tests/integration."""

    def refuse(thread: threading.Thread) -> NoReturn:
        pytest.fail(f"a unit test started {thread!r}")

    monkeypatch.setattr(threading.Thread, "start", refuse)
