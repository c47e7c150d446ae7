"""Workers start wherever they can; where they can't, that is told at once, with the reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import surroundings
from tests.support.programs import PATIENCE, write_program

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

#: What is odd about the program comes first. One worker crashes, so that another one has to be started.
PROGRAM = """
import os, signal, sys
sys.path.insert(0, {root!r})
{before}
import mpqueue
{after}

def work(item):
    if item == 1 and mpqueue.current_item().attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return bytes(item)

def run():
    with mpqueue.JobQueue(2) as queue:
        job = queue.run([0, 1, 2, 100_000], work)
        return [result and len(result) for result in job.results], job.items[0].exception

def told():
    try:
        results, error = run()
    except mpqueue.WorkerStartError as raised:
        results, error = None, raised
    return f"{{results}} {{error}}"

if __name__ == "__main__":
    print({call})
"""

IN_A_POOL = """
import multiprocessing
def in_pool():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(told)
"""
NOWHERE = "sys.executable = ''; sys.exec_prefix = sys.base_exec_prefix = '/nowhere'"
FEW_DESCRIPTORS = """
import resource
free = [os.open(os.devnull, os.O_RDONLY) for _ in range(12 + {engine})]
resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1] + 1, 5000))
for fd in free:
    os.close(fd)
"""


def told(folder: Path, *, before: str = "", after: str = "", call: str = "told()", mounts: str = "") -> str:
    """Run the program, and return what it says."""
    program = write_program(folder, PROGRAM.format(root=str(ROOT), before=before, after=after, call=call))
    command = [sys.executable, str(program)]
    if mounts:
        command = surroundings.inside(mounts, command)
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.stdout, done.stderr
    return done.stdout.strip()


@pytest.mark.long(but=["daemonic", "folder deleted later", "no dev fd"])
@pytest.mark.parametrize(
    "odd",
    [
        {"after": IN_A_POOL, "call": "in_pool()"},
        {"before": "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"},
        {"after": "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"},
        {"before": "sys.executable = None"},
        {"after": "sys.executable = ''"},
        {"before": "del sys.argv"},
        {"mounts": surroundings.NO_DEV_FD},
    ],
    ids=[
        "daemonic",
        "deleted folder",
        "folder deleted later",
        "executable None",
        "executable empty",
        "no argv",
        "no dev fd",
    ],
)
def test_workers_start_and_are_replaced(tmp_path: Path, odd: dict[str, str]) -> None:
    assert told(tmp_path, **odd) == "[b'', 1, 2, 100000] None"


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (
            {"mounts": surroundings.READ_ONLY_SHM, "before": surroundings.MUSL},
            "expected to be allowed to write to /dev/shm",
        ),
        ({"mounts": surroundings.NO_SHM, "before": surroundings.MUSL}, "expected the folder /dev/shm"),
        (
            {"before": NOWHERE},
            "the path of a Python interpreter that this user may run, got ''",
        ),
        ({"after": FEW_DESCRIPTORS.format(engine=8)}, "raise the limit with `ulimit -n 1024`"),
    ],
    ids=["read-only shm", "no shm", "no interpreter", "descriptors"],
)
def test_what_keeps_workers_from_starting_is_told(tmp_path: Path, odd: dict[str, str], reason: str) -> None:
    said = told(tmp_path, **odd)
    assert reason in said
    assert "30 s" not in said
