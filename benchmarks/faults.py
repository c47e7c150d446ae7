"""`python -m benchmarks.faults`: the fault matrix. The same work and the same fault for everybody, a process each.

Writes what happened to benchmarks/results/faults.json, and docs/fault-matrix.md from it. Needs Linux; where a mount
namespace can be had, the whole run gets a /dev/shm of its own, so that what a library leaves there is found for sure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import answers, contenders, machine, processes
from benchmarks.matrix import dialects, faults, page, run
from benchmarks.matrix.verdict import judge

RESULTS = machine.ROOT / "benchmarks" / "results" / "faults.json"
OWN_SHM = "MPQUEUE_FAULTS_OWN_SHM"


def main() -> None:
    args = _arguments()
    if args.page:
        page.write(json.loads(args.into.read_text()))
        return
    if not os.environ.get(OWN_SHM):
        _begin_again_with_own_shm()
    processes.adopt_orphans()
    processes.end_on_signals()
    names = [name for name in args.contender or dialects.BY_NAME if contenders.is_here(name)]
    results = answers.load(args.into, {"cells": {}})
    results["machine"] = machine.describe()
    results["date"] = time.strftime("%Y-%m-%d")
    results["workers"] = args.workers
    for fault in faults.ALL:
        if args.only and fault.name not in args.only:
            continue
        for name in names:
            record = run.play(name, fault, args.workers, args.patience).to_json()
            results["cells"].setdefault(fault.name, {})[name] = record
            verdict, words = judge(fault, record)
            print(f"{fault.name:22} {name:20} {verdict:7} {record['seconds']:6.1f} s  {words}", flush=True)
        answers.save(args.into, results)
    if args.into == RESULTS:
        page.write(results)


def _begin_again_with_own_shm() -> None:
    """Become this program with a /dev/shm of its own, where that is allowed."""
    command = run.small_shm(["true"], "1m")
    try:
        allowed = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        print("warning: no mount namespace here; what others put into /dev/shm meanwhile will be counted too")
        return
    again = run.small_shm([sys.executable, "-m", "benchmarks.faults", *sys.argv[1:]], "50%")
    os.execvpe(again[0], again, {**os.environ, OWN_SHM: "1"})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--only", action="append", choices=faults.BY_NAME, metavar="FAULT", help="can be repeated")
    parser.add_argument("--contender", action="append", choices=dialects.BY_NAME, help="can be repeated")
    parser.add_argument("--workers", type=int, default=2, help="(2)")
    parser.add_argument("--patience", type=float, help="seconds that a batch is waited for (20)")
    parser.add_argument("--into", type=Path, default=RESULTS, help="the file; what it has of other cells stays")
    parser.add_argument("--page", action="store_true", help="only write the page, from the file")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
