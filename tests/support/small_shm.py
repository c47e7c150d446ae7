"""Run a program with a /dev/shm of its own that is small, so that it can be filled without taking the machine's memory.

Needs Linux's mount namespaces, as root or in a user namespace; where neither is allowed, the test is skipped.
"""

from __future__ import annotations

import subprocess
from functools import cache

import pytest


def small_shm(command: list[str], *, size: str = "64m") -> list[str]:
    """``command``, wrapped so that it runs with a /dev/shm of ``size``."""
    wrapped = own_shm(command, size=size)
    if wrapped is None:
        pytest.skip("cannot mount a small /dev/shm here")
    return wrapped


def own_shm(command: list[str], *, size: str = "64m") -> list[str] | None:
    """The same; None where that can't be done here."""
    unshare = _unshare()
    if unshare is None:
        return None
    return [*unshare, "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"', "sh", *command]


@cache
def _unshare() -> list[str] | None:
    mount = ["sh", "-c", "mount -t tmpfs -o size=1m tmpfs /dev/shm"]
    for unshare in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        try:
            subprocess.run([*unshare, *mount], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return unshare
    return None
