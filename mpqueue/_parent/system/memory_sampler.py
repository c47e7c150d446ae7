"""The sampler: a thread that looks at the workers' memory while jobs run. It exists only if that is limited.

The kernel does not report when a process grows, so a thread has to look repeatedly. It reports to the scheduler, which
decides. Between two looks, an item can exceed its limit.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Protocol, cast

from mpqueue._core.messages import MemoryRead, WorkerMemory
from mpqueue._core.state.resources import SHORT_BYTES, SHORT_PART
from mpqueue._os.memory.memory_use import MachineMemory, MemoryGauge
from mpqueue._parent.kept_errors import found
from mpqueue._parent.lane_protocol import Lane, LanePool, Post
from mpqueue._parent.system.replies import SafeEvent
from mpqueue._wire.memory.ledger import MEMORY_USED, Ledger

#: Seconds between two looks at the workers. A worker fills about 30 MB meanwhile, at 1 GB/s.
LOOK_SECONDS = 0.025
#: Every this many looks, the machine is looked at.
MACHINE_EVERY = 2


class LedgerLane(Lane, Protocol):
    """A lane whose ledger this process has mapped, and whose worker is a process of this machine."""

    ledger: Ledger


class Sampler:
    """The thread that looks at memory: started at once, ended by `stop`. ``lanes`` gives the numbers of the lanes.

    ``busy`` returns whether anything can run; there is no look while nothing can.
    """

    def __init__(
        self, lanes: Callable[[], Iterable[int]], pool: LanePool, post: Post, busy: Callable[[], bool], name: str
    ) -> None:
        self._lanes = lanes
        self._pool = pool
        self._post = post
        self._busy = busy
        self._machine = MachineMemory()
        self._gauges: dict[int, _Gauge | None] = {}
        self._wake = SafeEvent()
        self._running = True
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Wake the thread, since items may run from now on. On any thread; costs nothing."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._running = False
        self._wake.set()
        self._thread.join()

    def _loop(self) -> None:
        look = 0
        while self._running:
            if not self._busy():
                self._wake.wait()
                self._wake.clear()
                continue
            try:
                memory = self._machine.memory() if look % MACHINE_EVERY == 0 else None
                available, total = (None, None) if memory is None else memory
                self._post(MemoryRead(self._look(), available, total))
            except Exception as error:  # without it memory has no limit any more
                self._post(found("while it looked at the workers' memory", error))
            look += 1
            threading.Event().wait(LOOK_SECONDS)
        for gauge in self._gauges.values():
            if gauge is not None:
                gauge.close()

    def _look(self) -> list[WorkerMemory]:
        seen = []
        for number in self._lanes():
            gauge = self._gauge(number, cast("LedgerLane | None", self._pool.lane(number)))
            if gauge is not None and (read := gauge.read()) is not None:
                seen.append(read)
        return seen

    def _gauge(self, number: int, lane: LedgerLane | None) -> _Gauge | None:
        """Return the gauge of the lane's current worker."""
        gauge = self._gauges.get(number)
        if gauge is not None and gauge.lane is not lane:
            gauge.close()
            gauge = None
        if gauge is None and lane is not None:
            with contextlib.suppress(OSError):  # it has ended already
                gauge = _Gauge(lane)
        self._gauges[number] = gauge
        return gauge


class _Gauge:
    """Reads one worker's memory. Raises OSError if it has ended, or the system does not report it."""

    def __init__(self, lane: LedgerLane) -> None:
        self.lane = lane
        self._memory = MemoryGauge(lane.pid)

    def read(self) -> WorkerMemory | None:
        """Return the worker's memory and its claim; None if the claim changed meanwhile, or the worker has ended."""
        ledger = self.lane.ledger
        try:
            claim, base = ledger.read(), ledger.words[MEMORY_USED]
            used = self._memory.read()
            again = ledger.read()
        except (OSError, ValueError):
            return None
        if claim[:5] != again[:5]:
            return None
        return WorkerMemory(self.lane.number, self.lane.generation, used, base, claim)

    def close(self) -> None:
        """Close what it reads."""
        self._memory.close()


# -- The memory that items may need together: the machine's, less the rest of the machine's use. -----------------------


def memory_supply() -> int | None:
    """Return the bytes of the machine, or of the tightest control group; None if not reported. 0.3 ms."""
    found = MachineMemory().memory()
    return None if found is None else int(found.total - min(found.total * SHORT_PART, SHORT_BYTES))
