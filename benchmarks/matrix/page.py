"""docs/fault-matrix.md, from the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.matrix import dialects, faults
from benchmarks.matrix.faults import Fault
from benchmarks.matrix.verdict import Verdict, judge

PAGE = ROOT / "docs" / "fault-matrix.md"
SYMBOLS = {Verdict.GOOD: "✔", Verdict.PARTLY: "◐", Verdict.LOST: "✘", Verdict.HANGS: "∞"}
HEADINGS = {"multiprocessing": "mp.Pool", "concurrent.futures": "futures"}
LEGEND = {
    Verdict.GOOD: "every good result came, the right item has the error, the pool still works, nothing is left",
    Verdict.PARTLY: "every good result came, but something else is wrong: see the small print",
    Verdict.LOST: "good results are lost, or the library has no such feature",
    Verdict.HANGS: "good results are missing because a call waits for ever",
}

INTRODUCTION = """\
What happens to the other items when something goes wrong? This page compares mpqueue with other libraries: the same
work, with the same fault, each in a separate process with a time limit, each in the most robust way that its own
documentation describes. mpqueue retries once here; Dask and Ray retry three times by default.

By default, the work is eight items of 50 ms on {workers} workers, and item 3 causes the fault, at
every try. Afterwards the same pool gets four more items, is closed, and the program ends. *Left* is everything that
still exists five seconds later.
"""

HOW = """\
## Make your own

    make faults                                # all of it: three quarters of an hour
    make faults ARGS='--only segfault --contender mpqueue --contender pebble'

It writes `benchmarks/results/faults.json` with all observations, and this page from it. Linux only. If a
mount namespace can be created, everything runs with a separate `/dev/shm`. The faults are in
`benchmarks/matrix/faults.py`, the calls of each library in `benchmarks/matrix/dialects.py`, and the rules for the
symbols in `benchmarks/matrix/verdict.py`. If a library is used badly there, please report it: each should be at its
best.

## Read it with care

- This is one run on one machine that was also busy with other work. Faults that depend on the moment (a worker killed
  while it writes) can end differently another time. A hang is a result that did not come within 12 s or more.
- The function that carries 100 MB is sent directly, for each item. Many of these libraries can share such an
  object (`ray.put`, `scatter`, an initializer, `shared_objects`), and are fast with it.
- The page is about faults only. Dask and Ray have many features that mpqueue lacks (many machines, data larger than
  memory); the standard library needs no installation; joblib and scikit-learn belong together. For items that never
  fail, most of this page does not matter.
- mpqueue's authors chose the rows. They started with the faults that users report to the other projects, and kept rows
  that other libraries pass too. If mpqueue failed in a row, the row would be here too.
"""


def write(results: dict[str, Any]) -> None:
    """Write the page."""
    PAGE.write_text("\n".join(lines(results)) + "\n")
    print(f"wrote {PAGE.relative_to(ROOT)}")


def lines(results: dict[str, Any]) -> Iterator[str]:
    """The page, line by line."""
    cells = results["cells"]
    names = [name for name in dialects.BY_NAME if any(name in row for row in cells.values())]
    rows = [fault for fault in faults.ALL if fault.name in cells]
    verdicts = {
        (fault.name, name): judge(fault, cells[fault.name][name])
        for fault in rows
        for name in names
        if name in cells[fault.name]
    }
    yield "# The fault matrix"
    yield ""
    yield "<!-- Written by `python -m benchmarks.faults` from benchmarks/results/faults.json. -->"
    yield ""
    yield INTRODUCTION.format(workers=results["workers"])
    yield from _legend()
    yield from _summary(names, rows, verdicts)
    for group, title in faults.GROUPS.items():
        members = [fault for fault in rows if fault.group == group]
        if members:
            yield from _table(title, names, members, verdicts)
    yield from _used(names, results)
    yield HOW.rstrip()


def _legend() -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for verdict, symbol in SYMBOLS.items():
        yield f"| {symbol} | {LEGEND[verdict]} |"
    yield ""


Verdicts = dict[tuple[str, str], tuple[Verdict, str]]


def _summary(names: list[str], rows: list[Fault], verdicts: Verdicts) -> Iterator[str]:
    yield f"## Of {len(rows)} faults"
    yield ""
    yield "| | " + " | ".join(map(_heading, names)) + " |"
    yield "|---|" + "--:|" * len(names)
    counts = {
        name: Counter(verdicts[fault.name, name][0] for fault in rows if (fault.name, name) in verdicts)
        for name in names
    }
    for verdict, symbol in SYMBOLS.items():
        yield f"| {symbol} {verdict} | " + " | ".join(str(counts[name][verdict]) for name in names) + " |"
    yield ""


def _table(title: str, names: list[str], rows: list[Fault], verdicts: Verdicts) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield "| | " + " | ".join(map(_heading, names)) + " |"
    yield "|---|" + ":-:|" * len(names)
    for fault in rows:
        cells = []
        for name in names:
            verdict, words = verdicts.get((fault.name, name), (None, ""))
            cells.append(
                ""
                if verdict is None
                else f"{SYMBOLS[verdict]}<br><small>{words}</small>"
                if words
                else SYMBOLS[verdict]
            )
        yield f"| {fault.title} | " + " | ".join(cells) + " |"
    yield ""


def _heading(name: str) -> str:
    return HEADINGS.get(name, name)


def _used(names: list[str], results: dict[str, Any]) -> Iterator[str]:
    machine = results["machine"]
    yield "## What was used"
    yield ""
    yield (
        f"{machine['cpu']}, {machine['usable_cores']} cores, Linux {machine['kernel']}, Python {machine['python']}, "
        f"{results['date']}."
    )
    yield ""
    yield "| library | version | how |"
    yield "|---|---|---|"
    for name in names:
        dialect = dialects.BY_NAME[name]
        version = machine["packages"].get(dialect.contender.module, "with Python")
        yield f"| {name} | {version} | {dialect.configuration} |"
    yield ""
