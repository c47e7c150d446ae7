"""The memory that a process has, as the system counts it. Linux tells it in /proc; elsewhere it is None."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
from typing import Protocol

from mpqueue._os.process import process_facts
from mpqueue._os.system import choose

if sys.platform != "win32":
    import resource

_PAGE = mmap.PAGESIZE

#: Open on /proc/self/statm, unless a handler has closed it.
_statm = -1


def _read_private_bytes() -> int | None:
    global _statm
    for _ in range(2):
        try:
            return _private_part(_statm)
        except (OSError, ValueError):  # not opened yet, or closed by a handler
            try:
                _statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return None
    return None


def _do_not_know() -> int | None:
    return None


#: Bytes of private memory that this process has: neither files nor shared segments that are mapped. 1 us. None where
#: the system does not tell.
private_bytes = choose(linux=_read_private_bytes, posix=_do_not_know)


def _private_part(statm: int) -> int:
    """Resident bytes, without those that a file or shared memory stands behind."""
    resident, shared = os.pread(statm, 128, 0).split()[1:3]
    return (int(resident) - int(shared)) * _PAGE


# -- of another process ------------------------------------------------------------------------------------------------


class MemoryGauge(Protocol):
    """Tells another process's private memory, even if its number is used again later."""

    def read(self) -> int:
        """Bytes, as `private_bytes`. Raises OSError or ValueError where the process has ended."""

    def close(self) -> None:
        """Give back what it has open."""


class LinuxGauge:
    """A `MemoryGauge` by a file of /proc that stays that process's. Raises OSError where there is no such process."""

    def __init__(self, pid: int) -> None:
        self._statm = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> int:
        return _private_part(self._statm)

    def close(self) -> None:
        os.close(self._statm)


def _no_gauge(pid: int) -> MemoryGauge:
    raise OSError(errno.ENOTSUP, f"this system does not tell how much memory process {pid} has")


#: A gauge for that process. Raises OSError where the system does not tell, or there is no such process.
open_gauge = choose(linux=LinuxGauge, posix=_no_gauge)


def memory_of(pid: int) -> int | None:
    """Bytes, as `private_bytes`, of the process that has that number now; None where that is not told. 15 us."""
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


#: In place of a number of page faults.
_NOT_TOLD = -1


class Peak(Protocol):
    """The most memory that is resident from `begin` to `end`, mapped files included."""

    def begin(self) -> None:
        """Count from now on."""

    def end(self) -> int | None:
        """Bytes since `begin`; None where the system does not tell."""


class LinuxPeak:
    """The peak that the kernel has seen since it was asked to begin anew.

    Memory comes with a page fault only, and to count these costs 2 us: the kernel is asked to begin anew, which costs
    5 us, and what it has seen, 20 us, only where there was one since it was asked before.
    """

    def __init__(self) -> None:
        self._faults = _NOT_TOLD  #: how many there had been when the kernel was asked to begin anew
        self._has_begun = False  #: it did so
        self._known: int | None = None  #: the peak since then, if it was asked for

    def begin(self) -> None:
        """Ask the kernel to begin anew, unless it has seen no page fault since it was asked before."""
        faults = _page_faults()
        if faults != self._faults:
            self._faults, self._known = faults, None
            self._has_begun = _reset_peak()

    def end(self) -> int | None:
        """Return the peak; None without ``/proc``, or where the kernel can't begin anew (gVisor)."""
        if not self._has_begun:
            return None
        if self._known is None or _page_faults() != self._faults:
            self._known = _peak_bytes()
        return self._known


class PosixPeak:
    """`getrusage` tells the peak since a process began, and none of a part of its life: so it is not told."""

    def begin(self) -> None:
        """Do nothing."""

    def end(self) -> int | None:
        """Return None: the system does not tell."""
        return None


#: This process's.
peak: Peak = choose(linux=LinuxPeak(), posix=PosixPeak())


def _page_faults() -> int:
    try:
        used = resource.getrusage(resource.RUSAGE_SELF)
    except OSError:  # a filter of system calls
        return _NOT_TOLD
    return used.ru_minflt + used.ru_majflt


def _reset_peak() -> bool:
    """Ask the kernel to count the peak anew; tell whether it does. No file is kept open to write into.

    A handler that closes descriptors which are not its own may have given the number of this one to a file of its own.
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
