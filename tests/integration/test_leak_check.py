"""The leak check itself: it finds each kind of thing that a test can leave, and lets a clean test pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PRELUDE = """
import multiprocessing, os, subprocess, tempfile, threading
import loky, pytest
from tests import conftest
from tests.conftest import leaves_nothing_behind, pytest_configure, pytest_unconfigure
conftest.GRACE = 0.3
"""

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


def run_pytest(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run one test with that body, under the leak check, in a pytest of its own."""
    conftest = folder / "conftest.py"
    conftest.write_text(PRELUDE)
    module = folder / "test_one.py"
    module.write_text(f"from conftest import *\n\n\ndef test_one():\n    {body}\n")
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
@pytest.mark.parametrize("what", LEAKS)
def test_whatever_a_test_leaves_fails_it_by_name(what: str, tmp_path: Path) -> None:
    body, named = LEAKS[what]
    done = run_pytest(tmp_path, body)
    left = list(Path("/dev/shm").glob("mpqueue-test-*"))
    for path in left:
        path.unlink()
    assert done.returncode == 1
    assert "the test left something behind" in done.stdout
    assert named in done.stdout


CLEAN = {
    "a process that was waited for": "subprocess.run(['true'])",
    "a thread that ended": "t = threading.Thread(target=int); t.start(); t.join()",
    "a thread that ends within the grace": "threading.Timer(0.1, int).start()",
    "a file that was removed": "tempfile.TemporaryFile().close()",
    "an executor that was shut down": "e = loky.ProcessPoolExecutor(1); e.submit(int).result(); e.shutdown()",
    "an Event that was dropped": "multiprocessing.get_context('spawn').Event()",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", CLEAN)
def test_a_test_that_cleans_up_passes(what: str, tmp_path: Path) -> None:
    done = run_pytest(tmp_path, CLEAN[what])
    assert done.returncode == 0, done.stdout
