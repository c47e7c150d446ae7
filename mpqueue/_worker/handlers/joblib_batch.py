"""A batch of joblib's calls, in the worker: what it calls may ask for ``backend="mpqueue"`` in its turn."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any


def run_batch(batch: Callable[[], Any]) -> Any:
    """Make the calls."""
    backends = sys.modules["joblib.parallel"].BACKENDS
    if "mpqueue" not in backends:
        backends["mpqueue"] = _make_backend
    return batch()


def _make_backend(**options: Any) -> Any:
    """The backend; its module is loaded when it is asked for, since few workers need it."""
    return importlib.import_module("mpqueue.joblib_backend").MPQueueBackend(**options)
