"""Workers start, and are replaced, whatever has become of the program's standard streams."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import PATIENCE, write_program
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

#: Two workers crash, at first, in two ways; the others end well. Text waits in both streams to be flushed by a start.
PROGRAM = """
import contextlib, ctypes, json, os, signal, sys
import mpqueue

if sys.stdout is not None and sys.stderr is not None:
    sys.stdout, sys.stderr = (open(fd, "w", buffering=10000, closefd=False) for fd in (1, 2))
    sys.stdout.write("kept back")
    sys.stderr.write("kept back")
{prepare}

def work(item):
    if {talks}:
        with contextlib.suppress(OSError):
            print("from a worker", flush=True)
        for fd in (1, 2):
            with contextlib.suppress(OSError):
                os.write(fd, b"from a worker")
    if mpqueue.current_item().attempt == 1 and item == 1:
        ctypes.string_at(0)
    if mpqueue.current_item().attempt == 1 and item == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return item

with mpqueue.JobQueue(2) as queue:
    for fd in (1, 2) if {talks} else ():
        with contextlib.suppress(OSError):
            os.write(fd, b"from the program")
    found = queue.run(range(6), work).results
with open(sys.argv[1] + ".part", "w") as file:
    json.dump(found, file)
os.rename(sys.argv[1] + ".part", sys.argv[1])
"""

WITHOUT_FLUSH = """
class Log:
    def write(self, text):
        return len(text)
sys.stdout = sys.stderr = Log()
"""


def check(
    folder: Path, command: list[str], prepare: str = "", *, talks: bool = True, output: int = subprocess.DEVNULL
) -> None:
    """Run the program until it has written down its results."""
    path = folder / "results.json"
    program = write_program(folder, PROGRAM.format(prepare=prepare, talks=talks))
    process = subprocess.Popen(
        [*command, sys.executable, str(program), str(path)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
    )
    try:
        wait_until(lambda: path.exists() or process.poll() is not None, what="the program's results", timeout=PATIENCE)
        assert json.loads(path.read_text()) == list(range(6))
    finally:
        # It may never end by itself, with a stream that nobody reads.
        process.kill()
        process.wait()


def test_workers_are_replaced_where_the_streams_take_nothing(tmp_path: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        check(tmp_path, [], output=full.fileno())


@pytest.mark.long
def test_workers_are_replaced_where_nobody_reads_the_streams(tmp_path: Path) -> None:
    read, write = os.pipe()
    try:
        os.write(write, bytes(fcntl.fcntl(write, fcntl.F_GETPIPE_SZ)))
        check(tmp_path, [], talks=False, output=write)
    finally:
        os.close(write)
        os.close(read)


@pytest.mark.long(but=["closed descriptors"])
@pytest.mark.parametrize(
    "prepare",
    [WITHOUT_FLUSH, "sys.stdin = sys.stdout = sys.stderr = None", "os.close(0), os.close(1), os.close(2)"],
    ids=["without flush", "None", "closed descriptors"],
)
def test_workers_are_replaced_where_the_streams_are_something_else(tmp_path: Path, prepare: str) -> None:
    check(tmp_path, [], prepare)


def test_workers_are_replaced_where_the_program_was_started_without_streams(tmp_path: Path) -> None:
    check(tmp_path, ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"])
