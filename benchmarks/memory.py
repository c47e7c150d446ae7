"""What this process weighs, as Linux counts it."""

from __future__ import annotations

import ctypes
import gc


def resident() -> int:
    """Bytes in memory now, after everything that can be given back has been."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def forget_peak() -> None:
    """Let `peak` count from now on."""
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")


def peak() -> int:
    """The most bytes that were in memory at once since `forget_peak`."""
    return _status("VmHWM")


def _status(name: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
