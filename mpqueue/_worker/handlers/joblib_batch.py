"""A batch of joblib's calls in the worker; these calls may use ``backend="mpqueue"`` themselves."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any


def run_batch(batch: Callable[[], Any]) -> Any:
    """Make the calls of a batch, and return their results."""
    backends = sys.modules["joblib.parallel"].BACKENDS
    if "mpqueue" not in backends:
        backends["mpqueue"] = _make_backend
    return batch()


def _make_backend(**options: Any) -> Any:
    """Make the backend; its module is loaded on first use, since few workers need it."""
    return importlib.import_module("mpqueue.joblib_backend").MPQueueBackend(**options)
