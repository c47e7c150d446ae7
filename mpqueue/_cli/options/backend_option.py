"""``--backend``: the engine that a run's workers are on."""

from __future__ import annotations

from mpqueue._cli.function_names import load_function
from mpqueue._cli.usage import usage_errors
from mpqueue._parent.lane_protocol import Backend
from mpqueue._queue.choosing import choose_backend


def open_backend(name: str | None) -> Backend:
    """The engine of that name; None: loky. Connects to its cluster. Raises UsageError where there is none."""
    with usage_errors(f"--backend {name}: ", (ImportError, OSError, TypeError, ValueError)):
        if name is not None and ":" in name and "://" not in name:
            return choose_backend(load_function(name, "--backend")())
        return choose_backend(name or "loky")
