"""Places in which a program can be run: without /proc, with a read-only /dev/shm or root, as another user.

Mounts and users need root, or user namespaces; where neither is there, the test is skipped.
"""

from __future__ import annotations

import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

NO_PROC = "mount -t tmpfs tmpfs /proc"
HIDDEN_PROCESSES = "mount -t proc -o hidepid=2 proc /proc"  #: with processes of its own only
READ_ONLY_SHM = "mount -t tmpfs -o ro tmpfs /dev/shm"
TINY_SHM = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
#: A /dev of which there is nothing but what every program needs.
NO_DEV_FD = (
    "mkdir -p /dev/shm/dev && touch /dev/shm/dev/null && mount --bind /dev/null /dev/shm/dev/null"
    " && mount --rbind /dev/shm/dev /dev && mkdir /dev/shm && mount -t tmpfs tmpfs /dev/shm"
)
NO_SHM = (
    "mkdir -p /dev/shm/dev && touch /dev/shm/dev/null && mount --bind /dev/null /dev/shm/dev/null"
    " && mount --rbind /dev/shm/dev /dev"
)
#: Python that makes the C library look like musl, where all semaphores have names: before mpqueue is imported.
MUSL = (
    "import ctypes; find = ctypes.CDLL.__getattr__; ctypes.CDLL.__getattr__ = "
    "lambda library, name: find(library, name.replace('gnu_get_libc_version', 'not in musl'))"
)
#: All that programs write to, but for /dev/shm and their own folder.
READ_ONLY_ROOT = "for each in / /tmp /var/tmp; do mount -o remount,bind,ro $each 2> /dev/null || [ $each != / ]; done"

#: Where `at_home` puts the program's own folder.
HOME = "/mnt"


def inside(mounts: str, command: list[str], *, processes: bool = False) -> list[str]:
    """``command``, wrapped so that it runs with these mounts of its own; with ``processes``, also processes."""
    if not _may_mount():
        pytest.skip("mounting is not allowed here")
    prepare = f'mount --make-rprivate / && mount -t tmpfs tmpfs /dev/shm && {mounts} && exec "$@"'
    unshare = ["unshare", "--mount", *(["--pid", "--fork", "--kill-child"] if processes else [])]
    return [*unshare, "sh", "-c", prepare, "sh", *command]


def at_home(folder: Path) -> str:
    """Mounts by which any user reaches the folder, as `HOME`, and the interpreter and the package where they are."""
    needed = sorted({Path(sys.base_prefix), Path(sys.prefix), ROOT})
    closed = {above for path in needed for above in _closed(path)}
    steps = [f"mount --bind {shlex.quote(str(folder))} {HOME}", f"chmod 777 {HOME}", f"cd {HOME}"]
    hidden = [path for path in needed if closed & set(path.parents)]
    for number, path in enumerate(hidden):
        steps.append(f"mkdir /dev/shm/{number} && mount --bind {shlex.quote(str(path))} /dev/shm/{number}")
    steps += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(path))}" for path in sorted(closed)]
    for number, path in enumerate(hidden):
        place = shlex.quote(str(path))
        steps.append(f"mkdir -p {place} && mount --bind /dev/shm/{number} {place}")
        steps.append(f"umount /dev/shm/{number} && rmdir /dev/shm/{number}")
    return " && ".join(steps)


def _closed(path: Path) -> Iterator[Path]:
    """The highest of the folders above it into which not everybody may go, if any."""
    for above in reversed(path.parents):
        if not above.stat().st_mode & stat.S_IXOTH:
            yield above
            return


@cache
def _may_mount() -> bool:
    command = ["unshare", "--mount", "sh", "-c", "mount --make-rprivate / && mount -t tmpfs tmpfs /dev/shm"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
