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
    Verdict.GOOD: "every good result came, the fault is told where it belongs, the pool works on, nothing is left",
    Verdict.PARTLY: "every good result came, but something else is wrong: the small print says what",
    Verdict.LOST: "good results are lost, or there is no way to ask for it",
    Verdict.HANGS: "good results are missing because somebody waits for ever",
}

INTRODUCTION = """\
What becomes of the rest when something goes wrong? The same work, with the same fault, for mpqueue and for what people
use instead; each in a process of its own, which is ended after a time, each in the most robust way that its own
documentation describes. mpqueue tries once more here; Dask and Ray do so by themselves, three times.

Unless the row says otherwise the work is eight items of 50 ms on {workers} workers, and item 3 is the guilty one, at
every try; afterwards the same pool gets four more items, is closed, and the program ends. *Left* is what is still
there five seconds after that.
"""

HOW = """\
## Make your own

    make faults                                # all of it: three quarters of an hour
    make faults ARGS='--only segfault --contender mpqueue --contender pebble'

It writes `benchmarks/results/faults.json` with everything that happened, and this page from it. Linux only; where a
mount namespace can be had, everything runs with a `/dev/shm` of its own. The faults are in
`benchmarks/matrix/faults.py`, what each library is asked in `benchmarks/matrix/dialects.py`, and what counts as what
in `benchmarks/matrix/verdict.py`. If a library is used badly there, please tell us: each is meant to be at its best.

## Read it with care

- One run on one machine that had other work to do meanwhile. Faults that depend on the moment (a worker killed while
  it writes) can end otherwise another time; hangs are what did not come within 12 s or more.
- The function that carries 100 MB is sent just so, for each item. Many of these libraries have a way to share such an
  object (`ray.put`, `scatter`, an initializer, `shared_objects`), and do well with it.
- It asks about faults only. Dask and Ray do much that mpqueue does not (many machines, data larger than memory); the
  standard library needs no installation; joblib and scikit-learn belong together. For items that never fail, most of
  this page says nothing.
- mpqueue's authors chose the rows. They began with the faults that users report to the other projects, and stayed when
  mpqueue was not the only one to pass; a row in which mpqueue fails would be here too.
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
