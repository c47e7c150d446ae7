"""Whether a process that is starting gets on. How long that takes depends on the machine, and on what it imports."""

from __future__ import annotations

from mpqueue._os.process.cpu_time import busy_machine
from mpqueue._os.process.other_process import use_of

#: Seconds without progress after which a start is given up, and between two looks at it.
START_LIMIT, START_LOOK = 300.0, 10.0


class StartProgress:
    """What one process has done so far: it gets on as long as it uses CPU time.

    Looks are counted rather than seconds: in time in which the program itself did not run, none is missed. Where the
    system does not tell what a process uses, it has `START_LIMIT` in all.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._used: float | None = None
        self._quiet = 0.0

    def look(self) -> str | None:
        """To be called every `START_LOOK` seconds: why the start is to be given up, None where it is not."""
        use = use_of(self._pid)
        used = None if use is None else use.cpu
        self._quiet = self._quiet + START_LOOK if used == self._used else 0.0
        self._used = used
        if self._quiet < START_LIMIT:
            return None
        what = "it did not answer" if used is None else f"it did nothing, after {used:g} s of CPU time"
        return f"process {self._pid} was given up while it started: for {START_LIMIT:g} s {what}{busy_machine()}"
