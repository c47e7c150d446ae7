"""What is beside the code for those who publish and cite it says what pyproject.toml and the Makefile say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import mpqueue

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_version_is_the_same_everywhere() -> None:
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited
    assert mpqueue.__version__ == PROJECT["version"] == cited[1]


def test_the_matrix_is_that_of_the_classifiers() -> None:
    script = [sys.executable, str(ROOT / ".ci" / "python-versions")]
    versions = json.loads(subprocess.run(script, capture_output=True, text=True, check=True).stdout)
    assert [f"Programming Language :: Python :: {version}" for version in versions] == [
        one for one in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", one)
    ]
    assert PROJECT["requires-python"] == f">={versions[0]}"


def test_a_workflow_runs_what_a_person_can_run() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    runs = [line for path in WORKFLOWS for line in re.findall(r"run: (.+)", path.read_text())]
    called = [re.match(r"make ([a-z-]+)", run) for run in runs]
    assert len(runs) > 5
    for run, make in zip(runs, called, strict=True):
        assert make[1] in targets if make else re.match(r'\.ci/run$|echo "pythons=\$\(\.ci/|test -e', run), run
