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
    for file, line in {
        "CITATION.cff": r"^version: (.+)$",
        "conda-recipe/recipe.yaml": r"^  version: (\d.+)$",
        "CHANGELOG.md": r"^## \[(\d.+)\] - \d{4}-\d\d-\d\d$",  # the newest comes first
    }.items():
        said = re.search(line, (ROOT / file).read_text(), re.MULTILINE)
        assert said, file
        assert said[1] == mpqueue.__version__, file
    assert PROJECT["dynamic"] == ["version"]


def test_the_matrix_is_that_of_the_classifiers() -> None:
    printed = subprocess.run(
        [sys.executable, ROOT / ".ci" / "matrix"], capture_output=True, text=True, check=True
    ).stdout
    pythons, systems = (json.loads(line.partition("=")[2]) for line in printed.splitlines()[:2])
    assert [f"Programming Language :: Python :: {python}" for python in pythons] == [
        one for one in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", one)
    ]
    assert printed.splitlines()[2:] == ["each_python<<END", *reversed(pythons), "END"]
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    assert len(systems) == sum(one.startswith("Operating System") for one in PROJECT["classifiers"])


def test_the_recipe_for_conda_needs_what_the_package_needs() -> None:
    recipe = (ROOT / "conda-recipe" / "recipe.yaml").read_text()
    needs = re.findall(r"^    - (.+)$", recipe.partition("  run:\n")[2].partition("\ntests:")[0], re.MULTILINE)
    assert needs == ["python >=${{ python_min }}", *(one.replace(">=", " >=") for one in PROJECT["dependencies"])]
    assert f'python_min: "{PROJECT["requires-python"].removeprefix(">=")}"' in recipe
    assert [f"{name} = {place}" for name, place in PROJECT["scripts"].items()] == re.findall(
        r"entry_points:\n      - (.+)\n", recipe
    )


#: What can be released as 2.0.0.
READY = {
    "mpqueue/__init__.py": '__version__ = "2.0.0"\n',
    "CITATION.cff": "version: 2.0.0\n",
    "CHANGELOG.md": "## [2.0.0] - 2030-01-31\n",
    "pyproject.toml": "[project.urls]\nRepository = 'there'\n",
    "conda-recipe/recipe.yaml": "  version: 2.0.0\n  homepage: there\n  recipe-maintainers: [me]\n",
}


@pytest.mark.parametrize(
    ("file", "part"),
    [
        (None, ""),
        ("mpqueue/__init__.py", "2.0.0"),
        ("CITATION.cff", "2.0.0"),
        ("CHANGELOG.md", " - 2030-01-31"),
        ("pyproject.toml", "Repository"),
        ("conda-recipe/recipe.yaml", "2.0.0"),
        ("conda-recipe/recipe.yaml", "there"),
        ("conda-recipe/recipe.yaml", "recipe-maintainers"),
    ],
)
def test_what_is_not_ready_is_not_released(tmp_path: Path, file: str | None, part: str) -> None:
    for name, text in READY.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace(part, "") if name == file else text)
    (tmp_path / ".ci").mkdir()
    script = shutil.copy(ROOT / ".ci" / "check-release", tmp_path / ".ci")
    done = subprocess.run([sys.executable, script, "2.0.0"], capture_output=True, text=True, check=False)
    assert done.returncode == (1 if file else 0), done.stderr
    assert done.stderr.startswith(f"{file}: expected" if file else ""), done.stderr
    assert done.stderr.count("\n") == bool(file)


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
        assert make[1] in targets if make else re.match(r"\.ci/(run$|matrix >> )", run), run
