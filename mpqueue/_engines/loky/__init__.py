"""loky, the default engine: worker processes on this machine.

It is imported here, before any module of this folder needs it, in the program and in each worker.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from typing import Any


class _Psutil:
    """A stand-in that imports psutil when loky first uses it: to kill a tree of processes, as mpqueue does itself."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("psutil"), name)


def _import_without_psutil() -> None:
    """Import loky without psutil, which takes 7 ms of CPU time in each process."""
    modules: dict[str, Any] = sys.modules
    modules["psutil"] = None
    try:
        from loky.backend import utils
    finally:
        del modules["psutil"]
    if importlib.util.find_spec("psutil") is not None:
        utils.psutil = _Psutil()


# Another thread might import psutil meanwhile.
if sys.modules.keys().isdisjoint({"loky", "psutil"}) and threading.active_count() == 1:
    _import_without_psutil()
