"""``--backend``: the engine that a run's workers are on."""

from __future__ import annotations

from mpqueue._cli.function_names import load_function
from mpqueue._cli.usage import UsageError
from mpqueue._parent.lane_protocol import Backend
from mpqueue._queue.choosing import choose_backend

_DASK = "dask://"


def open_backend(name: str | None) -> Backend:
    """The engine of that name; None: loky. Connects to its cluster. Raises UsageError where there is none."""
    if name is None:
        return choose_backend("loky")
    try:
        return choose_backend(_make(name))
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise UsageError(f"--backend {name}: {error}") from None


def _make(name: str) -> str | Backend:
    if name.startswith(_DASK) and len(name) > len(_DASK):
        from mpqueue.backends import DaskBackend  # an extra

        return DaskBackend(f"tcp://{name.removeprefix(_DASK)}")
    if name == "ray" or name.startswith("ray://"):
        from mpqueue.backends import RayBackend  # an extra

        return RayBackend(None if name == "ray" else name)  # which says why such an address is refused
    if ":" not in name or "://" in name:
        if name != "loky":
            raise ValueError(
                "expected dask://HOST:PORT, ray, or module:function, which returns one of mpqueue.backends"
            )
        return name
    made: Backend = load_function(name, "--backend")()
    return made
