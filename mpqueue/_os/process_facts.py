"""Processes, this one and others, as the system reports them: numbers, start times, environments, threads, resources.

The memory that processes have, and that is left in the machine, is known on Linux for the most part.

Linux reports them in /proc. Other systems report them only to a program that is run for it: there, no other processes
are known, and every process counts as ended. An unknown fact means nothing: no process may be killed for it. Nothing is
kept open, and nothing is done to the process.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import mmap
import os
import stat
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from mpqueue._os.files import open_file, open_unseen, read_at, read_beginning
from mpqueue._os.system import IS_LINUX, PROC

if TYPE_CHECKING:
    from pathlib import Path


if sys.platform == "win32":
    from mpqueue._os.windows import kernel32
    from mpqueue._os.windows import processes as windows


class ProcessUse(NamedTuple):
    """The resources that a process uses. ``started`` distinguishes it from a later one with its number."""

    started: int
    cpu: float  #: CPU seconds since its start, all threads together
    memory: int  #: resident bytes, mapped files included


def use_of(pid: int) -> ProcessUse | None:
    """Return the resources of the process with that number. 20 us. None if it has ended, or they are not reported."""
    try:
        fields = _stat(pid)
        return ProcessUse(
            int(fields[19]), (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * mmap.PAGESIZE
        )
    except (OSError, IndexError):
        return None


_TICKS: int = os.sysconf("SC_CLK_TCK") if IS_LINUX else 1


def end_of_file(pid: int, descriptor: int, most: int) -> bytes | None:
    """Return the last ``most`` bytes of the file that another process has open under a number. 20 us.

    None if it has none, or it is no file, or the system does not report it.
    """
    try:
        # Without waiting, since it may be a pipe; and no terminal becomes this process's own.
        file = open_unseen(f"{PROC}/{pid}/fd/{descriptor}")
    except OSError:
        return None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return None
        return read_at(file, most, max(0, status.st_size - most))
    except OSError:
        return None
    finally:
        os.close(file)


def read_run_delay() -> int | None:
    """Return the nanoseconds since its start in which the main thread was ready to run and had no CPU. 10 us.

    None if not known: on other systems than Linux, or if no descriptor is left.
    """
    try:
        # Nanoseconds on a CPU, nanoseconds ready but without one, ...
        return int(read_beginning(f"{PROC}/self/schedstat").split()[1])
    except (OSError, ValueError, IndexError):
        return None


def busy_machine() -> str:
    """``; the machine is busy: load 90 on 2 CPUs``; empty if a CPU is idle, or the system does not report it."""
    try:
        load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    except (AttributeError, OSError):  # there is none on Windows
        return ""
    return f"; the machine is busy: load {load:.0f} on {cpus} CPUs" if load > cpus else ""


# -- The processes of this user, and the threads of this one. ----------------------------------------------------------


def others() -> Iterator[int]:
    """The numbers of all processes of this user, without this one and its ancestors. 1 ms per 100.

    Raises OSError if they can't be read: on other systems, or for lack of a descriptor.
    """
    names = os.listdir(PROC)  # first, since Windows has no user ids either
    spared, user = set(_ancestors()), os.geteuid()
    for name in names:
        if name.isdecimal() and int(name) not in spared:
            with contextlib.suppress(OSError):
                if os.stat(f"{PROC}/{name}").st_uid == user:
                    yield int(name)


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 0:
        yield pid
        fields = _stat(pid)
        pid = int(fields[1]) if fields else 0


def start_time(pid: int) -> int:
    """Return when a process was started, in the system's unit; 0 if there is none, or it is unknown.

    With its number it names a process, as long as the machine runs. Raises OSError for lack of a descriptor.
    """
    if sys.platform == "win32":
        return windows.start_time(pid)
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


@functools.cache
def namespace() -> str:
    """Return the namespace in which numbers of processes are valid for this one; empty if there is only one."""
    try:
        return "".join(filter(str.isdecimal, os.readlink(f"{PROC}/self/ns/pid")))
    except OSError:
        return ""


def environment(pid: int) -> bytes | None:
    """Return the variables that it was started with, each ended by a null byte; None if not known.

    Empty while its program is being loaded.
    """
    try:
        with open(f"{PROC}/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:  # it ended, or is another user's
        return None


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the state on; the name before it may hold any bytes. Dead processes have none.

    Raises OSError if it can't be read for lack of a descriptor: a living process must never count as dead.
    """
    try:
        return read_beginning(f"{PROC}/{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError, PermissionError):
        return []


def python_threads() -> list[str]:
    """The names of Python's threads beside the main one."""
    return sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())


def other_threads() -> list[str]:
    """The names of this process's threads beside its main one, as the system has them, those of C libraries too.

    Raises OSError if the system does not report them.
    """
    main, names = str(os.getpid()), []
    for thread in os.listdir(f"{PROC}/self/task"):
        if thread != main:
            with contextlib.suppress(OSError):  # it has ended
                names.append(read_beginning(f"{PROC}/self/task/{thread}/comm").decode(errors="replace").strip())
    return sorted(names)


# -- of another process ------------------------------------------------------------------------------------------------


class MemoryGauge:
    """Measures another process's private memory, by a file that stays that process's.

    Raises OSError if there is no such process, or the system does not report it.
    """

    def __init__(self, pid: int | Literal["self"]) -> None:
        self._statm = open_file(f"{PROC}/{pid}/statm", os.O_RDONLY)

    def read(self) -> int:
        """Return resident bytes, without mapped files and shared segments.

        Raises OSError or ValueError if the process has ended.
        """
        resident, shared = read_at(self._statm, 128, 0).split()[1:3]
        return (int(resident) - int(shared)) * mmap.PAGESIZE

    def close(self) -> None:
        """Close its open file."""
        os.close(self._statm)


def memory_of(pid: int | Literal["self"]) -> int | None:
    """Bytes, see `MemoryGauge.read`, of the process that has that number now; None if not reported. 15 us.

    This process is ``self``: its number here may be another in what is mounted at /proc.
    """
    try:
        gauge = MemoryGauge(pid)
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
        MemoryGauge(os.getpid()).close()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return None
        if IS_LINUX and isinstance(error, FileNotFoundError):
            return "it is read in /proc, which is not there; mount it (`mount -t proc proc /proc`)"
        return "this system does not tell how much memory a process has"
    return None


# -- the peak ----------------------------------------------------------------------------------------------------------


def begin_peak() -> bool:
    """Ask the kernel to reset the peak that `peak` returns; returns whether it does, which gVisor does not. 5 us.

    No file is kept open to write into: a handler may close descriptors that are not its own, and reuse the number for
    its own file.
    """
    try:
        file = open_file(f"{PROC}/self/clear_refs", os.O_WRONLY)
        try:
            return os.write(file, b"5") > 0
        finally:
            os.close(file)
    except OSError:
        return False


def peak() -> int | None:
    """Return the most bytes that were resident since `begin_peak`, mapped files included; None if not known. 20 us."""
    try:
        return int(read_beginning(f"{PROC}/self/status").partition(b"VmHWM:")[2].split(None, 1)[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None


# -- The memory that this process may use: the machine's, or the part that its control groups (v1 or v2) leave. --------
#
# A container is such a group: the machine may have plenty while the group is near its limit, at which the kernel kills.

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


#: The folder of the kernel's files.
ROOT = os.path.dirname(PROC)


class MachineMemory:
    """The memory available to this process, by the kernel's files below ``root``; on Windows as the system counts it.

    This process's control groups are looked up once; limits of Windows' job objects are ignored.
    """

    def __init__(self, root: str | Path = ROOT) -> None:
        from pathlib import Path  # takes a worker 5 ms, which does not ask

        self._meminfo = Path(root, "proc/meminfo")
        self._groups = list(_groups(Path(root)))

    def memory(self) -> Memory | None:
        """Return the tightest of all limits on this process; None if the system does not report it. Costs 0.1 ms."""
        if sys.platform == "win32":
            status = kernel32.machine_memory()
            return Memory(status.available, status.total)
        found = [self._of_machine(), *(_of_group(folder, version) for folder, version in self._groups)]
        return min((one for one in found if one is not None), default=None)

    def _of_machine(self) -> Memory | None:
        try:
            lines = dict(line.split(b":", 1) for line in self._meminfo.read_bytes().splitlines())
            return Memory(*(int(lines[name].split()[0]) * 1024 for name in (b"MemAvailable", b"MemTotal")))
        except (OSError, ValueError, KeyError, IndexError):
            return None


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
