"""`python -m benchmarks.report`: docs/benchmarks.md and its picture, from the results that were chosen for it.

With a file it chooses that one first: `python -m benchmarks.report benchmarks/results/20250101-120000-full.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks import questions
from benchmarks.machine import ROOT
from benchmarks.sections import MARK, SECTIONS, Questions, is_rough
from benchmarks.tables import Table, ratio, significant
from benchmarks.work import KEPT

CHOSEN = ROOT / "benchmarks" / "results" / "published.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURE = ROOT / "docs" / "img" / "benchmarks.svg"

OPENING = """\
How fast is mpqueue? For your function and your items, this measures it:

```python
from multiprocessing import Pool
from timeit import repeat

from mpqueue import JobQueue


def work(item):
    return sum(range(item))


if __name__ == "__main__":  # Pool needs this line
    items = [10_000] * 500
    with Pool(2) as pool, JobQueue(concurrency=2) as queue:
        print("Pool.map", min(repeat(lambda: pool.map(work, items), number=1)), "s")
        print("queue.run", min(repeat(lambda: queue.run(items, work), number=1)), "s")
```

Below, it is compared with `multiprocessing.Pool.map`, `concurrent.futures`, loky, joblib, mpire and Ray:

- **mpqueue is ahead** with big data, with items that differ in length, if a worker dies, and with many short items
  (except for `Pool.map`).
- **It is behind** with few short items, in the first second of a program, with a listener for each item, and with many
  more workers than CPUs.
- **Speed is no reason to choose** for equal items of 0.1 ms or more."""

READING = """\
The first column is the time of `JobQueue.run` with default options, the others are multiples of it: 2.0x takes twice as
long. A multiple is **bold** if that library is better by more than 5%. Each figure is the best of all rounds."""

REPEATING = """\
Figures from two machines can't be compared, so measure on yours. On Linux, in a clone:

    make bench                # all works: an hour and a half
    make bench-quick          # roughly: five minutes
    make bench ARGS='--only noop --contender mpqueue --contender loky'

Each library is used in the best way that its documentation describes (`benchmarks/contenders.py`).
`benchmarks/README.md` says how far to trust the figures, `benchmarks/results/published.json` has all, also of `map`,
`Pool`, Pebble and Dask."""

SINCE = """\
Work of the program for items that do nothing, in millions of CPU instructions, which any load changes by at most 3%
([more counts](explanation/work.md)). Side by side, 1.0.0rc1 took 1.1 to 1.5 times as long as 0.1 for such items,
which the first table does not show yet."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, help="take these from now on")
    args = parser.parse_args()
    if args.results is not None and args.results.resolve() != CHOSEN:
        shutil.copyfile(args.results, CHOSEN)
    if not CHOSEN.exists():
        parser.error(f"no results have been chosen yet: name a file (there is no {CHOSEN})")
    found: Questions = json.loads(CHOSEN.read_text())["questions"]
    asked = {name: found[name] for name in questions.NAMES if name in found}
    # Heavy, and not needed to read a results file.
    from benchmarks.plots import draw

    draw(PICTURE, asked)
    PAGE.write_text("\n".join(_page(asked)) + "\n")
    print(f"wrote {PAGE.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)}")


def _page(asked: Questions) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "<!-- Written by `python -m benchmarks.report` from benchmarks/results/published.json. -->"
    yield ""
    yield OPENING
    yield ""
    yield f"![Six works: time of each library as a multiple of mpqueue's; red is faster](img/{PICTURE.name})"
    yield ""
    yield " ".join(_setting(asked))
    yield ""
    yield READING
    for section in SECTIONS:
        table = section.table(asked)
        yield ""
        yield f"## {section.title}"
        yield ""
        yield section.conclusion
        yield ""
        yield table.markdown()
        if section.behind and any("**" in cell for row in table.rows for cell in row):
            yield ""
            yield f"Why others are ahead: {section.behind}"
    yield ""
    yield "## Since 0.1"
    yield ""
    yield SINCE
    yield ""
    yield _since().markdown()
    yield ""
    yield "## How to repeat it"
    yield ""
    yield REPEATING


def _setting(asked: Questions) -> Iterator[str]:
    """The machine and the versions; and which rows were measured elsewhere, or on a busy machine."""
    rows = [row for section in SECTIONS for row in section.rows if row.is_in(asked)]
    first = next(iter(asked.values()))
    machine, settings = first["machine"], first["settings"]
    version = machine["packages"]["mpqueue"]
    others = {row.title: asked[row.question]["machine"]["packages"]["mpqueue"] for row in rows}
    other = "".join(f" ({title!r}: {found})" for title, found in others.items() if found != version)
    packages = ", ".join(
        f"{name} {machine['packages'][name]}" for name in ("loky", "joblib", "mpire", "dask", "ray", "numpy")
    )
    yield (
        f"Measured from {first['started'][:10]} on, with mpqueue {version}{other} and "
        f"{settings['workers']} workers, on {machine['cpu']}, {machine['usable_cores']} cores, "
        f"{machine['memory_gb']:.0f} GB, Linux, Python {machine['python']}, {packages}."
    )
    rough = [asked[row.question] for row in rows if is_rough(asked, row.question)]
    if rough:
        cpus = " and ".join(sorted({record["machine"]["cpu"] for record in rough}))
        loads = [record["load"][0] for record in rough]
        how = "in quick runs " if all(record["settings"]["size"] == "quick" for record in rough) else ""
        yield (
            f"Rows with {MARK} are rough: measured {how}on {cpus}, where other programs kept the CPUs busy "
            f"(a load of {min(loads):.0f} to {max(loads):.0f})."
        )


def _since() -> Table:
    """What a run costs the program, now and before."""
    kept = json.loads(KEPT.read_text())
    before, today = kept["instructions"]["0.1"], kept["instructions"]["today"]
    rows = []
    for count in ("1", "100"):
        parts = [f"run of {count}: {thread}" for thread in ("main", "coordinator")]
        old, new = (sum(figures[part] for part in parts) for figures in (before, today))
        rows.append([f"run of {count}", significant(old / 1e6), significant(new / 1e6), ratio(new, old)])
    return Table("", ["", "0.1", "today", ""], rows)


if __name__ == "__main__":
    main()
