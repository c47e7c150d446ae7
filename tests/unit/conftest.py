"""Unit tests are about decisions: no thread takes part in one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NoReturn

import pytest

from mpqueue._os import descriptors
from tests.support.auditor import audited
from tests.support.fake_lanes import FakeLanes
from tests.support.this_system import IS_WINDOWS

#: They are about what POSIX systems have, such as signals, or run scripts of a shell.
POSIX_ONLY = [
    "test_alarm.py",
    "test_bad_programs.py",
    "test_os_forms.py",
    "test_packaging.py",
    "test_process_handle.py",
]
collect_ignore = POSIX_ONLY if IS_WINDOWS else []


@pytest.fixture(autouse=True)
def no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test that starts one: it belongs into tests/integration."""

    def refuse(thread: threading.Thread) -> NoReturn:
        pytest.fail(f"a unit test started {thread!r}")

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.fixture
def fleet() -> FakeLanes:
    """One lane, audited."""
    return audited(1)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a pipe: to read from, and to write to."""
    read, write = descriptors.pipe()
    yield read, write
    descriptors.close(read)
    descriptors.close(write)
