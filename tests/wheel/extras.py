"""What an installed wheel says of extras: a use that needs one is refused with what to install, and is there with it.

Run by `.ci/test-wheel` only, hence its name: once without extras, and once with all of them, or with each alone.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from mpqueue import Job, JobQueue, sinks

#: A use that needs an extra, and the extra. Each raises what it is refused with.
USES: dict[str, Callable[[], object]] = {
    "dashboard": lambda: JobQueue(1).serve().close(),
    "dask": lambda: importlib.import_module("mpqueue.backends").DaskBackend,
    "joblib": lambda: importlib.import_module("mpqueue.joblib_backend").register(),
    "otel": lambda: importlib.import_module("mpqueue.otel"),
    "pandas": lambda: importlib.import_module("mpqueue.pandas"),
    "ray": lambda: importlib.import_module("mpqueue.backends").RayBackend,
}
#: Another use of one of them.
MORE_USES: list[tuple[str, Callable[[], object]]] = [
    ("dashboard", lambda: run_mpqueue("run", "os.path:getsize", __file__, "--dashboard")),
    ("dashboard", lambda: run_mpqueue("dashboard", __file__)),
]
#: What needs a package that is no extra, since a program that uses it has it, and the package.
PACKAGES: list[tuple[str, Callable[[], object]]] = [
    ("pandas", lambda: a_job().to_pandas()),
    ("polars", lambda: a_job().to_polars()),
    ("pyarrow", lambda: a_job().export("results.parquet")),
    ("pyarrow", lambda: sinks.parquet("rows.parquet")),
    ("pyarrow", lambda: run_mpqueue("run", "os.path:getsize", __file__, "-o", "sizes.parquet")),
]
#: Extras without which nothing is refused: examples, and what developing needs.
BESIDE = {
    *("completion", "examples", "examples-search", "examples-ocr", "examples-torch"),
    *("test-core", "test", "docs", "bench", "dev"),
}


def a_job() -> Job:
    with JobQueue(1) as queue:
        return queue.run([-1], abs)


def run_mpqueue(*arguments: str) -> str:
    """What the installed command prints; raises with what it says where it fails."""
    command = [str(Path(sys.executable).with_name("mpqueue")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


@pytest.mark.parametrize(("extra", "use"), [*USES.items(), *MORE_USES])
def test_without_an_extra_what_needs_it_names_it(extra: str, use: Callable[[], object]) -> None:
    with pytest.raises((ImportError, RuntimeError, RuntimeWarning), match=rf"pip install 'mpqueue\[{extra}\]'"):
        use()


@pytest.mark.parametrize(("package", "use"), PACKAGES)
def test_without_a_package_what_needs_it_names_it(package: str, use: Callable[[], object]) -> None:
    with pytest.raises((ImportError, RuntimeError), match=f"needs {package}, .*`pip install {package}`"):
        use()


def test_each_extra_is_asked_for() -> None:
    assert set(metadata.metadata("mpqueue").get_all("Provides-Extra") or ()) == BESIDE | set(USES)


def test_each_place_that_names_an_extra_is_tried() -> None:
    package = Path(importlib.import_module("mpqueue").__file__ or "").parent
    places = [line for path in package.rglob("*.py") for line in path.read_text().splitlines() if "pip install" in line]
    # One line is for both engines, one is for pandas, polars and pyarrow, and one is of `mpqueue dashboard`.
    assert len(places) == len(USES) - 1 + 1 + 1, places


@pytest.mark.parametrize("extra", USES)
def test_with_an_extra_it_is_there(extra: str) -> None:
    """In the long form where that extra alone is installed."""
    USES[extra]()
