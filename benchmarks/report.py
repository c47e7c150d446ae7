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
    "durations": "The ideal is the CPU time of the items alone, in as many processes at once, divided by the workers.",
    "drifting": "In the first work the long item comes near the end: when 400 of the 1 ms items are left, which take "
    "as long as it does. A chunk size is one for all: many items for the short ones, and then the long one is begun "
    "late, and has many behind it.",
    "longest_first": "The items sleep. The bound is the longest item first, each to the worker that is free "
    "first, with what they have really taken.",
    "images": "The ideal is the CPU time of the pictures alone, in processes forked for them. Memory that a picture "
    "was in goes back to the system there, as in the other pools' workers, and comes anew, page by page, for the next; "
    "mpqueue's workers keep up to 64 MB of it ([memory](how-to/memory.md)), which is how it can be below the ideal.",
    "arrays": "Each repeat has fresh arrays. Whoever gets an array reads something of each of its pages, in the worker "
    "and in the parent, within the time measured.",
    "payload_kinds": "8 MB each. Whoever gets one reads something of it, in the worker and in the parent, within "
    "the time measured, and what is returned is made within it too; pixels of images take Pillow long to read, for "
    "everybody. Once torch is imported, multiprocessing's pool is that of torch.multiprocessing: it hands tensors over "
    "in shared memory. With polars, the program imports pyarrow too.",
    "closure": "The table is another one in each repeat. The last column is what all workers together weigh more when "
    "they have read it, shared pages counted once.",
    "models": "The model is another one in each repeat; the workers have imported torch. An item reads one of its "
    "weights. The last column is what all workers together weigh more when they have read all of it.",
    "replacement": "The module that is imported sleeps for three seconds. Those that say preload have imported it "
    "before, in the process from which workers are forked, which is weighed too. concurrent.futures and loky are made "
    "anew by hand, in the moment of the crash.",
    "cold_start": "In a fresh interpreter: the import, two workers, one item.",
    "import_time": "In a fresh interpreter, best of five.",
    "million": "What the parent weighs beyond the list of items that the user has: at its peak, and when all is done "
    "with the results still held. The handler returns None.",
    "listeners": "Being told of each item means a `job:progress` listener for mpqueue, and going through the results "
    "as they come for the others. CPU time counts all threads of the parent.",
    "crash": "One item in the middle kills its worker with SIGKILL, the first time that it runs.",
    "coordinator": "The real scheduler with workers that only pretend to work; what else a chunk costs the "
    "coordinator was measured on real workers. Where it is busy for more than about half of the time, workers begin "
    "to wait for it.",
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
            "and what is short varies much."
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
            "Some questions were measured at another time than the rest, or with other versions; on another CPU, where "
            "they say so."
        )
    yield ""
    yield (
        "Every time is the best of all rounds; every contender is measured in a process of its own, all of them in "
        "turn, and what it returns is compared with what it should. In parentheses: the multiple of what "
        "`JobQueue.run` takes. Figures from another machine can't be compared with these; `make bench` makes your "
        "own. `benchmarks/README.md` says how they come about, and how far to trust them."
    )


def _rounds(record: dict[str, Any]) -> int:
    """How often those were measured who neither failed nor took too long."""
    return max(
        (len(entry["rounds"]) for case in record["cases"].values() for entry in case["contenders"].values()), default=0
    )


def _others_ahead(asked: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Where somebody else is better"
    yield ""
    yield "All who are faster than mpqueue (`JobQueue.run`, `map` or `Pool`, whichever is fastest)"
    yield "by more than 5 %, and why."
    yield ""
    nobody = True
    for name, record in asked.items():
        by_reason: dict[str, list[tables.Better]] = {}
        for better in tables.who_is_better(name, record):
            by_reason.setdefault(reason(name, better.contender), []).append(better)
        if by_reason:
            nobody = False
            yield f"**{record['question']}**"
            yield ""
        for why, betters in by_reason.items():
            whom = "; ".join(_by_case(betters))
            yield f"- {whom}. {why}"
        if by_reason:
            yield ""
    if nobody:
        yield "Nobody, in these works."


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
    yield "The best way that its own documentation describes. Where a chunk size has to be given it is what a user "
    yield "would choose who knows the items: 4 chunks a worker where they are alike (the rule of "
    yield "`multiprocessing.Pool`), 20 where they are not, 1 item for arrays, half of all for the large closure."
    yield ""
    yield "| | |"
    yield "| --- | --- |"
    for name in BY_NAME:
        if name in used:
            yield f"| {name} | {BY_NAME[name].configuration} |"


if __name__ == "__main__":
    main()
