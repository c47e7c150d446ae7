"""Other engines than loky, for ``JobQueue(backend=...)``. `mpqueue._parent.lane_protocol` defines an engine."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mpqueue._engines.loky.loky_pool import LokyBackend
from mpqueue._parent.lane_protocol import Backend, Capabilities

if TYPE_CHECKING:
    from mpqueue._engines.dask.dask_backend import DaskBackend
    from mpqueue._engines.ray.ray_backend import RayBackend

__all__ = ["Backend", "Capabilities", "DaskBackend", "LokyBackend", "RayBackend"]

#: Ray and Dask are extras, imported when their engine is used.
_HOMES = {"DaskBackend": "mpqueue._engines.dask.dask_backend", "RayBackend": "mpqueue._engines.ray.ray_backend"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        try:
            return getattr(importlib.import_module(_HOMES[name]), name)
        except ImportError as error:
            engine = name.removesuffix("Backend")
            raise ImportError(
                f"mpqueue.backends.{name} needs {engine} ({error}): `pip install 'mpqueue[{engine.lower()}]'`"
            ) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
