"""The rules of the house that no other tool checks: names, cycles, who reads the clock, what an import costs."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mpqueue

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "mpqueue"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

#: Names that say nothing, and so take in anything.
BANNED_NAMES = {"base", "common", "helpers", "manager", "misc", "util", "utils"}

#: Functions of `time` that read a clock.
CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time", "time"}

#: Time is an argument everywhere else, so that tests can give their own.
MAY_READ_THE_CLOCK = ("mpqueue/_parent/inbox.py", "mpqueue/_worker/")


def name_of(path: Path) -> str:
    """The path as it is seen from the repository."""
    return path.relative_to(ROOT).as_posix()


def each(paths: list[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """Hold the rule against each of ``paths``; a test of its own for each file would take longer than all rules."""

    def decorate(rule: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            broken = {}
            for path in paths:
                try:
                    rule(path)
                except AssertionError as error:
                    broken[name_of(path)] = str(error)
            assert not broken

        test.__doc__ = rule.__doc__
        return test

    return decorate


@functools.cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(), filename=str(path))


@each(MODULES + TESTS)
def test_every_module_is_named_by_what_it_holds(path: Path) -> None:
    assert path.stem.strip("_") not in BANNED_NAMES
    assert path.parent.name.strip("_") not in BANNED_NAMES


@each(MODULES)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(parse(path))


@each(MODULES)
def test_time_is_read_in_few_places(path: Path) -> None:
    if name_of(path).startswith(MAY_READ_THE_CLOCK):
        return
    reads = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
            if node.attr.removesuffix("_ns") in CLOCKS:
                reads.append(f"time.{node.attr}, line {node.lineno}")
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            reads.append(f"from time import, line {node.lineno}")
    assert not reads, "take the time as an argument, or the queue's clock"


def imports_of(path: Path) -> Iterator[str]:
    """The modules of this package that a file imports, in functions too; not those for types only."""
    for node in nodes_that_run(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "mpqueue")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mpqueue":
            for alias in node.names:
                is_module = (ROOT / node.module.replace(".", "/") / f"{alias.name}.py").exists()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def nodes_that_run(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING:``."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for node in child.orelse:
                yield from nodes_that_run(node)
        else:
            yield from nodes_that_run(child)


def module_name(path: Path) -> str:
    """``mpqueue._core.scheduler`` for its file."""
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def folders_of(root: Path) -> set[str]:
    """All folders of the package that hold modules, as the architecture page writes them."""
    return {f"{path.parent.relative_to(root).as_posix()}/" for path in root.rglob("__init__.py")} - {"./"}


def test_the_map_names_each_folder_and_no_other() -> None:
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    table = page[page.index("| folder or module") :].split("\n\n")[0]
    assert set(re.findall(r"`([\w/]+/)`", table)) == folders_of(PACKAGE)


def test_each_module_that_the_map_names_is_there() -> None:
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    named = set(re.findall(r"`([\w/]+\.py)`", page))
    assert len(named) > 50
    assert not [name for name in named if not (PACKAGE / name).exists()]


#: Where modules and folders are named, besides the map.
_PAGES = [ROOT / "CONTRIBUTING.md", PACKAGE / "__init__.py", *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_folder_and_module_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"`(?:mpqueue/)?(_[a-z]\w*(?:/\w+)*(?:\.py|/))`", page.read_text()))
    assert not [name for name in named if not (PACKAGE / name).exists()]


def test_a_module_s_name_is_used_once() -> None:
    names = Counter(path.stem for path in MODULES if path.stem not in ("__init__", "__main__"))
    assert not {name for name, count in names.items() if count > 1}


def test_no_folder_is_too_full_to_be_seen_at_a_glance() -> None:
    full = {}
    for folder in {path.parent for path in MODULES} - {PACKAGE}:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith("__")]
        full[name_of(folder)] = len(entries)
    assert not {folder: count for folder, count in full.items() if count > 15}


def test_no_modules_import_each_other() -> None:
    graph = {module_name(path): set(imports_of(path)) for path in MODULES if path != PACKAGE / "__init__.py"}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


@each([path for path in MODULES if path != PACKAGE / "__init__.py"])
def test_the_package_does_not_use_its_own_front_door(path: Path) -> None:
    assert "mpqueue" not in set(imports_of(path)), "import the module that owns the name"


#: What looks inside, with fakes, and what only serves that; all else says what users are promised.
_LOOKS_INSIDE = {"unit", "simulation", *(f"{name}.py" for name in ("auditor", "cluster", "fake_lanes", "fake_worker"))}
_LOOKS_INSIDE |= {"invariants.py", "runs.py", "timekeeper.py", "option_pages.py"}
_FROM_OUTSIDE = [path for path in TESTS if not _LOOKS_INSIDE & set(path.parts)]

#: What one file may import all the same, and why.
MAY_IMPORT = {
    "tests/conftest.py": "threads that are done linger for a second, which each test would wait for",
    "tests/support/forked_workers.py": "workers of all queues of a file are forked from one process, for speed",
}
_PRIVATE_IMPORT = re.compile(r"^\s*(?:from|import)\s+mpqueue(?:\.\w+)*(?:\._|\s+import\s+\(?\s*_)(?!_)", re.MULTILINE)


@each(_FROM_OUTSIDE)
def test_tests_from_outside_import_public_names_only(path: Path) -> None:
    """Also in the programs that they write."""
    assert bool(_PRIVATE_IMPORT.findall(path.read_text())) == (name_of(path) in MAY_IMPORT)


#: Attributes that begin with `_` and are read of others, each with what has them.
MAY_BE_READ = {
    **dict.fromkeys(("_asdict", "_fields", "_replace"), "named tuples: documented"),
    **dict.fromkeys(("_exit", "_getframe", "_current_frames"), "os and sys: documented"),
    "_repr_html_": "notebooks ask for it",
    "_is_protocol": "typing, which has no public name for it",
    "_read_null": "faulthandler: a real segmentation fault",
    **dict.fromkeys(("_resource_tracker", "_fd", "_pid"), "the resource trackers of multiprocessing and loky"),
    **dict.fromkeys(("_config", "_semlock"), "multiprocessing: names of its folder and its semaphores"),
    **dict.fromkeys(("_RandomNameSequence", "_make_filename", "_SHM_NAME_PREFIX"), "names that tests can tell apart"),
    "_pool": "of multiprocessing.Pool, which CPython's tests read of each pool",
    **dict.fromkeys(("_TestPool", "_TestPoolWorkerErrors", "_TestPoolWorkerLifetime"), "CPython's tests"),
    **dict.fromkeys(("_test_multiprocessing", "_testMethodName"), "CPython's tests"),
    "_parallel_backends": "joblib, in its own tests",
    "_ExecutorManagerThread": "loky's thread, which has no public name",
}
_PRIVATE = re.compile(r"_[A-Za-z]\w*")
#: In a text, which may be a program.
_READ_IN_TEXT = re.compile(r"\b(?!self\b|cls\b)\w+\._[A-Za-z]\w*")
_READ_BY_NAME = {"getattr", "setattr", "hasattr", "delattr", "object"}  # the last of `patch`


def _is_own(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_reads(tree: ast.Module) -> Iterator[str]:
    """Attributes that begin with one `_`, of anything but `self` and `cls`, in code, in calls and in texts."""
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Attribute):
            found = [] if _is_own(node.value) else [node.attr]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = [read.partition(".")[2] for read in _READ_IN_TEXT.findall(node.value)]
        elif isinstance(node, ast.Call) and node.args[1:] and not _is_own(node.args[0]):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = node.args[1]
            found = [str(name.value)] if called in _READ_BY_NAME and isinstance(name, ast.Constant) else []
        yield from (name for name in found if _PRIVATE.fullmatch(name) and name not in MAY_BE_READ)


@each(_FROM_OUTSIDE)
def test_tests_from_outside_read_public_names_only(path: Path) -> None:
    """Of whatever object: what belongs to a helper of the tests has a public name, too."""
    assert not [*private_reads(parse(path))]


def test_what_is_private_is_found_however_it_is_read() -> None:
    text = '''
def f(queue, monkeypatch):
    self._own, cls._own, queue.jobs, queue.__dict__, os._exit, getattr(self, "_own")
    queue._host.worker_pids()
    getattr(queue, "_engine")
    monkeypatch.setattr(queue, "_lock", None)
    monkeypatch.setattr("mpqueue._queue.host.PATIENCE", 0.2)
    run("""
        print(queue._jobs)
        os._exit(1)
    """)
'''
    assert sorted(private_reads(ast.parse(text))) == ["_engine", "_host", "_jobs", "_lock", "_queue"]


def test_importing_mpqueue_loads_nothing_of_weight() -> None:
    code = "import sys, mpqueue; print(*sorted(sys.modules), sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = ("loky", "cloudpickle", "pyee", "mpqueue._parent", "multiprocessing", "concurrent.futures", "asyncio")
    assert not [name for name in loaded if name.startswith(heavy)]


def test_a_queue_loads_nothing_that_only_some_jobs_need() -> None:
    code = "import sys; from mpqueue import JobQueue; print(*sorted(sys.modules), sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    some = {"psutil", "hashlib", "decimal", "pathlib", "urllib.parse", "html", "json", "sqlite3", "asyncio", "argparse"}
    assert not some & {*loaded}, "each takes 2 to 10 ms, and hashlib 5 MB"


def test_every_public_name_can_be_had_and_is_listed() -> None:
    code = "import mpqueue; missing = [n for n in mpqueue.__all__ if not hasattr(mpqueue, n)]; print(missing)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_type_checkers_have_the_names_that_programs_have() -> None:
    nodes = ast.walk(ast.parse((PACKAGE / "__init__.py").read_text()))
    names = {name.asname for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names}
    public = {*mpqueue.__all__, *mpqueue._MODULES}  # type: ignore[attr-defined]
    assert names - {None} == public


def test_a_class_s_name_is_used_once() -> None:
    found = Counter(
        node.name for path in MODULES for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
    )
    # `mpqueue.Pool` and `mpqueue.JobStarted` are public; nothing else may be mistaken for them.
    assert not {name for name, count in found.items() if count > 1}


#: What only `mpqueue/_os` may use, since it is not the same on all systems.
OF_THE_SYSTEM = {
    "ctypes",
    "fcntl",
    "os.P_PIDFD",
    "os._exit",
    "os.eventfd",
    "os.fork",
    "os.forkpty",
    "os.getpgid",
    "os.getpgrp",
    "os.getppid",
    "os.getsid",
    "os.kill",
    "os.killpg",
    "os.memfd_create",
    "os.name",
    "os.nice",
    "os.pidfd_open",
    "os.posix_fallocate",
    "os.posix_spawn",
    "os.sched_getaffinity",
    "os.sched_setaffinity",
    "os.setpgid",
    "os.setsid",
    "os.sysconf",
    "os.timerfd_create",
    "os.uname",
    "os.wait",
    "os.waitid",
    "os.waitpid",
    "platform.system",
    "psutil",
    "resource",
    "select.epoll",
    "select.kqueue",
    "signal",
    "socket.SOCK_SEQPACKET",
    "sys.platform",
    "time.clock_gettime",
}
#: Where such files are, in a text that is no docstring.
FOLDERS_OF_THE_SYSTEM = ("/proc", "/sys/", "/dev/fd", "/dev/shm", "prctl")


def uses_of_the_system(tree: ast.Module) -> Iterator[str]:
    """Names of `OF_THE_SYSTEM` that a module uses, and texts that name such folders."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"{node.value.id}.{node.attr}"]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield from (folder for folder in FOLDERS_OF_THE_SYSTEM if folder in node.value)
        yield from (name for name in names if name in OF_THE_SYSTEM)


@each([path for path in MODULES if PACKAGE / "_os" not in path.parents])
def test_the_operating_system_is_known_in_its_room_only(path: Path) -> None:
    found = set(uses_of_the_system(parse(path)))
    assert not found, "draw it out into mpqueue/_os, which has a form for each system"


def test_what_belongs_to_the_system_is_found_however_it_is_written() -> None:
    text = '''
"""About /proc."""
import fcntl, os
from sys import platform
from signal import SIGKILL
def f(pid):
    """See /dev/shm."""
    os.kill(pid, 9)
    return f"/proc/{pid}/stat"
'''
    assert sorted(uses_of_the_system(ast.parse(text))) == ["/proc", "fcntl", "os.kill", "signal", "sys.platform"]
