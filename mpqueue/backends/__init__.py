"""Other engines than loky, for ``JobQueue(backend=...)``. What an engine is, `mpqueue._engine.protocol` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpqueue._engine.loky_backend import LokyBackend
from mpqueue._engine.protocol import Backend, Capabilities
from mpqueue.backends.executor import ExecutorBackend

if TYPE_CHECKING:
    from mpqueue.backends.dask import DaskBackend

__all__ = ["Backend", "Capabilities", "DaskBackend", "ExecutorBackend", "LokyBackend"]


def __getattr__(name: str) -> Any:
    if name == "DaskBackend":
        from mpqueue.backends.dask import DaskBackend  # Dask is an extra

        return DaskBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
