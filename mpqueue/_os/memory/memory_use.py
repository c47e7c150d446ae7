"""The memory that a process has, as the system counts it. Linux reports it in /proc; elsewhere it is None."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from mpqueue._os.process import process_facts
from mpqueue._os.system import IS_WINDOWS, choose

if sys.platform != "win32":
    import resource


def private_bytes() -> int | None:
    """Return the bytes of this process's private memory, see `memory_of`; None if the system does not report it."""
    return memory_of(os.getpid())


# -- of another process ------------------------------------------------------------------------------------------------


class MemoryGauge(Protocol):
    """Measures another process's private memory, even if its number is used again later."""

    def read(self) -> int:
        """Return resident bytes, without mapped files and shared segments.

        Raises OSError or ValueError if the process has ended.
        """

    def close(self) -> None:
        """Close its open file."""


class LinuxGauge:
    """A `MemoryGauge` by a file of /proc that stays that process's. Raises OSError if there is no such process."""

    def __init__(self, pid: int) -> None:
        self._statm = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> int:
        resident, shared = os.pread(self._statm, 128, 0).split()[1:3]
        return (int(resident) - int(shared)) * mmap.PAGESIZE

    def close(self) -> None:
        os.close(self._statm)


def _no_gauge(pid: int) -> MemoryGauge:
    raise OSError(errno.ENOTSUP, f"this system does not tell how much memory process {pid} has")


#: A gauge for that process. Raises OSError if the system does not report it, or there is no such process.
open_gauge = choose(linux=LinuxGauge, posix=_no_gauge)


def memory_of(pid: int) -> int | None:
    """Bytes, see `MemoryGauge.read`, of the process that has that number now; None if not reported. 15 us."""
    try:
        gauge = open_gauge(pid)
    except OSError:
        return None
    try:
        return gauge.read()
    except (OSError, ValueError):
        return None
    finally:
        gauge.close()


def why_not_told() -> str | None:
    """Return why a gauge can't tell how much memory a process has, and the cure; None if it can."""
    try:
        open_gauge(os.getpid()).close()
    except FileNotFoundError:
        return "it is read in /proc, which is not there; mount it (`mount -t proc proc /proc`)"
    except OSError as error:
        return None if error.errno in (errno.EMFILE, errno.ENFILE) else str(error)
    return None


# -- the peak ----------------------------------------------------------------------------------------------------------


#: Stands for an unknown number of page faults.
_NOT_TOLD = -1


class Peak(Protocol):
    """The most memory that is resident from `begin` to `end`, mapped files included."""

    def begin(self) -> None:
        """Count from now on."""

    def end(self) -> int | None:
        """Return bytes since `begin`; None if the system does not report them."""


class LinuxPeak:
    """The peak that the kernel has seen since it was last asked to reset it.

    Memory comes only with page faults, and counting these costs 2 us: the kernel is asked to reset (5 us), and for the
    peak (20 us), only if there was one since the last time.
    """

    def __init__(self) -> None:
        self._faults = _NOT_TOLD  #: the number of page faults at the last reset
        self._has_begun = False  #: the kernel has reset it
        self._known: int | None = None  #: the peak since then, if it was asked for

    def begin(self) -> None:
        """Ask the kernel to reset the peak, unless there was no page fault since the last time."""
        faults = _page_faults()
        if faults != self._faults:
            self._faults, self._known = faults, None
            self._has_begun = _reset_peak()

    def end(self) -> int | None:
        """Return the peak; None without ``/proc``, or if the kernel can't reset it (gVisor)."""
        if not self._has_begun:
            return None
        if self._known is None or _page_faults() != self._faults:
            self._known = _peak_bytes()
        return self._known


class PosixPeak:
    """`getrusage` only has the peak since the process began: so this peak is unknown."""

    def begin(self) -> None:
        """Do nothing."""

    def end(self) -> int | None:
        """Return None: the system does not report it."""
        return None


#: This process's peak.
peak: Peak = choose(linux=LinuxPeak(), posix=PosixPeak())


def _page_faults() -> int:
    try:
        used = resource.getrusage(resource.RUSAGE_SELF)
    except OSError:  # a filter refuses the system call
        return _NOT_TOLD
    return used.ru_minflt + used.ru_majflt


def _reset_peak() -> bool:
    """Ask the kernel to reset the peak; returns whether it does. No file is kept open to write into.

    A handler may close descriptors that are not its own, and reuse the number for its own file.
    """
    with contextlib.suppress(OSError):
        file = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            return os.write(file, b"5") > 0
        finally:
            os.close(file)
    return False


def _peak_bytes() -> int | None:
    try:
        return int(process_facts.read("/proc/self/status").partition(b"VmHWM:")[2].split(None, 1)[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None


# -- The memory that this process may use: the machine's, or the part that its control groups (v1 or v2) leave. --------
#
# A container is such a group: the machine may have plenty while the group is near its limit, at which the kernel kills.

if sys.platform == "win32":
    from mpqueue._os.windows import kernel32

#: A higher limit is none: version 1 writes none as a huge number.
NO_LIMIT = 1 << 60


class Memory(NamedTuple):
    """Available bytes, and bytes in total."""

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
    """The memory available to this process."""

    def memory(self) -> Memory | None:
        """The tightest of all limits on this process; None if the system does not report it. Costs 0.1 ms."""


class LinuxMachine:
    """Reads the kernel's files below ``root``. This process's control groups are looked up once."""

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
    """No call of every POSIX system reports the available memory."""

    def memory(self) -> Memory | None:
        """Return None: the system does not report it."""
        return None


class WindowsMachine:
    """Memory as the system counts it; limits of job objects are ignored."""

    def memory(self) -> Memory | None:
        if sys.platform == "win32":
            status = kernel32.machine_memory()
            return Memory(status.available, status.total)
        return None


#: The reader for this system. Each looks up this process's control groups once.
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
    # Cached file contents count as used, but are freed before a process is killed.
    cached = sum(int(counts.get(name, 0)) for name in version.caches)
    return Memory(max(0, limit - max(0, used - cached)), limit)


def _groups(root: Path) -> Iterator[tuple[Path, _Version]]:
    """The folders of this process's control groups, from its own one up."""
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
    """Return the part of the tree of groups that is mounted there, and the folder; None for a mount of another kind."""
    left, _, right = mount.partition(" - ")
    kind, _, options = [*right.split(" "), "", ""][:3]
    wanted = kind == "cgroup2" if version is _V2 else kind == "cgroup" and "memory" in options.split(",")
    fields = left.split(" ")
    return (fields[3], fields[4]) if wanted and len(fields) > 4 else None
