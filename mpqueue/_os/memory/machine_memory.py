"""The memory that this process may use: the machine's, or what its control groups (v1 or v2) leave of it.

A container is such a group: the machine may have plenty while the group's limit is near, where the kernel kills.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from mpqueue._os.system import IS_WINDOWS, choose

if sys.platform == "win32":
    from mpqueue._os.windows import kernel32

#: A limit from here on is none: version 1 says so by a huge number.
NO_LIMIT = 1 << 60


class Memory(NamedTuple):
    """Bytes that could be had now, and bytes in all."""

    available: int
    total: int


class _Version(NamedTuple):
    """The names of the files of a control group, in one version."""

    limit: str
    usage: str
    caches: tuple[bytes, ...]


_V1 = _Version("memory.limit_in_bytes", "memory.usage_in_bytes", (b"total_inactive_file", b"total_active_file"))
_V2 = _Version("memory.max", "memory.current", (b"inactive_file", b"active_file"))


class MachineMemory(Protocol):
    """The memory that is available to this process."""

    def memory(self) -> Memory | None:
        """The tightest of all that limits this process; None where the system does not tell. Costs 0.1 ms."""


class LinuxMachine:
    """Reads the kernel's files below ``root``. Where this process stands among the groups is found out once."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._meminfo = root / "proc/meminfo"
        self._groups = list(_groups(root))

    def memory(self) -> Memory | None:
        found = [self._of_machine(), *(_of_group(folder, version) for folder, version in self._groups)]
        return min((one for one in found if one is not None), default=None)

    def _of_machine(self) -> Memory | None:
        try:
            lines = dict(line.split(b":", 1) for line in self._meminfo.read_bytes().splitlines())
            return Memory(*(int(lines[name].split()[0]) * 1024 for name in (b"MemAvailable", b"MemTotal")))
        except (OSError, ValueError, KeyError, IndexError):
            return None


class PosixMachine:
    """No call that every system has tells how much memory could be had now."""

    def memory(self) -> Memory | None:
        """Return None: the system does not tell."""
        return None


class WindowsMachine:
    """Memory as the system counts it; limits that a job object sets are not looked at."""

    def memory(self) -> Memory | None:
        if sys.platform == "win32":
            status = kernel32.machine_memory()
            return Memory(status.available, status.total)
        return None


#: What tells it on this system. Where this process stands among the control groups is found out once for each.
look_at_machine: Callable[[], MachineMemory] = (
    WindowsMachine if IS_WINDOWS else choose(linux=LinuxMachine, posix=PosixMachine)
)


def _of_group(folder: Path, version: _Version) -> Memory | None:
    try:
        text = (folder / version.limit).read_bytes().strip()
        if text == b"max" or int(text) >= NO_LIMIT:
            return None
        limit, used = int(text), int((folder / version.usage).read_bytes())
        counts = dict(line.split() for line in (folder / "memory.stat").read_bytes().splitlines())
    except (OSError, ValueError):
        return None
    # What is cached of files counts as used, and is given up before a process is killed.
    cached = sum(int(counts.get(name, 0)) for name in version.caches)
    return Memory(max(0, limit - max(0, used - cached)), limit)


def _groups(root: Path) -> Iterator[tuple[Path, _Version]]:
    """The folders of the control groups that this process is in, from its own one up."""
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version = _V1 if controllers else _V2
        for mount in mounts:
            if (place := _place(mount, version)) is not None:
                # In a container only a part of the tree is mounted.
                begins, point = place
                inside = path[len(begins) :] if begins != "/" and path.startswith(begins) else path
                folder, top = root / f"{point}{inside}".lstrip("/"), root / point.lstrip("/")
                yield from ((one, version) for one in (folder, *folder.parents) if one.is_relative_to(top))


def _place(mount: str, version: _Version) -> tuple[str, str] | None:
    """Return the part of the tree of groups that is mounted there, and where; None for no mount of that version."""
    left, _, right = mount.partition(" - ")
    kind, _, options = [*right.split(" "), "", ""][:3]
    wanted = kind == "cgroup2" if version is _V2 else kind == "cgroup" and "memory" in options.split(",")
    fields = left.split(" ")
    return (fields[3], fields[4]) if wanted and len(fields) > 4 else None
