"""What memory this worker's process has, as the kernel counts it in /proc. None where there is no /proc."""

from __future__ import annotations

import contextlib
import os
import resource

from mpqueue._os.process import proc_file

_PAGE = os.sysconf("SC_PAGE_SIZE")


_statm = -1


def private_bytes() -> int | None:
    """Bytes of private memory: neither files nor shared segments that are mapped. Costs 1 us."""
    global _statm
    for _ in range(2):
        try:
            # Resident pages, without those that a file or shared memory stands behind.
            resident, shared = os.pread(_statm, 128, 0).split()[1:3]
            return (int(resident) - int(shared)) * _PAGE
        except (OSError, ValueError):  # not opened yet, or closed by a handler
            try:
                _statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return None
    return None


class Peak:
    """The most memory that is resident from `begin` to `end`, mapped files included.

    Memory comes with a page fault only, and to count these costs 2 us: the kernel is asked to begin anew, which costs
    5 us, and what it has seen, 20 us, only where there was one since it was asked before.
    """

    def __init__(self) -> None:
        self._faults = -1  #: how many there had been when the kernel was asked to begin anew
        self._known: int | None = None  #: the peak since then, if it was asked for

    def begin(self) -> None:
        """Count from now on."""
        faults = _page_faults()
        if faults != self._faults:
            self._faults, self._known = faults, None
            _reset_peak()

    def end(self) -> int | None:
        """Bytes since `begin`; None where the system does not tell."""
        if self._known is None or _page_faults() != self._faults:
            self._known = _peak_bytes()
        return self._known


peak = Peak()


def _page_faults() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_minflt + used.ru_majflt


def _reset_peak() -> None:
    """No file is kept open to write into.

    A handler that closes descriptors which are not its own may have given the number of this one to a file of its own.
    """
    with contextlib.suppress(OSError):
        file = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, b"5")
        finally:
            os.close(file)


def _peak_bytes() -> int | None:
    try:
        return int(proc_file.read("/proc/self/status").partition(b"VmHWM:")[2].split(None, 1)[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None
