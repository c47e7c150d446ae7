"""`python -m benchmarks.work`: how much work mpqueue does, in calls of functions, which are the same at any load.

    python -m benchmarks.work                   # today's figures, beside those that are in the repository
    python -m benchmarks.work --check           # fail where a figure is more than 3% higher: part of `make check`
    python -m benchmarks.work --write           # keep today's figures, and write docs/explanation/work.md anew
    python -m benchmarks.work --write --of 0.1 --checkout FOLDER   # the figures of another version, from its checkout
    python -m benchmarks.work --instructions    # the CPU's instructions instead, by valgrind: part of `make bench`

A clock says something else in each run and on each machine; the number of calls does not. The check shows
work that was added unseen; what work costs in seconds is measured by `python -m benchmarks`. Other versions of Python
make other calls (some inline comprehensions, say), so the figures are those of one version, and others are not checked.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.instructions import missing

HERE = Path(__file__).parent
KEPT, PAGE = HERE / "results" / "work.json", HERE.parent / "docs" / "explanation" / "work.md"
#: How much higher a figure may be before the check fails; and for the figure of which a part depends on chance: a new
#: worker takes its time.
MORE, MORE_OF_CHANCE = 0.03, 0.1
BY_CHANCE = "worker replaced: coordinator"
#: The version whose figures are checked.
TODAY = "today"
PYTHON = "{}.{}".format(*sys.version_info)
#: What can be counted: the name under which it is kept.
CALLS, INSTRUCTIONS = "figures", "instructions"

#: On the page.
PROGRAM = """\
```python
import cProfile

from mpqueue import JobQueue


def no_op(item):
    return item


with JobQueue(1) as queue:
    for _ in range(9):
        profile = cProfile.Profile()
        profile.runcall(queue.run, [0], no_op)
print(sum(function.callcount for function in profile.getstats()), "calls")
```""".splitlines()

Figures = dict[str, int]


def measure(checkout: Path | None, what: str = CALLS) -> Figures:
    """Run the programs; on another version's checkout not the simulated one, which needs its tests."""
    if what == INSTRUCTIONS:
        return _run([sys.executable, str(HERE / "instructions.py")], checkout or HERE.parent)
    figures = _run([sys.executable, str(HERE / "counting.py")], checkout or HERE.parent)
    if checkout is None:
        figures |= _run([sys.executable, "-m", "benchmarks.counting_simulated"], HERE.parent)
    return figures


def _run(command: list[str], checkout: Path) -> Figures:
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def risen(kept: Figures, found: Figures) -> list[str]:
    """A line for each figure that is too high, or is new."""
    lines = []
    for name, count in found.items():
        if name not in kept:
            lines.append(f"{name}: {count:,}, which is not among the figures that are kept")
        elif count > kept[name] * (1 + (MORE_OF_CHANCE if name == BY_CHANCE else MORE)):
            lines.append(f"{name}: {count:,}, where {kept[name]:,} are kept ({count / kept[name] - 1:+.1%})")
    return lines


def page(calls: dict[str, Figures], instructions: dict[str, Figures]) -> str:
    """docs/explanation/work.md."""
    return "\n".join(
        [
            "# Counted calls",
            "",
            "How much work is a run? In calls of functions, Python's and C's, it is the same on each machine and at",
            "any load. This counts the calls of a run in the main thread:",
            "",
            *PROGRAM,
            "",
            "`make check` fails if a figure rises by more than 3%, unless the same commit keeps the new one, with a",
            "reason. Items are no-ops, one worker is warm, 100 items are one chunk, as the number of chunks depends on",
            "the machine, and a figure is the least of 40 runs. The last two are simulated, and exact.",
            "",
            *_table(calls),
            "",
            "The same in instructions of the CPU, the mean of 20 runs (of 500,000 items: 3), counted by callgrind. Two",
            "counts differ by 3% at most, but by a half in the last row: on a busy machine, chunks are smaller. `make",
            "bench` prints these; nothing checks them.",
            "",
            *_table(instructions),
            "",
            f"CPython {kept_python()}. `python -m benchmarks.work --write` has written this page.",
            "",
        ]
    )


def _table(kept: dict[str, Figures]) -> list[str]:
    versions = [name for name in kept if name != TODAY]
    return [
        f"| what: where | {' | '.join(versions)} | today |",
        f"|---|{'--:|' * (len(versions) + 1)}",
        *(
            f"| {name} | {' | '.join(_number(kept[one].get(name)) for one in versions)} | {count:,} |"
            for name, count in kept[TODAY].items()
        ),
    ]


def _number(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def kept_python() -> str:
    """The version of Python whose figures are kept."""
    return json.loads(KEPT.read_text())["python"] if KEPT.exists() else PYTHON  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.work", description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--of", default=TODAY, metavar="VERSION")
    parser.add_argument("--checkout", type=Path)
    parser.add_argument("--instructions", action="store_const", const=INSTRUCTIONS, default=CALLS, dest="what")
    args = parser.parse_args()
    if args.check and kept_python() != PYTHON:
        print(f"work is not checked: the figures are those of Python {kept_python()}, and this is {PYTHON}")
        return
    if args.what == INSTRUCTIONS and (reason := missing()):
        print(reason)
        return
    all_kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    kept: dict[str, Figures] = all_kept.setdefault(args.what, {})
    found = measure(args.checkout, args.what)
    before = kept.get(args.of, {})
    if not args.check:
        for name, count in found.items():
            print(f"{count:>12,} {_number(before.get(name)):>12}  {name}")
    if args.write:
        kept[args.of] = found
        kept[TODAY] = kept.pop(TODAY)
        KEPT.write_text(json.dumps(all_kept | {"python": PYTHON}, indent=1) + "\n")
        PAGE.write_text(page(all_kept[CALLS], all_kept[INSTRUCTIONS]))
    elif args.check and (lines := risen(before, found)):
        sys.exit("\n".join(["More work than is kept in benchmarks/results/work.json:", *lines, REMEDY]))


REMEDY = (
    "If that is meant, run `python -m benchmarks.work --write`, commit both files with the change, and say why in the "
    "message."
)


if __name__ == "__main__":
    main()
