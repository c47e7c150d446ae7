"""docs/fault-matrix.md, from the results."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.matrix import dialects, faults
from benchmarks.matrix.faults import Fault
from benchmarks.matrix.verdict import Verdict, judge

PAGE = ROOT / "docs" / "fault-matrix.md"
DEAD = "†"
SYMBOLS = {Verdict.GOOD: "✔", Verdict.PARTLY: "◐", Verdict.LOST: "✘", Verdict.HANGS: "∞"}
HEADINGS = {"multiprocessing": "mp.Pool", "concurrent.futures": "futures"}
LEGEND = {
    Verdict.GOOD: "every good result came, the right item has the error, the pool still works, nothing is left",
    Verdict.PARTLY: "every good result came, but something else is wrong, as the small print says",
    Verdict.LOST: "good results are lost, or the library has no such feature",
    Verdict.HANGS: "good results are missing because a call waits for ever",
}

INTRODUCTION = """\
What happens to the other items when one goes wrong? In mpqueue they are unaffected, and the queue still works:

```python
import os

from mpqueue import JobQueue


def work(item):
    return os._exit(7) if item == 3 else item


with JobQueue(2, max_retries=1) as queue:
    job = queue.run(range(8), work)
    print(job.results, job.items[3].error_type)
    print(queue.run(range(8, 12), work).results)
```

```text output
[0, 1, 2, None, 4, 5, 6, 7] WorkerCrashedError
[8, 9, 10, 11]
```

Below, nine libraries do this with the same faults, each in a process of its own with a time limit, and in the most
robust way that its documentation describes. Unless the row says otherwise, item 3 of eight causes the fault at every
try, on {workers} workers. Each item takes 50 ms. Dask and Ray retry three times by default.
"""

HOW = """\
## Make your own

    make faults                                # all of it: three quarters of an hour
    make faults ARGS='--only segfault --contender mpqueue --contender pebble'

This writes `benchmarks/results/faults.json`, and this page from it. It needs Linux. The
faults are in `benchmarks/matrix/faults.py`, the calls of each library in `benchmarks/matrix/dialects.py`, and the rules
for the symbols in `benchmarks/matrix/verdict.py`. If a library is used badly there, please report it.

## Read it with care

- This is one run on one machine that was busy with other work too. Faults that depend on the moment can end differently
  another time. A result that did not come within 12 s or more is a hang.
- The function that carries 100 MB is sent with each item. Many of these libraries are fast if they share such an
  object instead.
- mpqueue's authors chose the rows, from the faults that users report to the other projects. Rows that other libraries
  pass stayed. A row in which mpqueue failed would be here too.
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
    yield f"| {DEAD} | the pool can't be used afterwards |"
    yield "| 2/7 | how many of the good results came |"
    yield "| no error | the item at fault has none |"
    yield "| 2 left | processes that still exist five seconds after the program's end |"
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
            cells.append("" if verdict is None else _cell(verdict, words))
        yield f"| {fault.title} | " + " | ".join(cells) + " |"
    yield ""


def _cell(verdict: Verdict, words: str) -> str:
    """The symbol, and in small print what it is for: where results are missing, how many came says enough."""
    amiss = [word for word in words.split("; ") if word]
    dead = DEAD if "pool dead" in amiss else ""
    amiss = [_shorter(word) for word in amiss if word != "pool dead"]
    if verdict in (Verdict.LOST, Verdict.HANGS):
        amiss = amiss[:1]
    small = f"<br><small>{'; '.join(amiss)}</small>" if amiss else ""
    return f"{SYMBOLS[verdict]}{dead}{small}"


#: Words of `judge` that stand in many cells, and what is left of them there.
_SHORTER = {
    "no error for the item at fault": "no error",
    "the error does not say why": "no reason",
    "hangs when closed": "closing hangs",
    "a running item can't be cancelled": "impossible",
    "not done in 60 s": "over 60 s",
    "does not end in 10 s": "over 10 s",
}


def _shorter(words: str) -> str:
    words = _SHORTER.get(words, words)
    words = re.sub(r"^(\d+) of (\d+)$", r"\1/\2", words)
    words = re.sub(r"^reads on: .*", "reads on", words)
    return re.sub(r" process(es)? left", " left", words)


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
