"""joblib's own ``test_parallel.py``, rewritten to ask for ``backend="mpqueue"``, and a pytest plugin that runs it.

`rewrite` puts "mpqueue" where the tests name joblib's process backend, and makes it the default backend, as
`mpqueue.joblib_backend.register` and nothing else prepare it. The plugin leaves out tests that name other backends
only. It expects the excluded tests, which are in a file named by the environment, to fail: if one of them passes, that
is an error, and so is a name that no test has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joblib.parallel import BACKENDS, parallel_backend

from mpqueue import joblib_backend
from tests.support.forked_workers import forked_workers
from tests.support.length import IS_LONG

#: Names the file with the exclusions: what their names are, or begin with, and why.
VARIABLE = "MPQUEUE_TEST_EXCLUDED"

#: Tests of what lies below any backend, by how their names begin: in the long form only.
BELOW = {
    "test_no_blas_crash_or_freeze_with_subprocesses": "numpy's libraries in a process that was forked; ours are not",
    "test_parallel_byteorder_corruption": "joblib's pickling of arrays",
    "test_memmap_with_big_offset": "joblib's memory maps",
}

_REGISTER = """\
import joblib.parallel
from mpqueue.joblib_backend import MPQueueBackend, close, register

register()
joblib.parallel.DEFAULT_BACKEND = joblib.parallel.DEFAULT_PROCESS_BACKEND = "mpqueue"

"""
#: How a program that a test starts begins.
_IMPORT = "from joblib import Parallel, delayed"
_WORDS = {
    '"loky"': '"mpqueue"',
    "joblib._parallel_backends.LokyBackend": "MPQueueBackend",
    "LokyBackend": "MPQueueBackend",
    "get_reusable_executor(reuse=True).shutdown()": "close()",  # the workers end, so that new ones see new variables
}


def rewrite(source: str) -> str:
    """The tests, as of a backend by the name of mpqueue."""
    lines = []
    for line in source.splitlines():
        if line.startswith(_IMPORT):
            lines += [line, "import mpqueue.joblib_backend; mpqueue.joblib_backend.register()"]
        elif line.strip() != "LokyBackend,":
            lines.append(line)
    tests = "\n".join(lines)
    for theirs, ours in _WORDS.items():
        tests = tests.replace(theirs, ours)
    return _REGISTER + tests + "\n"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about other backends, and mark what is excluded; in the short form, leave out what repeats."""
    ours = [item for item in items if _is_ours(item)]
    if not IS_LONG:
        ours = _one_of_each(ours)
    config.hook.pytest_deselected(items=[item for item in items if item not in ours])
    items[:] = ours
    for name, reason in json.loads(Path(os.environ[VARIABLE]).read_text()).items():
        excluded = [item for item in items if item.name == name or item.name.startswith(name)]
        if not excluded:
            raise pytest.UsageError(f"an exclusion names no test: {name}")
        for item in excluded:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def _is_ours(item: pytest.Item) -> bool:
    """False for a test that names backends, but not ours, nor None, which is the default and so ours too.

    And for the second half of those that ask everything twice: `parallel_backend` is an older `parallel_config`.
    """
    parameters = _parameters(item)
    if parameters.get("context") is parallel_backend:
        return False
    backends = [value for name, value in parameters.items() if "backend" in name and "n_jobs" not in name]
    return not backends or any(value is None or _is_mpqueue(value) for value in backends)


def _one_of_each(items: list[pytest.Item]) -> list[pytest.Item]:
    """One of the variants that differ neither in backends nor in how results are returned: one with two jobs, if any.

    They ask the same with other numbers of jobs, sizes of batches and names of variables; and these are expensive: each
    number of jobs has workers of its own.
    """
    found: dict[Any, pytest.Item] = {}
    for item in sorted(items, key=lambda item: _parameters(item).get("n_jobs", 2) != 2):
        told = {name: value for name, value in _parameters(item).items() if "backend" in name or "return_as" in name}
        found.setdefault((getattr(item, "originalname", item.name), repr(told)), item)
    kept = set(map(id, found.values()))
    return [item for item in items if id(item) in kept and not item.name.startswith(tuple(BELOW))]


def _parameters(item: pytest.Item) -> dict[str, Any]:
    return getattr(getattr(item, "callspec", None), "params", {})


def _is_mpqueue(backend: object) -> bool:
    made = BACKENDS.get(backend) if isinstance(backend, str) else type(backend)
    return isinstance(made, type) and issubclass(made, joblib_backend.MPQueueBackend)


#: By how their names begin: those whose workers start the ordinary way. The first are about which variables numpy reads
#: when it is imported; the last takes its functions for those of a script.
ORDINARY = ("test_threadpool_limitation", "test_parallel_with_interactively_defined_functions")


@pytest.fixture(scope="session", autouse=True)
def ordinary_workers() -> Iterator[Any]:
    """Workers are forked from a process that has imported the tests, but ``with ordinary_workers():``."""
    with forked_workers("test_parallel") as ordinary:
        yield ordinary
        joblib_backend.close()


@pytest.fixture(autouse=True)
def _workers(request: pytest.FixtureRequest, ordinary_workers: Any) -> Iterator[None]:
    if not request.node.name.startswith(ORDINARY):
        yield
        return
    joblib_backend.close()
    with ordinary_workers():
        yield
        joblib_backend.close()
