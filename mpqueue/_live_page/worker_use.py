"""What each worker uses of the CPUs and of the memory, minutes back: read in /proc every two seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mpqueue._live_page.timeline import WINDOW
from mpqueue._os.process.process_facts import use_of
from mpqueue._parent.running import LaneNow

#: Seconds between two samples, and how many are kept of each worker.
EVERY = 2.0
MOST = int(WINDOW / EVERY)


class Sample(NamedTuple):
    """Of one worker, at one moment of the monotonic clock."""

    at: float
    cpu: float  #: CPU seconds since its start
    share: float  #: of a CPU, since the sample before
    memory: int  #: bytes


@dataclass(slots=True)
class _Watched:
    """The samples of one process."""

    pid: int
    started: int
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=MOST))


class Usage:
    """Of all workers, where they are processes of this machine."""

    def __init__(self) -> None:
        self._workers: dict[int, _Watched] = {}  #: by lane
        self._due = 0.0

    def look(self, lanes: Sequence[LaneNow], now: float) -> list[tuple[int, Sample]]:
        """Sample each worker, once in `EVERY`; returns the new samples, each with its lane's number."""
        if now < self._due:
            return []
        self._due = now + 0.95 * EVERY  # looks are not quite regular
        for number in self._workers.keys() - {lane.number for lane in lanes}:
            del self._workers[number]
        return [
            (lane.number, sample)
            for lane in lanes
            if lane.pid is not None and (sample := self._sample(lane.number, lane.pid, now)) is not None
        ]

    def _sample(self, number: int, pid: int, now: float) -> Sample | None:
        use = use_of(pid)
        if use is None:
            return None
        worker = self._workers.get(number)
        if worker is None or (worker.pid, worker.started) != (pid, use.started):
            worker = self._workers[number] = _Watched(pid, use.started)
        before = worker.samples[-1] if worker.samples else None
        share = 0.0 if before is None or now <= before.at else max(0.0, (use.cpu - before.cpu) / (now - before.at))
        sample = Sample(now, use.cpu, share, use.memory)
        worker.samples.append(sample)
        return sample

    def last(self, number: int) -> Sample | None:
        """The last sample of that lane's worker."""
        worker = self._workers.get(number)
        return worker.samples[-1] if worker is not None and worker.samples else None

    def all(self) -> list[tuple[int, Sample]]:
        """All samples, each with its lane's number."""
        return [(number, sample) for number, worker in self._workers.items() for sample in worker.samples]

    def cpu_since(self, number: int, moment: float) -> float | None:
        """CPU seconds that the worker has used since then, to about a second; None where that is not known."""
        worker = self._workers.get(number)
        use = None if worker is None else use_of(worker.pid)
        if worker is None or use is None or use.started != worker.started:
            return None
        before, after = None, None
        for sample in worker.samples:
            if sample.at <= moment:
                before = sample
            else:
                after = sample
                break
        if before is None:
            if after is None or after.at - moment > EVERY:
                return None
            return max(0.0, use.cpu - after.cpu)
        part = 0.0 if after is None else (moment - before.at) / (after.at - before.at)
        since = before.cpu if after is None else before.cpu + part * (after.cpu - before.cpu)
        return max(0.0, use.cpu - since)
