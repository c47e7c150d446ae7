"""The leak check itself: it finds each kind of thing that a test can leave, and lets a clean test pass."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leaks

PRELUDE = '''
import multiprocessing, os, subprocess, sys, tempfile, threading
import loky, pytest
from tests import conftest
from tests.conftest import leaves_nothing_behind, pytest_configure, pytest_unconfigure
conftest.GRACE = 0.3

def start(command, **options):
    """Start a program, and wait until it has written a line or has ended."""
    program = subprocess.Popen(command, stdout=subprocess.PIPE, **options)
    with program.stdout as output:
        output.readline() or program.wait()
    return program
'''

LEAKS = {
    "a child process": ("subprocess.Popen(['sleep', '60'])", "sleep 60"),
    "a process in a session of its own": ("subprocess.Popen(['sleep', '61'], start_new_session=True)", "sleep 61"),
    "a process that lost its parent": ("subprocess.run('setsid sleep 62 &', shell=True)", "sleep 62"),
    "a worker of ours": (
        "subprocess.run('sleep 63 &', shell=True, env={'MPQUEUE_LANE': f'{os.getpid()}-0-1'})",
        "sleep 63",
    ),
    "a thread": ("threading.Thread(target=threading.Event().wait, daemon=True, name='stays').start()", "'stays'"),
    "a shared segment": ("open(f'/dev/shm/mpqueue-test-{os.getpid()}', 'wb').close()", "/dev/shm/mpqueue-test-"),
    "a temporary file": ("os.close(tempfile.mkstemp(prefix='stays-')[0])", "/stays-"),
    "a descriptor": ("os.dup(1)", "descriptor"),
}


#: Makes a name of each kind in /dev/shm, writes them to a file, and dies together with its resource trackers.
KINDS = 6
NAMES = """
import multiprocessing, os, signal, sys, tempfile
from multiprocessing import shared_memory
from loky.backend.context import get_context

kept = [get_context("loky").Lock(), multiprocessing.get_context("spawn").Lock()]
made = ["sem." + lock._semlock.name[1:] for lock in kept]
kept.append(shared_memory.SharedMemory(create=True, size=1))
made.append(kept[-1].name)
closed = shared_memory.SharedMemory(create=True, size=1)
closed.close()
made.append(closed.name)
file, path = tempfile.mkstemp(dir="/dev/shm")
os.close(file)
made += [os.path.basename(path), os.path.basename(tempfile.mkdtemp(dir="/dev/shm"))]
with open("made", "w") as file:
    file.write(' '.join(made))
os.killpg(0, signal.SIGKILL)
"""

#: Who runs it: a program that the test starts, or one with another parent and another environment.
OURS = "start([sys.executable, 'names.py'], start_new_session=True)"
STRANGE = ["-u", leaks.COOKIE, "-u", "PYTHONPATH", "-u", "TMPDIR"]
A_STRANGERS = f"start(['env', *{STRANGE!r}, 'setsid', '--fork', sys.executable, 'names.py']).wait()"


def run_pytest(folder: Path, *bodies: str) -> subprocess.CompletedProcess[str]:
    """Run a test for each body, under the leak check, in a pytest of their own."""
    conftest = folder / "conftest.py"
    conftest.write_text(PRELUDE)
    module = folder / "test_one.py"
    tests = [f"\n\ndef test_{at}():\n    {body}\n" for at, body in enumerate(bodies)]
    module.write_text("from conftest import *\n" + "".join(tests))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir",
        str(folder),
    ]
    return subprocess.run([*command, str(module)], cwd=folder, capture_output=True, text=True, check=False)


CLEAN = {
    "a process that was waited for": "subprocess.run(['true'])",
    "a thread that ended": "t = threading.Thread(target=int); t.start(); t.join()",
    "a thread that ends within the grace": "threading.Timer(0.1, int).start()",
    "a file that was removed": "tempfile.TemporaryFile().close()",
    "an executor that was shut down": "e = loky.ProcessPoolExecutor(1); e.submit(int).result(); e.shutdown()",
    "an Event that was dropped": "multiprocessing.get_context('spawn').Event()",
}


#: A household's process loses its parent between one test and the next: nobody's fault.
ORPHANED = """
    from tests.support import leaks
    global household
    household = subprocess.Popen(["sh", "-c", "sleep 64 & wait"])
    leaks.not_ours.add(household.pid)
    while len(list(leaks.descendants(household.pid))) < 1:
        pass
"""
ITS_PARENT_ENDS = """
    from tests.support import leaks
    orphans = list(leaks.descendants(household.pid))
    household.kill()
    household.wait()
    leaks.not_ours.discard(household.pid)
    global left
    left = orphans
"""


@contextlib.contextmanager
def names_made(folder: Path) -> Iterator[list[Path]]:
    """The names in /dev/shm that the program there makes meanwhile."""
    (folder / "names.py").write_text(NAMES)
    paths: list[Path] = []
    try:
        yield paths
        paths += [Path("/dev/shm", name) for name in (folder / "made").read_text().split()]
        assert len(paths) == KINDS
        assert all(path.exists() for path in paths)
    finally:
        for path in (*paths, *Path("/dev/shm").glob("mpqueue-test-*")):
            with contextlib.suppress(FileNotFoundError):
                path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.slow
def test_whatever_a_test_leaves_fails_it_by_name(tmp_path: Path) -> None:
    with names_made(tmp_path) as paths:
        done = run_pytest(tmp_path, *(body for body, _ in LEAKS.values()), OURS)
    assert done.returncode == 1
    told = re.findall(r"(?ms)^_+ ERROR at teardown of test_\d+ _+\n(.*?)(?=^_+ ERROR |^=)", done.stdout)
    assert len(told) == len(LEAKS) + 1, done.stdout
    for text, (what, (_, named)) in zip(told, LEAKS.items(), strict=False):
        assert "the test left something behind" in text
        assert named in text, what
    assert all(str(path) in told[-1] for path in paths), told[-1]


@pytest.mark.slow
def test_a_test_that_cleans_up_passes_and_none_is_blamed_for_what_others_leave(tmp_path: Path) -> None:
    """Others are a household whose parent ends, and a program with another environment."""
    others = (ORPHANED.strip(), ITS_PARENT_ENDS.strip(), "[os.kill(pid, 9) for pid in left]", A_STRANGERS)
    with names_made(tmp_path):
        done = run_pytest(tmp_path, *CLEAN.values(), *others)
    assert done.returncode == 0, done.stdout
    assert f"{len(CLEAN) + len(others)} passed" in done.stdout
