"""Other engines than loky, for ``JobQueue(backend=...)``. What an engine is, `mpqueue._engine.protocol` says."""

from __future__ import annotations

from mpqueue._engine.loky_backend import LokyBackend
from mpqueue._engine.protocol import Backend, Capabilities
from mpqueue.backends.executor import ExecutorBackend

__all__ = ["Backend", "Capabilities", "ExecutorBackend", "LokyBackend"]
