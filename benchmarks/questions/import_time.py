"""What an import costs, in a fresh interpreter: the bare module, and what one has to write to use it."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.case import Case, Measures, Sizes
from benchmarks.contenders import Contender

QUESTION = "How long does the import take?"
ROUNDS = 2
CODE = "import time; started = time.perf_counter(); {}; print(time.perf_counter() - started)"


def cases(sizes: Sizes) -> list[Case]:  # noqa: ARG001
    # Five in a row; the first one may have to compile.
    return [
        Case("import", "import the package", measure=_package, started=False, repeats=5),
        Case("use", "import what is used", measure=_used, started=False, repeats=5),
    ]


def _package(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
    return _timed(f"import {contender.module}")


def _used(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
    return _timed(contender.statement)


def _timed(statement: str) -> Measures:
    return {"seconds": _run(CODE.format(statement)), "statement": statement}


def _run(code: str) -> float:
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)
