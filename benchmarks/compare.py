"""`python -m benchmarks.compare BEFORE AFTER`: what a change did to mpqueue's own figures.

Refuses results of different CPUs. The first figure is the best of all rounds, the one in brackets the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.tables import best, measures, ratio, seconds

OWN = ("mpqueue", "mpqueue.map", "mpqueue.Pool", "mpqueue.Executor")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    args = parser.parse_args()
    before, after = (json.loads(path.read_text())["questions"] for path in (args.before, args.after))
    for question in before:
        if question in after:
            _check_same_cpu(before[question], after[question])
            _compare(question, before[question], after[question])


def _check_same_cpu(before: dict[str, Any], after: dict[str, Any]) -> None:
    for key in ("cpu", "usable_cores", "python"):
        if before["machine"][key] != after["machine"][key]:
            sys.exit(f"can't be compared: {key} is {before['machine'][key]} and {after['machine'][key]}")


def _compare(question: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    for case in before["cases"]:
        for name in OWN:
            was, now = best(before, case, name), best(after, case, name)
            if was is not None and now is not None:
                old, new = (
                    statistics.median(measures(record["cases"][case]["contenders"][name])) for record in (before, after)
                )
                print(
                    f"{question}: {case}, {name}: {seconds(was)} -> {seconds(now)} ({ratio(now, was)})"
                    f"  [{seconds(old)} -> {seconds(new)}]"
                )


if __name__ == "__main__":
    main()
