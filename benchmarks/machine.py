"""What a result must say of where it comes from: figures are compared only with others from the same CPU."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

#: Packages whose versions are noted.
PACKAGES = (
    "mpqueue", "loky", "cloudpickle", "pyee", "joblib", "mpire", "pebble", "dask", "distributed", "ray", "numpy",
    "pillow", "torch", "polars", "pyarrow", "pandas", "scikit-learn",
)  # fmt: skip

ROOT = Path(__file__).parent.parent


def describe() -> dict[str, Any]:
    """The stamp."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": platform.release(),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "build": " ".join(platform.python_build()),
        "compiler": platform.python_compiler(),
        "packages": versions(),
        "commit": _commit(),
    }


def versions() -> dict[str, str]:
    """The versions of what is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def load() -> float:
    """How many processes wanted a CPU, on average over the last minute."""
    return round(os.getloadavg()[0], 2)


def stolen() -> float:
    """CPU seconds so far that a hypervisor gave to others."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


def _cpu_model() -> str:
    """As the kernel names it, with its numbers, since virtual machines like to hide the name."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    numbers = "/".join(fields.get(name, "?") for name in ("cpu family", "model", "stepping"))
    return f"{fields.get('model name', platform.machine())} ({numbers})"


def _commit() -> str | None:
    """The commit that was measured, with a plus where files had been changed."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "mpqueue"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")
