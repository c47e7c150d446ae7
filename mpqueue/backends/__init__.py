"""Other engines than loky, for ``JobQueue(backend=...)``. What an engine is, `mpqueue._engine.protocol` says."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mpqueue._engine.loky_backend import LokyBackend
from mpqueue._engine.protocol import Backend, Capabilities
from mpqueue.backends.executor import ExecutorBackend

if TYPE_CHECKING:
    from mpqueue.backends.dask import DaskBackend
    from mpqueue.backends.ray import RayBackend

__all__ = ["Backend", "Capabilities", "DaskBackend", "ExecutorBackend", "LokyBackend", "RayBackend"]

#: What they run on are extras, imported where it is asked for.
_HOMES = {"DaskBackend": "mpqueue.backends.dask", "RayBackend": "mpqueue.backends.ray"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
