"""One cell of the matrix: start the process, do to it what the fault says, watch its end, see what is left, tidy up."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import processes
from benchmarks.machine import ROOT
from benchmarks.matrix.faults import Fault

SHM = Path("/dev/shm")
#: Seconds that a library may take to start its workers.
START = 60.0
#: Seconds beyond a fault's patience that a play may take, with the look at the pool afterwards.
SLACK = 14.0
#: Seconds that closing, and the end of the program, may take.
FAREWELL = 10.0
#: Seconds after which what still runs counts as left behind.
GRACE = 5.0
#: Seconds within which large plays must be done.
LARGE = 60.0


@dataclasses.dataclass(slots=True)
class Record:
    """What happened: the events that the process told of, how it ended, and what it left."""

    events: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    #: None where it had to be killed.
    exitcode: int | None = None
    seconds: float = 0.0
    processes: list[str] = dataclasses.field(default_factory=list)
    shared_memory: list[str] = dataclasses.field(default_factory=list)
    files: list[str] = dataclasses.field(default_factory=list)
    last_line: str = ""
    #: Seconds from the signal to the end of the program; None where there was none.
    ended_after: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For the file of results."""
        return dataclasses.asdict(self)


def play(contender: str, fault: Fault, workers: int, patience: float | None = None) -> Record:
    """One library, one fault. Takes a minute or two at worst, and leaves nothing."""
    if patience is not None:
        fault = dataclasses.replace(fault, patience=patience)
    record = Record()
    names_before = set(os.listdir(SHM))
    with tempfile.TemporaryDirectory(prefix="mf") as scratch:
        folders = {name: Path(scratch) / name for name in ("marks", "tmp", "kept")}
        for folder in folders.values():
            folder.mkdir()
        with open(Path(scratch) / "log", "w+") as log:
            started = time.monotonic()
            process = _start(contender, fault, workers, scratch, log)
            try:
                _watch(process, fault, Path(scratch), record)
                record.seconds = round(time.monotonic() - started, 2)
                record.exitcode = process.poll()
                _note_remains(record, process.pid, names_before, folders["tmp"])
            finally:
                processes.end_all(FAREWELL)
                process.wait()
            log.seek(0)
            lines = [line.strip() for line in log if line.strip()]
            record.last_line = lines[-1][:200] if lines else ""
        _clear_shm(names_before)
    return record


def _start(contender: str, fault: Fault, workers: int, scratch: str, log: Any) -> subprocess.Popen[bytes]:
    order = {
        "contender": contender,
        "fault": fault.name,
        "patience": fault.patience,
        "workers": workers,
        "folder": f"{scratch}/marks",
        "answers": f"{scratch}/answers",
    }
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": f"{scratch}/tmp",
        # where they keep logs and locks, which they mean to leave
        "RAY_TMPDIR": f"{scratch}/kept",
        "DASK_TEMPORARY_DIRECTORY": f"{scratch}/kept",
    }
    command = [sys.executable, "-m", "benchmarks.matrix.child", json.dumps(order)]
    if fault.free_shm is not None:
        command = small_shm(command, "32m")
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def small_shm(command: list[str], size: str) -> list[str]:
    """The command with a /dev/shm of its own, of that size; it is gone with its last process."""
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    return [*unshare, "sh", "-c", mount, "sh", *command]


def _watch(process: subprocess.Popen[bytes], fault: Fault, scratch: Path, record: Record) -> None:
    """Until it ends, or takes too long with what it is at."""
    limit = LARGE if fault.play in ("tiny", "closure") else fault.patience + SLACK
    stage, until = "starting", time.monotonic() + START
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
        record.events = read_events(scratch / "answers")
        seen = {event["event"] for event in record.events}
        if stage == "starting" and "entered" in seen:
            stage, until = "playing", time.monotonic() + limit
            if fault.signal is not None:
                _interrupt(process, fault, scratch / "marks", record)
                break
        elif stage == "playing" and seen & {"left", "afterwards", "cannot", "endless"}:
            stage, until = "leaving", time.monotonic() + FAREWELL
    record.events = read_events(scratch / "answers")


def read_events(path: Path) -> list[dict[str, Any]]:
    """What the process has told so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _interrupt(process: subprocess.Popen[bytes], fault: Fault, marks: Path, record: Record) -> None:
    """Send the signal once items run on all workers, and wait for the end."""
    until = time.monotonic() + 20.0
    while sum(name.startswith("try-") for name in os.listdir(marks)) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)
    started = time.monotonic()
    if fault.signal:
        (os.killpg if fault.to_group else os.kill)(process.pid, signal.Signals(fault.signal))
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(FAREWELL)
        record.ended_after = round(time.monotonic() - started, 2)


def _note_remains(record: Record, pid: int, names_before: set[str], tmp: Path) -> None:
    """What is still there some seconds after the end, the program itself not counted."""

    def left() -> list[psutil.Process]:
        return [process for process in processes.descendants() if process.pid != pid and _lives(process)]

    until = time.monotonic() + GRACE
    while (left() or set(os.listdir(SHM)) - names_before) and time.monotonic() < until:
        time.sleep(0.05)
    record.processes = [_name(process) for process in left()]
    record.shared_memory = sorted(set(os.listdir(SHM)) - names_before)
    record.files = sorted(name for name in os.listdir(tmp))


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:120]
    except psutil.Error:
        return "(gone)"


def _clear_shm(names_before: set[str]) -> None:
    """Remove what was left. Only where this process has a /dev/shm of its own, see `benchmarks.faults`."""
    if not os.environ.get("MPQUEUE_FAULTS_OWN_SHM"):
        return
    for name in set(os.listdir(SHM)) - names_before:
        path = SHM / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
