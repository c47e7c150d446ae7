"""`python -m benchmarks.report`: docs/benchmarks.md and its plots, from the results that were chosen for it.

With a file it chooses that one first: `python -m benchmarks.report benchmarks/results/20250101-120000-full.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import questions, tables
from benchmarks.contenders import BY_NAME
from benchmarks.machine import ROOT
from benchmarks.reasons import reason

CHOSEN = ROOT / "benchmarks" / "results" / "published.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "img" / "bench"

#: CPU seconds taken away from a question from which on the page says so.
TOLD_STOLEN = 3.0

#: The load before a question from which on the page says so.
TOLD_LOAD = 4.0

#: What a reader must know before the figures of a question.
NOTES = {
    "durations": "The ideal is the CPU time of the items alone, in as many processes at a time, divided by the "
    "workers.",
    "drifting": "In the first work the long item comes near the end: when 400 of the 1 ms items are left, which take "
    "as long as it does. There is one chunk size for all items: if it is large enough for the short ones, the long one "
    "starts late, and many items wait behind it.",
    "longest_first": "The items sleep. The bound is the longest item first, each to the worker that is free "
    "first, computed with the measured times.",
    "images": "The ideal is the CPU time of the pictures alone, in processes forked for them. There, as in the other "
    "pools' workers, the memory of a picture goes back to the system, and the next picture gets new memory, page by "
    "page. mpqueue's workers keep up to 64 MB of it ([memory](how-to/memory.md)), so mpqueue can be below the ideal.",
    "arrays": "Each repeat has fresh arrays. The worker and the parent read a value from each page of an array that "
    "they get, within the measured time.",
    "payload_kinds": "8 MB each. The worker and the parent read a part of each object that they get, within "
    "the measured time, which also includes creating the result. For all libraries, Pillow takes long to read the "
    "pixels of images. Once torch is imported, multiprocessing's pool is that of torch.multiprocessing: it passes "
    "tensors on in shared memory. With polars, the program imports pyarrow too.",
    "closure": "Each repeat has a new table. The last column is the additional memory of all workers together after "
    "they have read it, shared pages counted once.",
    "models": "Each repeat has a new model; the workers have imported torch. An item reads one of its "
    "weights. The last column is the additional memory of all workers together after they have read all of it.",
    "replacement": "The imported module sleeps for three seconds. Rows with preload have imported it "
    "before, in the process from which workers are forked, whose memory counts too. concurrent.futures and loky are "
    "created anew by hand, at the moment of the crash.",
    "cold_start": "In a fresh interpreter: the import, two workers, one item.",
    "import_time": "In a fresh interpreter, best of five.",
    "million": "The memory of the parent in addition to the user's list of items: at its peak, and at the end "
    "with the results still held. The handler returns None.",
    "listeners": "A report of each item is a `job:progress` listener for mpqueue, and a loop over the results "
    "as they arrive for the others. CPU time counts all threads of the parent.",
    "crash": "One item in the middle kills its worker with SIGKILL, the first time that it runs.",
    "coordinator": "The real scheduler with simulated workers; the other costs of a chunk for the "
    "coordinator were measured on real workers. If it is busy for more than about half of the time, workers begin "
    "to wait for it.",
    "many_workers": "The real scheduler with simulated workers and simulated time: each message takes the coordinator "
    "the CPU time that the scheduler really takes for it, and what a chunk and an item cost it besides; others wait "
    "meanwhile. The workers' time is counted from the first item to the last, of a job that takes all of them a "
    "minute. A step is one message. See [how far one coordinator reaches](explanation/scale.md).",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, help="take these from now on")
    args = parser.parse_args()
    if args.results is not None and args.results.resolve() != CHOSEN:
        shutil.copyfile(args.results, CHOSEN)
    if not CHOSEN.exists():
        parser.error(f"no results have been chosen yet: name a file (there is no {CHOSEN})")
    found: dict[str, Any] = json.loads(CHOSEN.read_text())["questions"]
    asked = {name: found[name] for name in questions.NAMES if name in found}
    if PLOTS.exists():
        shutil.rmtree(PLOTS)
    # Heavy, and not needed to read a results file.
    from benchmarks.plots import draw

    drawn = draw(PLOTS, asked)
    PAGE.write_text("\n".join(_page(asked, drawn)) + "\n")
    print(f"wrote {PAGE.relative_to(ROOT)} and {sum(map(len, drawn.values()))} plots")


def _page(asked: dict[str, Any], drawn: dict[str, list[str]]) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "<!-- Written by `python -m benchmarks.report` from benchmarks/results/published.json. -->"
    yield ""
    yield from _setting(asked)
    yield from _others_ahead(asked)
    usual = next(iter(asked.values()))["machine"]["cpu"]
    for name, record in asked.items():
        yield ""
        yield f"## {record['question']}"
        yield ""
        yield " ".join(_circumstances(record, usual))
        yield ""
        if name in NOTES:
            yield NOTES[name]
            yield ""
        for table in tables.tables(name, record):
            if table.title:
                yield f"**{table.title}**"
                yield ""
            yield table.markdown()
            yield ""
        for file in drawn.get(name, ()):
            yield f"![{record['question']}](img/bench/{file})"
            yield ""
    yield from _configurations(asked)


def _circumstances(record: dict[str, Any], usual: str) -> Iterator[str]:
    """How this question was asked."""
    cpu, rounds = record["machine"]["cpu"], _rounds(record)
    where = "" if cpu == usual else f" on {cpu}"
    size = " of a quick run" if record["settings"]["size"] == "quick" else ""
    yield f"Measured in {rounds} {'round' if rounds == 1 else 'rounds'}{size}{where}."
    if (load := record["load"][0]) > TOLD_LOAD:
        yield (
            f"Other programs kept the CPUs busy (a load of {load:.0f}): only figures of this question can be compared, "
            "and short times vary much."
        )
    if (stolen := record.get("stolen", 0.0)) > TOLD_STOLEN:
        yield f"Meanwhile a hypervisor gave {stolen:.0f} s of CPU time to others, so times vary more than elsewhere."


def _setting(asked: dict[str, Any]) -> Iterator[str]:
    stamps = {json.dumps({**record["machine"], "commit": ""}, sort_keys=True) for record in asked.values()}
    first = next(iter(asked.values()))
    machine, settings = first["machine"], first["settings"]
    loads = [load for record in asked.values() for load in record["load"][:1]]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    yield (
        f"Measured on {machine['cpu']}, {machine['usable_cores']} cores, {machine['memory_gb']:g} GB, "
        f"Linux {machine['kernel']}, Python {machine['python']}, with {settings['workers']} workers "
        f"({settings['size']} size), from {first['started'][:10]} on, commit {machine['commit']}. "
        f"The load average before each question was {min(loads):g} to {max(loads):g}. {packages}."
    )
    if len(stamps) > 1:
        yield ""
        yield (
            "Some questions were measured at another time, or with other versions. If one was measured on another CPU, "
            "it says so."
        )
    yield ""
    yield (
        "Every time is the best of all rounds. Every contender is measured in a separate process, all of them in "
        "turn, and its results are checked. In parentheses: the multiple of the time that "
        "`JobQueue.run` takes. Figures from another machine can't be compared with these; to measure on yours, run "
        "`make bench`. `benchmarks/README.md` explains how the figures are measured, and how far to trust them."
    )


def _rounds(record: dict[str, Any]) -> int:
    """How often the contenders were measured that neither failed nor took too long."""
    return max(
        (len(entry["rounds"]) for case in record["cases"].values() for entry in case["contenders"].values()), default=0
    )


def _others_ahead(asked: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Where other libraries are better"
    yield ""
    yield "All libraries that are faster than mpqueue (the fastest of `JobQueue.run`, `map` and `Pool`)"
    yield "by more than 5%, and why."
    yield ""
    none = True
    for name, record in asked.items():
        by_reason: dict[str, list[tables.Better]] = {}
        for better in tables.who_is_better(name, record):
            by_reason.setdefault(reason(name, better.contender), []).append(better)
        if by_reason:
            none = False
            yield f"**{record['question']}**"
            yield ""
        for why, betters in by_reason.items():
            whom = "; ".join(_by_case(betters))
            yield f"- {whom}. {why}"
        if by_reason:
            yield ""
    if none:
        yield "None, in these questions."


def _by_case(betters: list[tables.Better]) -> Iterator[str]:
    by_case: dict[str, list[tables.Better]] = {}
    for better in betters:
        by_case.setdefault(better.title, []).append(better)
    for title, those in by_case.items():
        whom = ", ".join(f"{better.contender} {tables.seconds(better.theirs)}" for better in those)
        yield f"{title} (mpqueue {tables.seconds(those[0].ours)}): {whom}"


def _configurations(asked: dict[str, Any]) -> Iterator[str]:
    used = {name for record in asked.values() for name in record["contenders"]}
    yield "## How each is used"
    yield ""
    yield "Each library is used in the best way that its own documentation describes. If it needs a chunk size, it is "
    yield "one that suits the items: 4 chunks per worker for equal items (the rule of "
    yield "`multiprocessing.Pool`), 20 for unequal ones, 1 item for arrays, half of all for the large closure."
    yield ""
    yield "| | |"
    yield "| --- | --- |"
    for name in BY_NAME:
        if name in used:
            yield f"| {name} | {BY_NAME[name].configuration} |"


if __name__ == "__main__":
    main()
