"""Leases, by which the kernel tells whether a file in memory is still open or mapped somewhere else.

The kernel grants a write lease on a file only while no other open file refers to it, and what a reader has mapped keeps
the reader's open file alive, also in the children that it has forked, after it was closed. Only Linux leases; elsewhere
the answer is always that it may be.
"""

from __future__ import annotations

import functools
import mmap
import os
import signal
import sys

from mpqueue._os.descriptors import reopen
from mpqueue._os.memory.mappings import map_file
from mpqueue._os.memory.memory_files import can_be_opened_by_others, make_file

if sys.platform != "win32":
    import fcntl

#: Of Linux; the module `fcntl` has no name for it, in some versions.
_F_SETSIG = 10


@functools.cache
def leases_tell() -> bool:
    """Tell whether a lease on a file in memory reveals another mapping of it: tried out once in each process.

    Not so without /proc, with leases switched off (``fs.leases-enable``), under some sandboxes, on old kernels, and
    elsewhere than on Linux.
    """
    try:
        if not can_be_opened_by_others():
            return False
        fd = make_file("segment")
        try:
            if not make_leasable(fd):
                return False
            os.ftruncate(fd, mmap.PAGESIZE)
            reader = reopen(fd, os.O_RDONLY)
            try:
                memory = map_file(mmap.PAGESIZE, mmap.MAP_PRIVATE, reader)
            finally:
                os.close(reader)
            told = memory is not None and not is_open_once(fd)
            del memory
            return told and is_open_once(fd)
        finally:
            os.close(fd)
    except OSError:
        return False


def make_leasable(fd: int) -> bool:
    """Make this descriptor of a memfd one for which leases are granted; false if it can't be, and is as it was.

    What `memfd_create` returns does not count as opened for writing, and is always refused.
    """
    try:
        anew = reopen(fd, os.O_RDWR)
        try:
            # The kernel sends a signal to the holder of a lease when another process opens the file. The default one,
            # SIGIO, ends a process; this one is ignored.
            fcntl.fcntl(anew, _F_SETSIG, signal.SIGURG)
            os.dup2(anew, fd, inheritable=False)
        finally:
            os.close(anew)
    except OSError:
        return False
    return True


def is_open_once(fd: int) -> bool:
    """True if nothing else has the file open or mapped; false if in doubt. For one that `make_leasable` has made so."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True
