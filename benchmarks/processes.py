"""What a measured process leaves: found, since whatever loses its parent becomes ours, and ended."""

from __future__ import annotations

import contextlib
import ctypes
import signal

import psutil

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """From now on whatever loses its parent below this process becomes its child, so that it can be found and ended."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[psutil.Process]:
    """All that is below this process, orphans included."""
    return psutil.Process().children(recursive=True)


def end_all(patience: float) -> None:
    """Kill all that is below this process.

    Resource trackers last: they remove what the others leave, and end by themselves when these are gone.
    """
    for spared in (True, False):
        doomed = [process for process in descendants() if not (spared and tracks_resources(process))]
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(descendants() if spared else doomed, patience)


def tracks_resources(process: psutil.Process) -> bool:
    """Whether it is one of multiprocessing's or loky's resource trackers."""
    try:
        return any("resource_tracker" in word for word in process.cmdline())
    except psutil.Error:
        return False


def end_on_signals() -> None:
    """Let a SIGTERM end the run as Ctrl-C does, children and all."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
