"""How a worker of another engine introduces itself: where it is, and whether it speaks the parent's language.

Plain strings and numbers, so that also a stranger's introduction can be read.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import socket
import uuid
from collections.abc import Mapping
from typing import Any

Introduction = Mapping[str, Any]

#: Tells this process from all others, wherever they are.
_process = uuid.uuid4().hex


def _renew() -> None:
    global _process
    _process = uuid.uuid4().hex


os.register_at_fork(after_in_child=_renew)


def process() -> str:
    """The name of this process; no other in the world has it."""
    return _process


def introduce() -> Introduction:
    """Who this process is, and what it runs."""
    return {
        "process": _process,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "mpqueue": importlib.import_module("mpqueue").__version__,
        "cloudpickle": importlib.metadata.version("cloudpickle"),
    }


def find_difference(own: Introduction, other: Introduction) -> str | None:
    """Why these two would misunderstand each other, in words; None where they would not."""
    different = [
        f"{name} {other.get(name)} there and {own[name]} here"
        for name in ("python", "mpqueue", "cloudpickle")
        if other.get(name) != own[name]
    ]
    if not different:
        return None
    return (
        f"expected the same versions as here on the worker {other.get('pid')} on {other.get('host')}, got "
        f"{', '.join(different)}; install the same there, since functions and data travel between them"
    )
