"""The introduction of a worker of another engine: where it is, and whether it speaks the parent's language.

Plain strings and numbers, so that also a stranger's introduction can be read.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import socket
from collections.abc import Mapping
from typing import Any

from mpqueue._os.process.own_forks import process_name

Introduction = Mapping[str, Any]


def introduce() -> Introduction:
    """Return the introduction of this process: its identity and the versions that it runs."""
    return {
        "process": process_name(),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "mpqueue": importlib.import_module("mpqueue").__version__,
        "cloudpickle": importlib.metadata.version("cloudpickle"),
    }


def find_difference(own: Introduction, other: Introduction) -> str | None:
    """Return why the two would misunderstand each other, in words; None where they would not."""
    different = [
        f"{name} {other.get(name)} there and {own[name]} here"
        for name in ("python", "mpqueue", "cloudpickle")
        if other.get(name) != own[name]
    ]
    if not different:
        return None
    return (
        f"expected the same versions as here on the worker {other.get('pid')} on {other.get('host')}, got "
        f"{', '.join(different)}; install the same there, since functions and data are sent between them"
    )
