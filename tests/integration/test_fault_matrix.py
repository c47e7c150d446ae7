"""The script of the fault matrix plays faults, and tells who loses something from who does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import PATIENCE

pytest.importorskip("psutil")

from benchmarks.matrix import faults, page
from benchmarks.matrix.verdict import Verdict, judge

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.long
def test_script_tells_who_delivers_what(tmp_path: Path) -> None:
    into = tmp_path / "faults.json"
    names = ("raises", "os-exit", "bad-function")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.faults", "--into", into, "--patience", "4"),
            *(word for name in names for word in ("--only", name)),
            *("--contender", "mpqueue", "--contender", "multiprocessing"),
        ],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(into.read_text())
    told = {
        (name, library): judge(faults.BY_NAME[name], record)
        for name, row in results["cells"].items()
        for library, record in row.items()
    }
    assert {told[name, "mpqueue"] for name in names} == {(Verdict.GOOD, "")}, told
    assert told["raises", "multiprocessing"] == (Verdict.GOOD, "")
    assert told["os-exit", "multiprocessing"] == (Verdict.PARTLY, "no error for the item at fault")
    assert told["bad-function", "multiprocessing"] == (Verdict.GOOD, "")
    text = "\n".join(page.lines(results))
    assert "| `os._exit(7)` | ✔ | ◐<br><small>no error for the item at fault</small> |" in text
