"""The code in README.md and docs/ runs, and prints what it says it prints.

A block whose first line is ```` ```python ```` is a program: it runs in an interpreter and a folder of its
own. One with ```` ```python no-run ```` does not, nor one with a title, which is a file of a page whose commands run
(`test_docs_commands.py`). A block right after it, with ```` ```text output ````, is what it prints.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpqueue
from mpqueue import Job, JobQueue
from tests import test_docs_commands as commands

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"^(?P<indent> *)```python(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```[ ]*$"
    r"(?:\s*^(?P=indent)```text output[ ]*\n(?P<output>.*?)^(?P=indent)```[ ]*$)?",
    re.MULTILINE | re.DOTALL,
)


def programs(page: Path) -> Iterator[tuple[str, str, str | None]]:
    """Each program of a page: where it stands, its code, and its output where the page gives it."""
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        if "no-run" in match["info"].split() or 'title="' in match["info"]:
            continue
        line = text.count("\n", 0, match.start()) + 1
        indent = match["indent"]
        code = re.sub(f"^{indent}", "", match["code"], flags=re.MULTILINE)
        output = match["output"]
        if output is not None:
            output = re.sub(f"^{indent}", "", output, flags=re.MULTILINE)
        yield f"{page.relative_to(ROOT)}:{line}", code, output


#: Of README.md all programs, of each page the first one; the others, and what people come from, in the long form.
ALL = [
    pytest.param(code, output, id=place, marks=[pytest.mark.long] if is_long else [])
    for page in PAGES
    for at, (place, code, output) in enumerate(programs(page))
    for is_long in [page.parent != ROOT and (at > 0 or page.parent.name == "coming-from")]
]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "output"), ALL)
def test_code_runs_and_prints_what_the_page_says(code: str, output: str | None, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if output is not None:
        assert done.stdout.rstrip() == output.rstrip()


#: What variables of these names are, on all pages.
NAMED = {"job": Job, "queue": JobQueue, "mpqueue": mpqueue}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_uses_only_what_there_is(page: Path) -> None:
    """Also where it does not run, or only each night."""
    for match in _BLOCK.finditer(page.read_text()):
        try:
            tree = ast.parse(textwrap.dedent(match["code"]))
        except SyntaxError:  # a signature
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                of = node.value.func if isinstance(node.value, ast.Call) else node.value  # queue() or queue
                if isinstance(of, ast.Name) and of.id in NAMED:
                    assert hasattr(NAMED[of.id], node.attr), f"{of.id}.{node.attr}"
            elif isinstance(node, ast.ImportFrom) and node.module == "mpqueue":
                for name in node.names:
                    assert hasattr(mpqueue, name.name), name.name


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "adr"], ids=lambda page: page.name)
def test_a_page_begins_with_its_question_and_has_a_program_that_runs(page: Path) -> None:
    _, text = re.split("^# .*$", page.read_text(), maxsplit=1, flags=re.MULTILINE)
    begin = [line for line in text.splitlines() if line and not line.startswith("<!--")][:3]
    assert "?" in " ".join(begin) or page.name in ("README.md", "index.md"), begin
    assert any(programs(page)) or page.name in (*commands.PAGES, *commands.RUN_ELSEWHERE)


def test_blocks_and_their_output_are_found(tmp_path: Path) -> None:
    page = ROOT / "docs" / "page.md"
    fence = "```"
    text = f"{fence}python\nprint(1)\n{fence}\n\n{fence}text output\n1\n{fence}\n{fence}python no-run\nno\n{fence}\n"
    blocks = [(match["info"], match["code"], match["output"]) for match in _BLOCK.finditer(text)]
    assert blocks == [("", "print(1)\n", "1\n"), (" no-run", "no\n", None)]
    assert page.parent.is_dir()
