"""Do the fast tests notice a change that makes the code wrong? Small changes at random places, one at a time.

``python -m tests.support.mutants --count 300 --seed 1`` (`make mutants`) lets pytest collect the fast tests, and forks
from then on. First some processes run all tests once, to see which of them reach which line. That is kept in a file:
the next time only tests run that have changed since, or that reach code that has. Then there is one process for each
mutant: it changes the code of the function concerned, in its memory only, and runs the tests that reach the line, those
without workers first, and the quickest first, until one fails. A mutant that none of them notices lives, and shows
where a test asserts nothing. One that makes the tests hang has been noticed. The programs that tests start, workers
among them, run the changed code too, and say which functions they call, see `tests.support.startup`.

A comparison with the clock, or with a measure that the code names, is turned round as a whole: on which side the very
moment or measure is, is no promise, so `<` for `<=` would be no mistake there.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import fnmatch
import functools
import gc
import hashlib
import importlib
import json
import marshal
import math
import mmap
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from multiprocessing.connection import wait
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from tests.support import leaks
from tests.support.startup import sitecustomize

ROOT = Path(__file__).parent.parent.parent
#: The code that is changed.
ROOMS = ("mpqueue/_core", "mpqueue/_parent/journal", "mpqueue/_wire")
#: The tests that should notice. Where nothing waits also the slow ones, but none that changes the code itself.
STILL, WAITING = ("tests/unit", "tests/simulation"), ("tests/integration", "tests/contract")
CHANGING = "the_model_finds or the_simulation_finds"
#: Seconds of the CPU: of the tests that reach a mutant, those where nothing waits, those with workers, and those whose
#: programs reach it, as many are run as took so long beforehand. The core's random histories have room in the first.
BUDGETS = 100.0, 40.0, 20.0
#: Seconds that a test with workers counts for at least, whose own are not seen where they serve other tests too.
WITH_WORKERS = 0.5
#: Seconds after which a test is said to hang, also on a busy machine: of all, and for each second that it takes else.
HANGS, LIKEWISE = 30, 20
#: Bytes that a mutant may take: one that fills the memory fails before it disturbs others.
MEMORY = 8 << 30

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

_NEGATED: dict[type[ast.AST], type[ast.AST]] = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt}

#: What nobody tells from None who asks whether it is true.
_AS_NONE = frozenset({"return None", "return False", "return ''", "return ()"})


@dataclass(frozen=True)
class Mutant:
    """One change: the source of a file from one place to another becomes something else."""

    path: str
    line: int
    last: int  #: line
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
    module = ast.parse(source)
    lines = _lines(module)
    for node in _code(module):
        for changed in _changes(node):
            assert isinstance(node, ast.expr | ast.stmt)
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            text = ast.unparse(changed)
            text = f"({text})" if isinstance(node, ast.expr) else text
            yield Mutant(path.relative_to(ROOT).as_posix(), *lines[node], start, end, text)


def _lines(module: ast.Module) -> dict[ast.AST, tuple[int, int]]:
    """The first and last line of the statement, or of the condition of a compound one, that each node is a part of."""
    lines: dict[ast.AST, tuple[int, int]] = {}
    for outer in ast.walk(module):  # from outside inwards
        if isinstance(outer, ast.stmt | ast.expr | ast.excepthandler) and outer not in lines:
            lines[outer] = (outer.lineno, outer.end_lineno or outer.lineno)
            is_compound = isinstance(outer, ast.Match) or hasattr(outer, "body")
            if not is_compound or isinstance(outer, ast.Lambda | ast.IfExp):
                lines.update(dict.fromkeys(ast.walk(outer), lines[outer]))
    return lines


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that do something while a function runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise | ast.Assert | ast.arguments | ast.AnnAssign | ast.Import | ast.ImportFrom):
            continue
        if isinstance(child, ast.FunctionDef) and child.name in {"__repr__", "__str__", "__hash__"}:
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
    if ast.unparse(node).startswith("log."):
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":  # of zip, which checks what is so anyhow
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
            yield _with(node, ops=[(_NEGATED if _is_threshold(node) else _SWAPPED)[type(op)]()])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) if type(op) in _SWAPPED:
            yield _with(node, op=_SWAPPED[type(op)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)
        case ast.Return(value=ast.expr()) if ast.unparse(node) not in _AS_NONE:
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Delete():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.IfExp(test=test):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))


def _is_threshold(comparison: ast.Compare) -> bool:
    """Whether the clock, or a measure that the code names, decides: on which side that moment is, is no promise.

    That it decides at all shows where the comparison is the other way round.
    """
    names = {each.id for each in ast.walk(comparison) if isinstance(each, ast.Name)}
    names |= {each.attr for each in ast.walk(comparison) if isinstance(each, ast.Attribute)}
    named = any(name == "now" or (len(name) > 1 and name.isupper()) for name in names)
    return named and type(comparison.ops[0]) in _NEGATED


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


# --- the tests --------------------------------------------------------------------------------------------------------

_forks = multiprocessing.get_context("fork")

#: What becomes of a mutant.
NOTICED, LIVES, UNREACHED, NOT_MADE = "noticed", "lives", "no fast test comes there", "could not be made"
_LIVES, _NOT_MADE = 7, 8  #: as a process says it
_ENDS = {_LIVES: LIVES, _NOT_MADE: NOT_MADE}


@dataclass
class Reached:
    """Which tests reach the lines of a file, and how many seconds of the CPU each test took."""

    lines: dict[str, dict[str, list[str]]]
    seconds: dict[str, float]
    #: Of each file the first and last lines of functions, and which tests start programs that call them.
    programs: dict[str, list[tuple[int, int, list[str]]]]
    #: Of each file, of code that is changed or of tests, what was in it then.
    digests: dict[str, str]

    def forget(self, now: dict[str, str]) -> None:
        """The tests of files that have changed, or that reach such a file."""
        changed = {path for path, digest in self.digests.items() if now.get(path) != digest}
        gone = {test for test in self.seconds if test.partition("::")[0] in changed}
        for path in changed:
            gone.update(*self.lines.get(path, {}).values(), *(tests for _, _, tests in self.programs.get(path, [])))
        self.seconds = {test: seconds for test, seconds in self.seconds.items() if test not in gone}
        for tests in [*(tests for by_line in self.lines.values() for tests in by_line.values()),
                      *(tests for functions in self.programs.values() for _, _, tests in functions)]:  # fmt: skip
            tests[:] = [test for test in tests if test not in gone]
        for path in changed:  # its lines may be others
            self.lines.pop(path, None)
            self.programs.pop(path, None)
        self.digests = now

    def add(self, more: Reached) -> None:
        """What other tests reach."""
        self.seconds |= more.seconds
        for path, by_line in more.lines.items():
            for line, tests in by_line.items():
                self.lines.setdefault(path, {}).setdefault(line, []).extend(tests)
        for path, functions in more.programs.items():
            self.programs.setdefault(path, []).extend(functions)

    def chosen(self, mutant: Mutant) -> tuple[list[str], int]:
        """The tests that are run, as many as there is time for, and how many reach it, also by their programs."""
        lines, functions = self.lines.get(mutant.path, {}), self.programs.get(mutant.path, [])
        here = {test for line in range(mutant.line, mutant.last + 1) for test in lines.get(str(line), ())}
        there = {test for first, last, tests in functions if first <= mutant.line <= last for test in tests}
        still = {test for test in here if test.startswith(STILL)}
        kinds = zip((still, here - still, there - here), BUDGETS, strict=True)
        return [test for tests, budget in kinds for test in self._quickest(tests, budget)], len(here | there)

    def _quickest(self, tests: set[str], left: float) -> list[str]:
        chosen: list[str] = []
        for test in sorted(tests, key=lambda one: (self.seconds[one], one)):
            left -= self.seconds[test]
            if left < 0 and chosen:
                break
            chosen.append(test)
        return chosen


class Forking:
    """A plugin of pytest: runs mutants instead of the tests."""

    def __init__(self, mutants: Sequence[Mutant], jobs: int, reached: Path) -> None:
        self.ends: dict[Mutant, str] = {}
        self._mutants = mutants
        self._jobs = jobs
        self._path = reached
        self._functions: dict[str, list[FunctionType]] = {}
        self._kept: list[Any] = []

    @pytest.hookimpl
    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Files that have slow tests only need not be imported."""
        waits = any(collection_path.is_relative_to(ROOT / room) for room in WAITING)
        is_python = collection_path.suffix == ".py"
        return (
            True if waits and is_python and "\npytestmark = pytest.mark.slow" in collection_path.read_text() else None
        )

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what is slow where tests wait."""
        items[:] = [one for one in items if one.nodeid.startswith(STILL) or not one.get_closest_marker("slow")]

    @pytest.hookimpl
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Instead of pytest's own, which runs one test after the other."""
        paths = {mutant.path for mutant in self._mutants}
        for path in paths:  # also what tests import while they run
            importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        for function in [one for one in gc.get_objects() if isinstance(one, FunctionType)]:
            file = Path(function.__code__.co_filename)
            if file.is_relative_to(ROOT) and (path := file.relative_to(ROOT).as_posix()) in paths:
                self._functions.setdefault(path, []).append(function)
        self._kept = kept_answers()
        gc.freeze()  # collections of the processes that are forked do not copy all of this one's memory
        self._try_all(session, self._reach(session))
        return True

    def _reach(self, session: pytest.Session) -> Reached:
        own = Path(__file__).relative_to(ROOT).as_posix()
        files = {path for room in ROOMS for path in (ROOT / room).rglob("*.py")} | {item.path for item in session.items}
        files.add(ROOT / own)
        now = {path.relative_to(ROOT).as_posix(): hashlib.md5(path.read_bytes()).hexdigest() for path in files}
        reached = Reached({}, {}, {}, now)
        if self._path.exists():
            before = Reached(**json.loads(self._path.read_text()))
            if before.digests.get(own) == now[own]:
                reached = before
                reached.forget(now)
        items = [item for item in session.items if item.nodeid not in reached.seconds]
        parts = [Path(f"{self._path}-{number}") for number in range(self._jobs)]
        processes = [_forks.Process(target=reach, args=(session, items, parts, part, self._kept)) for part in parts]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        for part in parts:
            reached.add(Reached(**json.loads(part.read_text())))
            part.unlink()
        self._path.write_text(json.dumps(vars(reached)))
        return reached

    def _try_all(self, session: pytest.Session, reached: Reached) -> None:
        items = {item.nodeid: item for item in session.items}
        running: dict[int, tuple[Mutant, Any, float, str, float]] = {}
        waiting = list(self._mutants)[::-1]
        while waiting or running:
            while waiting and len(running) < self._jobs:
                mutant = waiting.pop()
                chosen, reaching = reached.chosen(mutant)
                tests = [(items[one], reached.seconds[one]) for one in chosen if one in items]
                many = f"{len(tests)} of {reaching} tests"
                if not tests:
                    self._tell(mutant, UNREACHED, many, 0.0)
                    continue
                functions = self._functions.get(mutant.path, [])
                process = _forks.Process(target=try_out, args=(mutant, session, tests, functions, self._kept))
                process.start()
                limit = 10 * HANGS + LIKEWISE * sum(seconds for _, seconds in tests)
                running[process.sentinel] = mutant, process, time.monotonic(), many, limit
            wait(list(running), timeout=1.0)
            for sentinel, (mutant, process, started, many, limit) in list(running.items()):
                took = time.monotonic() - started
                if process.exitcode is None and took < limit:
                    continue
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # and what its tests have left
                process.join()
                del running[sentinel]
                self._tell(mutant, _ENDS.get(process.exitcode, NOTICED), many, took)

    def _tell(self, mutant: Mutant, end: str, tests: str, took: float) -> None:
        self.ends[mutant] = end
        source = (ROOT / mutant.path).read_bytes()
        print(f"{end} ({tests}, {took:.0f} s): {mutant.told(source)}", flush=True)


def settle_in(session: pytest.Session) -> None:
    """In a new process: what is left is looked for among what is its own, and nothing is printed."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.environ[leaks.COOKIE] = uuid.uuid4().hex
    tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (1, 2):
        os.dup2(nowhere, fd)
    session.testsfailed = 0


#: The type of what `functools.cache` makes.
_KEEPING = type(functools.cache(len))


def kept_answers() -> list[Any]:
    """The functions of the changed code that keep what they have answered: a later test would not come into them.

    `gc` does not find them any more once it has frozen all objects.
    """
    kept = [one for one in gc.get_objects() if type(one) is _KEEPING]
    return [one for one in kept if one.__module__.replace(".", "/").startswith(ROOMS)]


def run(item: pytest.Item, after: pytest.Item | None, kept: Sequence[Any]) -> bool:
    """Whether the test passes, with no answer of one before it."""
    for function in kept:
        function.cache_clear()
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
    return not item.session.testsfailed


def reach(
    session: pytest.Session, items: list[pytest.Item], parts: list[Path], into: Path, kept: Sequence[Any]
) -> None:
    """Write down what the tests of some of the files reach. One that fails before anything is changed is left out."""
    from coverage import Coverage  # only where it is asked for

    files = sorted({item.path for item in items})[parts.index(into) :: len(parts)]
    items = [item for item in items if item.path in files]
    terminal = os.dup(1)
    settle_in(session)
    calls = CallsOfPrograms(len(items))
    coverage = Coverage(
        include=[f"{ROOT / room}/*" for room in ROOMS],
        data_file=None,
        config_file=False,
        concurrency=["thread", "greenlet"],
    )
    coverage.set_option("run:disable_warnings", ["no-data-collected"])
    coverage.start()
    seconds: dict[str, float] = {}
    for item, after in zip_longest(items, items[1:]):
        coverage.switch_context(item.nodeid)
        calls.begin(item.nodeid)
        started = sum(os.times()[:4])
        if run(item, after, kept):
            least = WITH_WORKERS if item.nodeid.startswith(WAITING) else 0.0
            seconds[item.nodeid] = max(least, round(sum(os.times()[:4]) - started, 3))
        else:
            os.write(terminal, f"left out, since it fails before anything is changed: {item.nodeid}\n".encode())
            session.testsfailed = 0
    coverage.stop()
    data = coverage.get_data()
    lines = {
        Path(file).relative_to(ROOT).as_posix(): {
            str(line): [one for one in tests if one in seconds] for line, tests in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }
    into.write_text(json.dumps(vars(Reached(lines, seconds, calls.found(seconds), {}))))
    os._exit(0)  # what the tests have left in this process can't hold up its end


class CallsOfPrograms:
    """Which functions are called in the programs that tests start: there each says so in a table that all map."""

    def __init__(self, most: int) -> None:
        self._functions: list[tuple[str, int, int]] = []
        self._tests: list[str] = []
        for path in [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]:
            module = ast.parse(path.read_bytes())
            for node in ast.walk(module):
                if isinstance(node, ast.FunctionDef):
                    said = ast.parse(f"{sitecustomize.CALLED}({len(self._functions)})").body[0]
                    for each in ast.walk(said):
                        ast.copy_location(each, node)
                    node.body.insert(ast.get_docstring(node) is not None, said)
                    self._functions.append((path.relative_to(ROOT).as_posix(), node.lineno, node.end_lineno or 0))
            run_in_programs(path, compile(module, str(path), "exec"))
        table = tempfile.mkstemp()[1]
        os.truncate(table, sitecustomize.START + most * len(self._functions))
        with open(table, "r+b") as file:
            self._table = mmap.mmap(file.fileno(), 0)
        os.environ[sitecustomize.CALLS] = table

    def begin(self, test: str) -> None:
        """From now on it is that test."""
        start = sitecustomize.START + len(self._tests) * len(self._functions)
        self._table[: sitecustomize.START] = start.to_bytes(sitecustomize.START, "little")
        self._tests.append(test)

    def found(self, tests: Container[str]) -> dict[str, list[tuple[int, int, list[str]]]]:
        """As in `Reached`."""
        found: dict[str, list[tuple[int, int, list[str]]]] = {}
        for number, (path, first, last) in enumerate(self._functions):
            called = self._table[sitecustomize.START + number :: len(self._functions)]
            by = [test for test, is_called in zip(self._tests, called) if is_called and test in tests]  # noqa: B905
            if by:
                found.setdefault(path, []).append((first, last, by))
        return found


def run_in_programs(path: Path, code: CodeType) -> None:
    """The programs that tests start from now on run this in place of the file."""
    folder = Path(os.environ.setdefault(sitecustomize.CHANGED, tempfile.mkdtemp()))
    name = path.relative_to(ROOT).as_posix().removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    (folder / name).write_bytes(marshal.dumps(code))


def try_out(
    mutant: Mutant,
    session: pytest.Session,
    tests: list[tuple[pytest.Item, float]],
    functions: list[FunctionType],
    kept: Sequence[Any],
) -> None:
    """Run these tests, which take so many seconds each, with the change until one fails."""
    settle_in(session)
    resource.setrlimit(
        resource.RLIMIT_CPU, (3 * int(sum(seconds for _, seconds in tests)) + 30, resource.RLIM_INFINITY)
    )
    path = ROOT / mutant.path
    changed = compile(mutant.applied(path.read_bytes()), str(path), "exec")
    if not change_functions(functions, changed):
        os._exit(_NOT_MADE)
    run_in_programs(path, changed)
    items = [item for item, _ in tests]
    for (item, seconds), after in zip(tests, [*items[1:], None], strict=True):
        item.add_marker(pytest.mark.timeout(HANGS + LIKEWISE * seconds))
        if not run(item, after, kept):
            os._exit(1)
    os._exit(_LIVES)


def change_functions(functions: list[FunctionType], changed: CodeType) -> bool:
    """Give the functions of a module the code they have in its changed source; whether there were any to change."""
    codes = {(code.co_qualname, code.co_firstlineno): code for code in _codes(changed)}
    count = 0
    for function in functions:
        old = function.__code__
        new = codes.get((old.co_qualname, old.co_firstlineno))
        if new is not None and new != old and new.co_freevars == old.co_freevars:
            function.__code__ = new
            count += 1
    return count > 0


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


# --- all of it --------------------------------------------------------------------------------------------------------


def interval(part: int, of: int) -> str:
    """The share, and between which the share of all is with a probability of 95% (Wilson)."""
    share, z2 = part / of, 1.96**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = math.sqrt(share * (1 - share) * z2 / of + z2**2 / (4 * of**2)) / (1 + z2 / of)
    return f"{share:.0%} ({middle - half:.0%} to {middle + half:.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--leave-out", action="append", default=[], metavar="PATTERN", help="of files; can be repeated")
    parser.add_argument(
        "--reached", type=Path, default=ROOT / "out/reached.json", help="what is kept for the next time"
    )
    parser.add_argument("--only", default="*", metavar="PATTERN", help="of files")
    args = parser.parse_args()
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    files = [path for path in files if fnmatch.fnmatch(path.as_posix(), f"*/{args.only}")]
    files = [path for path in files if not any(fnmatch.fnmatch(path.as_posix(), f"*/{one}") for one in args.leave_out)]
    mutants = [one for path in files for one in mutants_of(path)]
    chosen = random.Random(args.seed).sample(mutants, min(args.count, len(mutants)))
    args.reached.parent.mkdir(exist_ok=True)
    forking = Forking(chosen, args.jobs, args.reached)
    options = ("-q", "-s", "-k", f"not ({CHANGING})", "-p", "no:cacheprovider", f"--timeout={20 * HANGS}")
    os.chdir(ROOT)
    pytest.main([*options, "-o", "faulthandler_timeout=0", *STILL, *WAITING], plugins=[forking])
    noticed: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    for mutant, end in forking.ends.items():
        if end != NOT_MADE:
            for room in (next(one for one in ROOMS if mutant.path.startswith(one)), "all"):
                tried[room] += 1
                noticed[room] += end == NOTICED
    print()
    for room, count in sorted(tried.items(), key=lambda one: one[0] == "all"):
        print(f"{room}: {noticed[room]} of {count} changes are noticed, {interval(noticed[room], count)}")
    print(f"There are {len(mutants)} such changes.")


if __name__ == "__main__":
    main()
