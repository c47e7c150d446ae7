"""Do the fast tests notice a change that makes the code wrong? Small changes at random places, one at a time.

``python -m tests.support.mutants --count 300 --seed 1`` (`make mutants`) makes a copy of the project, runs the fast
tests once to see which of them reach which line, and then, for each mutant, the tests that reach its line, the
quickest first, until one fails. A mutant that none of them notices lives, and shows where a test asserts nothing. One
that makes the tests hang has been noticed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parent.parent.parent
#: The code that is changed, and the tests that should notice.
ROOMS = ("mpqueue/_core", "mpqueue/_parent/journal", "mpqueue/_wire")
FAST = ("tests/unit", "tests/simulation", "tests/contract", "tests/integration")
#: Seconds for the tests of one mutant, and how many of those that reach its line are run.
LIMIT, MOST_TESTS = 120, 150

_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """One change: the source of a file from one place to another becomes something else."""

    path: str
    line: int
    start: int  #: in bytes
    end: int
    text: str

    def applied(self, source: bytes) -> bytes:
        """The file with the change."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def told(self, source: bytes) -> str:
        """One line for people."""
        before = " ".join(source[self.start : self.end].decode().split())
        return f"{self.path}:{self.line}: {before}  ->  {' '.join(self.text.split())}"


def mutants_of(path: Path) -> Iterator[Mutant]:
    """All small changes of a file. Docstrings, annotations, messages and what only type checkers read stay."""
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in _code(ast.parse(source)):
        for changed in _changes(node):
            assert isinstance(node, ast.expr | ast.stmt)
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            text = ast.unparse(changed)
            text = f"({text})" if isinstance(node, ast.expr) else text
            yield Mutant(path.relative_to(ROOT).as_posix(), node.lineno, start, end, text)


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that do something while a function runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise | ast.Assert | ast.arguments | ast.AnnAssign | ast.Import | ast.ImportFrom):
            continue
        if isinstance(child, ast.FunctionDef) and child.name in {"__repr__", "__str__"}:
            continue
        if isinstance(child, ast.JoinedStr | ast.Global | ast.Nonlocal):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in child.body:
                yield from _inside(statement)
        elif isinstance(child, ast.ClassDef | ast.If):
            yield from _code(child)


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield from _code(ast.Module(body=[node], type_ignores=[]))
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "type_comment"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _inside(child)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in _SWAPPED:
            yield _with(node, ops=[_SWAPPED[type(op)]()])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) if type(op) in _SWAPPED:
            yield _with(node, op=_SWAPPED[type(op)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)
        case ast.Return(value=ast.expr()) if ast.unparse(node) != "return None":
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Delete():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.IfExp(test=test):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


# --- tests ------------------------------------------------------------------------------------------------------------


class Trees:
    """Copies of the project, each for one mutant at a time."""

    def __init__(self, folder: Path, count: int) -> None:
        self._free: SimpleQueue[Path] = SimpleQueue()
        for number in range(count):
            tree = folder / f"tree-{number}"
            for name in ("mpqueue", "tests", "benchmarks", "examples", "docs"):
                shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
            shutil.copytree(ROOT / "benchmarks" / "results", tree / "benchmarks" / "results")
            for path in ROOT.iterdir():
                if path.is_file():
                    shutil.copy(path, tree)
            self._free.put(tree)

    def take(self) -> Path:
        """One that nobody uses."""
        return self._free.get()

    def give_back(self, tree: Path) -> None:
        """It is as it was."""
        self._free.put(tree)


def pytest(tree: Path, *arguments: str, limit: float | None = None) -> bool | None:
    """Whether the tests pass there; None if they take too long."""
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            return process.wait(limit) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            return None


def tests_by_line(tree: Path) -> dict[tuple[str, int], list[str]]:
    """For each line of the rooms: the fast tests that reach it in this process, the quickest first."""
    from coverage import CoverageData  # only where it is asked for

    config = tree / "mutants.coveragerc"
    config.write_text(
        f"[run]\ndynamic_context = test_function\ninclude = {','.join(f'{room}/*' for room in ROOMS)}\n"
        f"data_file = {tree / 'mutants.coverage'}\n"
    )
    report = tree / "durations.xml"
    options = ("-q", "-m", "not slow", "-p", "no:cacheprovider", "--timeout=0", f"--junitxml={report}")
    arguments = ("coverage", "run", f"--rcfile={config}", "-m", "pytest", *options, *FAST)
    if not pytest(tree, *arguments):
        sys.exit("the fast tests fail before anything was changed")
    seconds: dict[str, float] = {}
    names: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        module, name = case.attrib["classname"], case.attrib["name"].partition("[")[0]
        context = f"{module}.{name}"
        seconds[context] = seconds.get(context, 0.0) + float(case.attrib["time"])
        names[context] = f"{module.replace('.', '/')}.py::{name}"
    data = CoverageData(str(tree / "mutants.coverage"))
    data.read()
    found: dict[tuple[str, int], list[str]] = {}
    for file in data.measured_files():
        path = Path(file).relative_to(tree).as_posix()
        for line, contexts in data.contexts_by_lineno(file).items():
            known = sorted((one for one in contexts if one in names), key=lambda one: seconds[one])
            found[path, line] = [names[one] for one in known]
    return found


def lives(mutant: Mutant, trees: Trees, tests: list[str]) -> bool:
    """Whether none of these tests notices it."""
    tree = trees.take()
    path = tree / mutant.path
    source = path.read_bytes()
    try:
        path.write_bytes(mutant.applied(source))
        options = ("pytest", "-x", "-q", "-p", "no:cacheprovider", "--timeout=60")
        return bool(tests) and pytest(tree, *options, *tests[:MOST_TESTS], limit=LIMIT) is True
    finally:
        path.write_bytes(source)
        trees.give_back(tree)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    mutants = [one for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) for one in mutants_of(path)]
    chosen = random.Random(args.seed).sample(mutants, min(args.count, len(mutants)))
    with tempfile.TemporaryDirectory() as folder:
        trees = Trees(Path(folder), args.jobs)
        tree = trees.take()
        tests = tests_by_line(tree)
        trees.give_back(tree)

        def one(mutant: Mutant) -> Mutant | None:
            reaching = tests.get((mutant.path, mutant.line), [])
            return mutant if not reaching or lives(mutant, trees, reaching) else None

        with ThreadPoolExecutor(args.jobs) as pool:
            living = [found for found in pool.map(one, chosen) if found is not None]
    for mutant in living:
        reached = "" if tests.get((mutant.path, mutant.line)) else " (no fast test comes there)"
        print(mutant.told((ROOT / mutant.path).read_bytes()) + reached)
    print(f"{len(chosen) - len(living)} of {len(chosen)} changes are noticed, of {len(mutants)} that there are")


if __name__ == "__main__":
    main()
