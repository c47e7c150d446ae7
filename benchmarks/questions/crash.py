"""A worker is killed in the middle, once. Who brings the other results home, and what does that cost?"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.case import Case, Measures, Sizes, Stopwatch
from benchmarks.contenders import Contender
from benchmarks.handlers import echo, kill_once

QUESTION = "What is left when a worker is killed underway?"


def cases(sizes: Sizes) -> list[Case]:
    count = sizes.pick(1_000, 1_000, 40)
    turns = sizes.loop.turns(1e-3)

    def measure(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
        with tempfile.TemporaryDirectory() as folder:
            marker = Path(folder) / "killed"
            items = [f"{at}|{turns}|{marker if at == count // 2 else ''}" for at in range(count)]
            with Stopwatch() as watch:
                results = contender.map_past_crash(kill_once, items)
            assert marker.exists(), "nobody was killed"
        delivered = sum(result == at for at, result in enumerate(results))
        assert delivered >= count - 1, f"{delivered} of {count} results delivered"
        usable = list(contender.map(echo, [1, 2, 3], 1)) == [1, 2, 3]
        return watch.measures(count=count, delivered=delivered, usable=usable)

    title = f"{count:,} of 1 ms, one kills its worker"
    return [Case("crash", title, measure=measure, warm=False, repeats=2, limit=20.0)]
