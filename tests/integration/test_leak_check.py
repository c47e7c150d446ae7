"""The leak check itself: it finds each kind of thing that a test can leave, and lets a clean test pass."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.programs import is_running
from tests.support.waiting import wait_until

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


#: Makes a name of each kind in /dev/shm, writes them to a file, and stays or dies together with its resource trackers.
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
    file.write(f"{os.getpid()} {' '.join(made)}")
if sys.argv[1:] == ["dies"]:
    os.killpg(0, signal.SIGKILL)
elif sys.argv[1:] == ["stays"]:
    print("here", flush=True)
    signal.pause()
"""

#: Who runs it: the test itself, a program that it starts, or one with another parent and another environment, or none.
ITSELF = "exec(open('names.py').read(), globals())"
OURS = "start([sys.executable, 'names.py', {end!r}], start_new_session=True)"
A_STRANGER = "start(['env', *{strange!r}, 'setsid', '--fork', sys.executable, 'names.py', {end!r}]).wait()"
STRANGE = {"no environment": ["-i"], "its own environment": ["-u", leaks.COOKIE, "-u", "PYTHONPATH", "-u", "TMPDIR"]}


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


@pytest.mark.slow
def test_whatever_a_test_leaves_fails_it_by_name(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, *(body for body, _ in LEAKS.values()))
    for path in Path("/dev/shm").glob("mpqueue-test-*"):
        path.unlink()
    assert done.returncode == 1
    for at, (what, (_, named)) in enumerate(LEAKS.items()):
        told = re.search(rf"(?ms)^_+ ERROR at teardown of test_{at} _+\n(.*?)(?=^_+ ERROR |^=)", done.stdout)
        assert told, f"{what} was not found:\n{done.stdout}"
        assert "the test left something behind" in told[1]
        assert named in told[1], what


@contextlib.contextmanager
def run_with_names(folder: Path, body: str) -> Iterator[tuple[subprocess.CompletedProcess[str], list[str]]]:
    """What the check says of a test with that body, which runs ``names.py``, and the names that this has made."""
    (folder / "names.py").write_text(NAMES)
    done = run_pytest(folder, body)
    pid, *made = (folder / "made").read_text().split()
    try:
        yield done, [f"/dev/shm/{name}" for name in made]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: not is_running(int(pid)), what="the program's end")
        for path in (Path("/dev/shm", name) for name in made):
            with contextlib.suppress(FileNotFoundError):
                path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.long(but=["by a program that was killed"])
@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [ITSELF, OURS.format(end="stays"), OURS.format(end="dies")],
    ids=["by the test itself", "by a program", "by a program that was killed"],
)
def test_names_that_our_processes_leave_in_shared_memory_are_found(body: str, tmp_path: Path) -> None:
    with run_with_names(tmp_path, body) as (done, made):
        assert done.returncode == 1
        assert len(made) == KINDS
        assert [path for path in made if path not in done.stdout] == [], done.stdout


@pytest.mark.long(but=["its own environment-dies"])
@pytest.mark.slow
@pytest.mark.parametrize("end", ["stays", "dies"])
@pytest.mark.parametrize("strange", STRANGE)
def test_what_another_program_does_meanwhile_is_not_reported(strange: str, end: str, tmp_path: Path) -> None:
    with run_with_names(tmp_path, A_STRANGER.format(strange=STRANGE[strange], end=end)) as (done, made):
        assert [path for path in made if os.path.exists(path)] == made
        assert len(made) == KINDS
        assert done.returncode == 0, done.stdout


CLEAN = {
    "a process that was waited for": "subprocess.run(['true'])",
    "a thread that ended": "t = threading.Thread(target=int); t.start(); t.join()",
    "a thread that ends within the grace": "threading.Timer(0.1, int).start()",
    "a file that was removed": "tempfile.TemporaryFile().close()",
    "an executor that was shut down": "e = loky.ProcessPoolExecutor(1); e.submit(int).result(); e.shutdown()",
    "an Event that was dropped": "multiprocessing.get_context('spawn').Event()",
}


@pytest.mark.slow
def test_a_test_that_cleans_up_passes(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, *CLEAN.values())
    assert done.returncode == 0, done.stdout
    assert f"{len(CLEAN)} passed" in done.stdout


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


@pytest.mark.slow
def test_what_a_test_leaves_in_a_household_is_not_laid_to_the_one_in_which_it_is_orphaned(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, ORPHANED.strip(), ITS_PARENT_ENDS.strip(), "[os.kill(pid, 9) for pid in left]")
    assert "3 passed" in done.stdout, done.stdout
