"""Programs of their own: scripts that tests write, run and watch from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.this_system import IS_WINDOWS
from tests.support.waiting import Gate, wait_until

#: Seconds that a program may take; far more than it needs.
PATIENCE = 300.0

#: The return code of a program that was killed, and of one whose KeyboardInterrupt Python has shown.
WAS_KILLED, INTERRUPTED = (9, 0xC000013A) if IS_WINDOWS else (-9, -2)

#: For `subprocess.Popen`: Ctrl-C reaches the program and what it starts, and not the tests. A session of its own, on
#: Windows a console of its own, which has no window.
APART: dict[str, Any] = {"creationflags": 0x08000000} if IS_WINDOWS else {"start_new_session": True}

#: A program by itself, since it leaves its own console for that of the process whose number it gets.
_PRESS_CTRL_C = """
import ctypes, sys
kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
kernel32.FreeConsole()
ignored = kernel32.AttachConsole(int(sys.argv[1])) and kernel32.SetConsoleCtrlHandler(None, True)
if not ignored or not kernel32.GenerateConsoleCtrlEvent(0, 0):
    raise ctypes.WinError(ctypes.get_last_error())
"""


def press_ctrl_c(program: subprocess.Popen[Any]) -> None:
    """As a person does: all get it that are in the program's session, on Windows all that share its console.

    The program was started `APART`, and has begun to run.
    """
    if IS_WINDOWS:
        subprocess.run([sys.executable, "-c", _PRESS_CTRL_C, str(program.pid)], check=True)
    else:
        os.killpg(program.pid, signal.SIGINT)


def write_program(folder: Path, body: str, name: str = "program.py") -> Path:
    """Write a script; ``body`` may be indented as a whole."""
    path = folder / name
    path.write_text(textwrap.dedent(body), encoding="utf-8")
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


def run_in_way(folder: Path, body: str, way: str) -> subprocess.CompletedProcess[str]:
    """Run a script in one of the ways in which Python runs one; it exits with 0 and writes nothing to stderr."""
    package = folder / "package"
    package.mkdir()
    for path in (folder / "program.py", package / "__main__.py", package / "module.py"):
        write_program(path.parent, body, path.name)
    text = textwrap.dedent(body)
    arguments = {
        "script": ["program.py"],
        "-m module": ["-m", "program"],
        "-m package.module": ["-m", "package.module"],
        "-c": ["-c", text],
        "stdin": ["-"],
        "-m package": ["-m", "package"],
        "folder": ["package"],
    }[way]
    done = subprocess.run(
        [sys.executable, *arguments],
        input=text if way == "stdin" else "",
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done


def run_until_not_killed(
    run: Callable[[], subprocess.CompletedProcess[str]], most: int = 10
) -> tuple[int, subprocess.CompletedProcess[str]]:
    """How often a program was killed until it was not, and how it ended then."""
    for ends in range(most):
        done = run()
        if done.returncode != WAS_KILLED:
            return ends, done
    raise AssertionError(f"killed {most} times")


#: How a program that is to be interrupted begins: items that `do.announce_pid(gate)` are seen by the test.
_INTERRUPTED = """
import sys
from pathlib import Path
from tests.support import handlers as do
from tests.support.waiting import Gate
gate = Gate(Path(sys.argv[1]))
"""


def interrupt_program(folder: Path, body: str, running: int) -> subprocess.CompletedProcess[str]:
    """Run a script and send it Ctrl-C as soon as so many items run; returns once none of them runs any more.

    The script finds ``do`` and ``gate``: it has its items ``do.announce_pid(gate)``.
    """
    gate = Gate(folder / "gate")
    program = start_program(folder, _INTERRUPTED + textwrap.dedent(body), gate.folder)
    try:
        pids = gate.wait_for_count(running)
        press_ctrl_c(program)
        output, errors = program.communicate(timeout=PATIENCE)
    finally:
        program.kill()
        program.wait()
    wait_until(lambda: not any(is_running(int(pid)) for pid in pids), what="the running items to end")
    return subprocess.CompletedProcess(program.args, program.returncode, output, errors)


def start_program(folder: Path, body: str, *arguments: object) -> subprocess.Popen[str]:
    """Write a script and start it, `APART`, its output in pipes."""
    return subprocess.Popen(
        [sys.executable, str(write_program(folder, body)), *map(str, arguments)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **APART,
    )


def is_running(pid: int) -> bool:
    """Whether the process lives; one that is dead and not yet reaped does not."""
    if IS_WINDOWS:
        import psutil

        return bool(psutil.pid_exists(pid))
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"
