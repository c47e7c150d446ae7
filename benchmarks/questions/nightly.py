"""A run of which nothing is to be done: each file is looked at, none has changed, and the table is written anew.

Beside it what people use instead: `make`, and a loop over `os.scandir` that keeps what it knows in a JSON file. Neither
promises what a journal does. The CPU time is that of the process which looks: of `make`, or of this one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.case import Case, Measures, Sizes, Stopwatch
from benchmarks.contenders import Contender

QUESTION = "What does a nightly run over 3,000 files cost if none of them has changed?"


def cases(sizes: Sizes) -> list[Case]:
    count = sizes.pick(3_000, 3_000, 100)
    ways = {"journal": journal, "journal and sink": partial(journal, sink=True), "make": make, "scandir": scandir}
    return [
        Case(
            name,
            f"{count:,} files, {name}",
            items=lambda seed: range(count),  # noqa: ARG005
            measure=partial(timed_night, night=night),
            started=False,
            warm=False,
            repeats=5,
            contenders=("mpqueue",),
        )
        for name, night in ways.items()
        if name != "make" or shutil.which("make")
    ]


def timed_night(contender: Contender, case: Case, seed: int, *, night: Callable[[Path], Stopwatch]) -> Measures:  # noqa: ARG001
    """The second night, over files that are as they were in the first."""
    items = case.items(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for item in items:
            (folder / f"in/{item:06}.txt").write_bytes(bytes(item % 1000))
        night(folder)
        watch = night(folder)
    return watch.measures(count=len(items))


def describe(path: str | Path) -> dict[str, Any]:
    """What the table says of a file."""
    return {"name": os.path.basename(path), "bytes": os.stat(path).st_size, "mean": 0.5}


def journal(folder: Path, *, sink: bool = False) -> Stopwatch:
    """A row of the journal for each file, as with work that takes long."""
    import mpqueue

    columns = ["name", "bytes", "mean", "status"]
    with Stopwatch() as watch:
        paths = sorted((folder / "in").iterdir())
        results = {"results": mpqueue.sinks.csv(folder / "table.csv", columns)} if sink else {}
        with mpqueue.JobQueue(1, journal=folder / "run.db") as queue:
            job = queue.create_job(
                "night", paths, describe, rerun=mpqueue.Rerun(update=True, key=mpqueue.file_key), chunksize=1, **results
            )
            queue.start(job.id).result()
        assert job.completed == len(paths)
    return watch


def make(folder: Path) -> Stopwatch:
    """A file beside each, which is newer."""
    (folder / "out").mkdir(exist_ok=True)
    rules = (
        "all: $(patsubst in/%.txt,out/%.row,$(wildcard in/*.txt))",
        "out/%.row: in/%.txt",
        "\t@wc -c $< > $@",
    )
    (folder / "Makefile").write_text("\n".join(rules) + "\n")
    before = os.times()
    with Stopwatch() as watch:
        subprocess.run(["make", "-s", "-C", str(folder)], check=True)
    after = os.times()
    watch.parent_cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return watch


def scandir(folder: Path) -> Stopwatch:
    """What a program of one's own does: a dict in a file, and the table."""
    with Stopwatch() as watch:
        known_path = folder / "known.json"
        known: dict[str, Any] = json.loads(known_path.read_text()) if known_path.exists() else {}
        now = {}
        for entry in sorted(os.scandir(folder / "in"), key=lambda entry: entry.name):
            found = entry.stat()
            state = [found.st_size, found.st_mtime_ns]
            told = known.get(entry.name)
            row = told[1] if told is not None and told[0] == state else describe(entry.path)
            now[entry.name] = state, row
        known_path.write_text(json.dumps(now))
        with (folder / "table.csv").open("w") as file:
            file.writelines(f"{row['name']},{row['bytes']},{row['mean']},completed\n" for _, row in now.values())
    return watch
