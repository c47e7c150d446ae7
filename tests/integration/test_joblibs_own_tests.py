"""joblib's own tests of process backends, asked of ``backend="mpqueue"`` as `register` makes it, with its defaults.

joblib's ``test_parallel.py`` runs as a whole, with "mpqueue" where it says "loky", and as the default backend. So each
test runs that names a process backend, that loops over all backends, or that names none; those that come in two
variants, for `parallel_config` and for the older `parallel_backend`, only in the first. At each commit, of variants
with other numbers of jobs and the like one runs; ``make test-long`` runs all.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import joblibs_own_tests, leaks

#: The tests that can't pass, by how their names begin, and why. Each must exist, and fail.
EXCLUDED = {
    "test_nested_parallel_warnings[mpqueue-multiprocessing": "workers here may have pools, so nothing warns of it",
    "test_nested_parallel_warnings[threading-mpqueue": "ours may be used on any thread, so nothing warns of it",
    "test_auto_memmap_on_arrays_from_generator": "wants a memmap: large arrays are in shared memory here, plain to see",
    "test_memmapping_leaks": "looks for joblib's own memory mapped files",
    "test_multiple_generator_call_separated_gc": (
        "wants the second of two calls to fail: each has a stream of its own here"
    ),
    "test_nested_parallelism_limit": "makes the name of the class out of the backend's: MpqueueBackend",
}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_joblibs_own_tests_pass(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("joblib.test.test_parallel")
    if spec is None or spec.origin is None:
        pytest.skip("this joblib comes without its tests")
    (tmp_path / "test_parallel.py").write_text(joblibs_own_tests.rewrite(Path(spec.origin).read_text()))
    (tmp_path / "excluded.json").write_text(json.dumps(EXCLUDED))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-c", "pytest.ini", "--rootdir", ".", "-p", "no:cacheprovider", "--disable-plugin-autoload"]
    options.append("--tb=native")  # else pytest parses sources, which in Python 3.11 is not safe beside other threads
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, "-p", joblibs_own_tests.__name__, "test_parallel.py"],
        cwd=tmp_path,
        env={
            # They compare with the number of threads that numpy takes in a program that nobody has limited.
            **{name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")},
            joblibs_own_tests.VARIABLE: str(tmp_path / "excluded.json"),
            "JOBLIB_TEMP_FOLDER": str(tmp_path),  # its own workers, in ours, don't tidy up when killed
        },
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    _remove_semaphores_of_the_dead()
    assert done.returncode == 0, done.stdout[-10000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def _remove_semaphores_of_the_dead() -> None:
    """Some of these tests start joblib's own workers in ours; killed together, they can't take their names away."""
    for path in Path("/dev/shm").glob("sem.loky-*"):
        if leaks.is_ours(str(path)) and not Path("/proc", path.name.split("-")[1]).exists():
            path.unlink(missing_ok=True)
