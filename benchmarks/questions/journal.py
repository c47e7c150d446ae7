"""What it costs to write everything down: the same short items with a journal and without. Only mpqueue has one."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from benchmarks.case import Case, Measures, Sizes, Stopwatch
from benchmarks.contenders import Contender
from benchmarks.handlers import burn

QUESTION = "What does it cost to write what becomes of 20,000 items of 100 us into a journal?"


def cases(sizes: Sizes) -> list[Case]:
    turns, count = sizes.loop.turns(1e-4), sizes.pick(20_000, 20_000, 200)
    return [
        Case(
            name,
            f"{count:,} x 100 us, {name} a journal",
            items=lambda seed: [turns] * count,  # noqa: ARG005
            measure=partial(timed_job, recorded=recorded),
            started=False,
            warm=False,
            repeats=5,
            contenders=("mpqueue",),
        )
        for name, recorded in (("without", False), ("with", True))
    ]


def timed_job(contender: Contender, case: Case, seed: int, *, recorded: bool) -> Measures:  # noqa: ARG001
    """From the job's making to its end, which is on disk then; the workers are warm."""
    from mpqueue import JobQueue

    items = case.items(seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        JobQueue(None, journal=Path(folder) / "run.db" if recorded else None) as queue,
    ):
        queue.run(items[:100], burn, id="warm")
        with Stopwatch() as watch:
            job = queue.run(items, burn, id="job")
        assert job.completed == len(items)
    return watch.measures(count=len(items))
