"""CPython's own tests, to be run on what stands in for a class of the standard library.

`find` looks for them beside the running Python, whose build may come without; then a neighbour version's do as well.
`run` runs some of them in an interpreter of their own, in which ``test`` is that folder. There this file is a program:

    python -m tests.support.cpython_tests SETUP MODULE CLASSES-WITH [EXCLUDED-METHOD ...]

which calls SETUP (``module:function``), runs the test classes of the module whose name has CLASSES-WITH in it, and
prints what became of each test as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import unittest
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support import startup

ROOT = Path(__file__).parent.parent.parent

#: Why a test of theirs can't be run.
LACKING = "no Python on this machine has come with its own tests of this"


def find(module: str) -> Path | None:
    """A folder ``test`` of some Python that holds ``module``: of this one, or of the version nearest to it."""
    here = Path(sys.base_prefix, "lib")
    neighbours = [here, *Path(sys.base_prefix).parent.glob("*/lib"), Path("/usr/lib"), Path("/usr/local/lib")]
    folders = [folder for lib in neighbours for folder in lib.glob("python3.*/test") if (folder / module).exists()]
    return min(folders, key=_distance, default=None)


def _distance(folder: Path) -> tuple[int, int]:
    minor = int(re.sub(r"\D", "", folder.parent.name.removeprefix("python3.")) or 0)
    return abs(minor - sys.version_info.minor), -minor


def run(
    folder: Path, where: Path, setup: str, module: str, classes: str, excluded: Iterable[str], timeout: float = 900.0
) -> dict[str, str]:
    """Run tests out of ``folder``; returns what is said of each: "ok", "skipped: ...", or the traceback.

    ``where`` is an empty folder for what that needs.
    """
    (where / "test").symlink_to(folder, target_is_directory=True)
    home, function = setup.split(":")
    (where / "sitecustomize.py").write_text(
        f"import os\nif 'MPQUEUE_LANE' not in os.environ:\n    import {home}\n    {home}.{function}()\n"
    )
    path = [os.path.dirname(startup.__file__), str(where), str(ROOT)]  # the first runs the next one's sitecustomize
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.cpython_tests", setup, module, classes, *excluded],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines or not lines[-1].startswith("{"):
        raise AssertionError(f"ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    outcomes: dict[str, str] = json.loads(lines[-1])
    return outcomes


class _Outcomes(unittest.TestResult):
    """What became of each test, by class and method."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, str] = {}

    def stopTest(self, test: unittest.TestCase) -> None:
        self.outcomes.setdefault(_name(test), "ok")
        print(_name(test), self.outcomes[_name(test)].splitlines()[-1], file=sys.stderr, flush=True)
        super().stopTest(test)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self.outcomes[_name(test)] = self._exc_info_to_string(err, test)  # type: ignore[attr-defined]

    addFailure = addError

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self.addError(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.outcomes[_name(test)] = f"skipped: {reason}"


def _name(test: unittest.TestCase) -> str:
    return ".".join(test.id().split(".")[-2:])


def _suite(module: Any, classes: str, excluded: set[str]) -> unittest.TestSuite:
    suite = unittest.TestSuite()
    loader = unittest.TestLoader()
    for name, value in sorted(vars(module).items()):
        if isinstance(value, type) and issubclass(value, unittest.TestCase) and classes in name:
            suite.addTests(
                value(method) for method in loader.getTestCaseNames(value) if f"{name}.{method}" not in excluded
            )
    return suite


def main(setup: str, module_name: str, classes: str, *excluded: str) -> None:
    """Run them and print."""
    from test.support import script_helper  # type: ignore[import-not-found,unused-ignore]

    # Else their own subprocesses ignore PYTHONPATH, by which they find all this.
    script_helper.interpreter_requires_environment = lambda: True
    home, function = setup.split(":")
    getattr(importlib.import_module(home), function)()
    module = importlib.import_module(module_name)
    result = _Outcomes()
    _suite(module, classes, set(excluded)).run(result)
    print("\n" + json.dumps(result.outcomes), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
