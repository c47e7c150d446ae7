"""What a process has had of the CPUs, beyond what `time.process_time` tells, and how many want them."""

from __future__ import annotations

import os

from mpqueue._os.process import proc_file
from mpqueue._os.system import choose

#: What the kernel knows of this process's main thread: nanoseconds on a CPU, nanoseconds ready but without one, ...
_SCHEDULED = "/proc/self/schedstat"


def _read_run_delay() -> int | None:
    try:
        return int(proc_file.read(_SCHEDULED).split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _do_not_know() -> int | None:
    return None


#: Nanoseconds for which the main thread was ready to run since its start, and had no CPU. 10 us. None where that is not
#: told: elsewhere than on Linux, and where no descriptor is left.
read_run_delay = choose(linux=_read_run_delay, posix=_do_not_know)


def busy_machine() -> str:
    """``; the machine is busy: load 90 on 2 CPUs``; empty where a CPU is idle, or the system does not tell."""
    try:
        load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    except (AttributeError, OSError):  # there is none on Windows
        return ""
    return f"; the machine is busy: load {load:.0f} on {cpus} CPUs" if load > cpus else ""
