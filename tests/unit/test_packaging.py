"""What is beside the code for those who publish and cite it says what pyproject.toml and the Makefile say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_in_ci_a_python_of_the_classifiers_that_is_not_to_be_had_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('classifiers = ["Programming Language :: Python :: 3.99"]')
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / ".ci" / "in-debian").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    done = subprocess.run(
        [tmp_path / ".ci" / "test-others"],
        cwd=tmp_path,
        env=os.environ | {"CI": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Python 3.99: not on this machine" in done.stderr
    assert "===" not in done.stdout  # nothing was tested


def test_a_workflow_runs_what_a_person_can_run() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    runs = [line for path in WORKFLOWS for line in re.findall(r"run: (.+)", path.read_text())]
    called = [re.match(r"make ([a-z-]+)", run) for run in runs]
    assert len(runs) > 5
    for run, make in zip(runs, called, strict=True):
        assert make[1] in targets if make else re.match(r'\.ci/run$|echo "pythons=\$\(\.ci/|test -e', run), run
