"""loky, the default engine: worker processes on this machine."""

from __future__ import annotations

import functools
import logging
import os

from mpqueue._engines.loky.loky_lane import count_cores, count_cpus
from mpqueue._engines.loky.loky_pool import LokyPool
from mpqueue._os.facts import facts
from mpqueue._os.memory import locks
from mpqueue._os.system import IS_LINUX
from mpqueue._parent.inbox import Inbox
from mpqueue._parent.lane_protocol import Capabilities, LanePool, LaneSettings
from mpqueue.errors import WorkerStartError

log = logging.getLogger("mpqueue")

#: Bytes that must be free where the system keeps named semaphores, before workers start.
SHM_NEEDED = 1 << 20


class LokyBackend:
    """The `lane_protocol.Backend` of ``backend="loky"``. It supports everything."""

    capabilities = Capabilities(can_fork=IS_LINUX)

    def count_workers(self) -> int:
        """Return the number of CPUs that this process may use."""
        return count_cpus()

    def count_cores(self) -> int:
        """Return the number of cores that this process may use."""
        return count_cores()

    def open(self, settings: LaneSettings, inbox: Inbox) -> LanePool:
        """Open a queue's lanes. Raises `WorkerStartError` if semaphores can't be made."""
        if not locks.AVAILABLE:
            _check_shm()
        _say_what_is_off()
        return LokyPool(settings, inbox)

    def __repr__(self) -> str:
        return "LokyBackend()"


@functools.cache
def _say_what_is_off() -> None:
    """Log which facilities this system lacks, once per process."""
    if off := [name for name, is_there in facts().items() if not is_there]:
        log.info("this system does without: %s", ", ".join(off))


def _check_shm() -> None:
    """Refuse to start if semaphores can't be made, or there is no room for them: each start would fail."""
    folder = locks.NAMED_IN
    if folder is None:
        return
    try:
        stat = os.statvfs(folder)
    except OSError as error:
        raise WorkerStartError(
            f"expected the folder {folder}, where the system keeps semaphores, got {error.strerror}; mount it: "
            f"`mount -t tmpfs tmpfs {folder}`, for a container `docker run --tmpfs {folder}`"
        ) from error
    if stat.f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK | os.X_OK):
        raise WorkerStartError(
            f"expected to be allowed to write to {folder}, where the system keeps semaphores; mount "
            f"a writable one: `mount -t tmpfs tmpfs {folder}`, for a container `docker run --tmpfs {folder}`"
        )
    free = stat.f_bavail * stat.f_frsize
    if stat.f_blocks and free < SHM_NEEDED:
        raise WorkerStartError(f"expected at least {SHM_NEEDED} bytes free in {folder} to start workers, got {free}")
