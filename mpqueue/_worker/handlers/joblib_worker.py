"""joblib in a worker: imported before the first batch comes, which may ask for ``backend="mpqueue"`` in its turn."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def prepare_worker(initializer: Callable[[], object] | None) -> None:
    """Import joblib, which no batch's timeout counts then, and call the user's initializer."""
    importlib.import_module("joblib.parallel").BACKENDS.setdefault("mpqueue", _make_backend)
    if initializer is not None:
        initializer()


def _make_backend(**options: Any) -> Any:
    """The backend; its module is loaded when it is asked for, since few workers need it."""
    return importlib.import_module("mpqueue.joblib_backend").MPQueueBackend(**options)
