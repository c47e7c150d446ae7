"""Packages that only some machines have."""

from __future__ import annotations

import importlib.util
import os

import pytest


def needs(*modules: str) -> None:
    """Skip where these are not installed; where the run says that they must be, fail."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing and not os.environ.get("MPQUEUE_TEST_HEAVY"):
        pytest.skip(f"needs {', '.join(missing)}: make test-heavy")
    assert not missing
