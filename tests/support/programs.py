"""Programs of their own: scripts that tests write, run and watch from outside."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

#: Seconds that a program may take; far more than it needs.
PATIENCE = 60.0


def write_program(folder: Path, body: str, name: str = "program.py") -> Path:
    """Write a script; ``body`` may be indented as a whole."""
    path = folder / name
    path.write_text(textwrap.dedent(body))
    return path


def run_program(
    folder: Path, body: str, *arguments: object, check: bool = True, timeout: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Write a script and run it to its end; with ``check`` it has to end with 0."""
    done = subprocess.run(
        [sys.executable, str(write_program(folder, body)), *map(str, arguments)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def start_program(folder: Path, body: str, *arguments: object) -> subprocess.Popen[str]:
    """Write a script and start it, in a session of its own, its output in pipes."""
    return subprocess.Popen(
        [sys.executable, str(write_program(folder, body)), *map(str, arguments)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def is_running(pid: int) -> bool:
    """Whether the process lives; one that is dead and not yet reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


def descends_from(pid: int) -> list[int]:
    """The living children of a process, and theirs."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # of a process or a thread that ends just now
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                    found += [int(child), *descends_from(int(child))]
    return found
