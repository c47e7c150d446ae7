"""The third program of `benchmarks.work`: instructions of the CPU that main thread and coordinator execute for a run.

Callgrind counts them in the threads of this process; the workers are not slowed down, since it does not follow them.
A client request switches the counting on when the queue is warm, and the smallest library makes that request.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

#: Items of a run, and runs that are counted; the figure is their mean.
RUNS = {1: 20, 100: 20, 500_000: 3}
#: Runs before, in which caches fill; and seconds that all of it may take on a busy machine.
WARM, LIMIT = 4, 900
REQUESTS = """
#include <valgrind/callgrind.h>
void start(void) { CALLGRIND_START_INSTRUMENTATION; }
void stop(void) { CALLGRIND_STOP_INSTRUMENTATION; }
"""


def missing() -> str:
    """Why instructions can't be counted here, or nothing."""
    compiler = shutil.which("cc")
    if not shutil.which("valgrind") or not compiler:
        return "instructions are not counted: they want valgrind and cc (apt-get install valgrind gcc libc6-dev)"
    command = [compiler, "-E", "-x", "c", "-"]
    header = subprocess.run(command, input=REQUESTS, capture_output=True, text=True, check=False)
    return "instructions are not counted: cc finds no valgrind/callgrind.h" if header.returncode else ""


def instructions(items: int, folder: Path) -> dict[str, int]:
    """Those of the main thread and of the coordinator, for a run of so many items."""
    tool = ("valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes", "-q")
    program = (sys.executable, __file__, str(folder), str(items))
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    subprocess.run(
        [*tool, f"--callgrind-out-file={folder}/{items}", *program],
        env=environment,
        stderr=subprocess.PIPE,
        timeout=LIMIT,
        check=True,
    )
    totals = {path.name: _total(path) for path in folder.glob(f"{items}-*")}
    main = totals.pop(f"{items}-01")
    # Of the threads beside the main one, the coordinator does nearly all there is to do.
    return {"main": main // RUNS[items], "coordinator": max(totals.values()) // RUNS[items]}


def _total(path: Path) -> int:
    found = re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def no_op(item: int) -> int:
    return item


def under_callgrind(folder: Path, items: int) -> None:
    """The program whose instructions are counted."""
    from mpqueue import JobQueue

    requests = ctypes.CDLL(str(folder / "requests.so"))
    work = list(range(items))
    with JobQueue(concurrency=1) as queue:
        for _ in range(WARM):
            queue.run(work[:100], no_op)
        requests.start()
        for _ in range(RUNS[items]):
            queue.run(work, no_op)
        requests.stop()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / "requests.so")]
        subprocess.run(command, input=REQUESTS, text=True, check=True)
        figures = {
            f"run of {items:,}: {role}": count for items in RUNS for role, count in instructions(items, folder).items()
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        under_callgrind(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
