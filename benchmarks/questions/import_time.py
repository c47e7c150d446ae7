"""What an import costs, in a fresh interpreter: the bare module, and what one has to write to use it."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.case import Case, Measures, Sizes
from benchmarks.contenders import Contender

QUESTION = "How long does the import take?"
#: Imports in a row; the first one may have to compile.
TRIES = 5
ROUNDS = 2
CODE = "import time; started = time.perf_counter(); {}; print(time.perf_counter() - started)"


def cases(sizes: Sizes) -> list[Case]:  # noqa: ARG001
    return [
        Case("import", "import the package", measure=_package, started=False, repeats=1),
        Case("use", "import what is used", measure=_used, started=False, repeats=1),
    ]


def _package(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
    return _best_of(f"import {contender.module}")


def _used(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
    return _best_of(contender.statement)


def _best_of(statement: str) -> Measures:
    taken = [_run(CODE.format(statement)) for _ in range(TRIES)]
    return {"seconds": min(taken), "statement": statement}


def _run(code: str) -> float:
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)
