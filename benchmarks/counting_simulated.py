"""The second program that `benchmarks.work` runs: the scheduler's calls for very large jobs.

Workers, threads and time are simulated (`tests.support.cluster`), so two runs make exactly the same calls.
"""

from __future__ import annotations

import json
import sys
from types import FrameType

from tests.support.cluster import Cluster

#: Items, seconds of each, and workers.
STORIES = {
    "500,000 items on 2 workers": (500_000, 1e-7, 2),
    "20,000 items on 1,024 workers": (20_000, 0.05, 1024),
}


def calls(items: int, seconds: float, lanes: int) -> int:
    """All calls of the scheduler, Python's and C's, from the job's start to its end."""
    cluster = Cluster(lanes, latency=0.001, service=lambda *_: 50e-6)
    count = 0

    def called(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    handle = cluster.scheduler.handle

    def counted(message: object, now: float) -> object:
        sys.setprofile(called)
        try:
            return handle(message, now)  # type: ignore[arg-type]
        finally:
            sys.setprofile(None)

    cluster.scheduler.handle = counted  # type: ignore[assignment, method-assign]
    job = cluster.work([seconds] * items)
    cluster.start(job)
    cluster.run_until_over(job)
    return count


def main() -> None:
    print(json.dumps({f"{name}: scheduler": calls(*story) for name, story in STORIES.items()}))


if __name__ == "__main__":
    main()
