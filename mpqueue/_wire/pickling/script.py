"""The program's main module for the workers of `Pool` and `Executor`: imported, and found by name.

`multiprocessing` makes each process that it spawns run the main module first, as ``__mp_main__``, so that its changes
to other modules are made there too, and its functions and classes exist by name. So do these workers, if the module
guards its start by ``if __name__ == "__main__":``. Without a guard they would run the start as well.

A program knows from the source which names a worker finds: those that the module binds outside its guards. Names bound
elsewhere, in a guard or by a ``global``, and functions that read such names, are sent by value.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from multiprocessing import process
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from mpqueue._os.process_signals import frame_of
from mpqueue._wire.pickling import main_names
from mpqueue._wire.pickling.packed_functions import globals_of

_NO_NEEDS: Mapping[str, frozenset[str]] = {}


class Script:
    """A main module that may be imported: by its name if ``python -m`` was given that, else from its file.

    Calling it imports it, in a process that has another main module.
    """

    def __init__(
        self,
        module: str | None,
        path: str,
        names: frozenset[str] = frozenset(),
        needs: Mapping[str, frozenset[str]] = _NO_NEEDS,
    ) -> None:
        self.path = path
        self._module = module
        self._names = names  #: names that exist on both sides
        self._needs = needs  #: for some of these, global names that they read and only the program may have

    def __reduce__(self) -> tuple[Any, ...]:
        return Script, (self._module, self.path)

    def __call__(self) -> None:
        """Import the main module. Raises its errors."""
        global _is_being_imported  # noqa: PLW0603 - a process has one main module
        main, code = self._read()
        for name in main_names.NAMES:
            sys.modules[name] = main
        own: Any = process.current_process()
        own._inheriting = _is_being_imported = True  # the former, so that `multiprocessing` starts no processes either
        try:
            exec(code, vars(main))
        finally:
            _is_being_imported = False
            del own._inheriting
        main_names.set_imported(Script(self._module, self.path, frozenset(vars(main))))

    def _read(self) -> tuple[ModuleType, CodeType]:
        """Return the module, still empty, and its code.

        Not by `runpy`, which `multiprocessing` uses: there the module has a copy of its functions' globals.
        """
        main = ModuleType(main_names.NAMES[1])
        if self._module is None:
            loader: Any = SourceFileLoader(main.__name__, self.path)
            code = loader.source_to_code(loader.get_data(self.path), self.path)
        else:
            main.__spec__ = find_spec(self._module)
            if main.__spec__ is None:
                raise ModuleNotFoundError(f"No module named {self._module!r}", name=self._module)
            loader = main.__spec__.loader
            code = loader.get_code(self._module)
            main.__package__ = main.__spec__.parent
        main.__file__, main.__loader__ = self.path, loader
        return main, code

    def has(self, name: str) -> bool:
        """True if the other side finds this object in the main module under its name."""
        root = name.partition(".")[0]
        if root not in self._names:
            return False
        needs = self._needs.get(root)
        return needs is None or needs.isdisjoint(vars(sys.modules["__main__"]))


_is_being_imported = False


def is_being_imported() -> bool:
    """True in a worker while it imports the main module."""
    return _is_being_imported


def script_here(*, starts_now: bool) -> Script | None:
    """Return the main module of this program if it guards its start and workers can import it; else None.

    With ``starts_now``, also None if an unguarded statement has led here. The first call reads the module's file: 10 ms
    for 1,000 lines.
    """
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if not isinstance(main, ModuleType) or not isinstance(path, str):  # a notebook, ``python -c``, standard input
        return None
    if sys.flags.interactive or hasattr(sys, "ps1") or getattr(sys, "frozen", False):
        return None
    module = getattr(getattr(main, "__spec__", None), "name", None)
    # `multiprocessing` does not import these either: the ``__main__.py`` of a package, a folder or an archive; IPython.
    if module is not None and module.rpartition(".")[2] == "__main__":
        return None
    if module is None and os.path.splitext(os.path.basename(path))[0] == "ipython":
        return None
    path = os.path.normpath(os.path.join(process.ORIGINAL_DIR or "", path))  # type: ignore[attr-defined]
    outline = _outline(path)
    if not outline.guards or (starts_now and not outline.holds(_line_of(main))):
        return None
    return Script(module, path, outline.names, outline.needs)


def _line_of(main: ModuleType) -> int | None:
    """Return the line of the main module that is running; None if it has run."""
    frame = frame_of(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_globals is vars(main) and frame.f_code.co_name == "<module>":
            return frame.f_lineno
        frame = frame.f_back
    return None


# -- the source --------------------------------------------------------------------------------------------------------


class _Outline(NamedTuple):
    guards: Sequence[tuple[int, int]] = ()  #: first and last lines of code that only the program runs
    names: frozenset[str] = frozenset()
    needs: Mapping[str, frozenset[str]] = _NO_NEEDS

    def holds(self, line: int | None) -> bool:
        """True for a line that only the program runs, and for None."""
        return line is None or any(first <= line <= last for first, last in self.guards)


@functools.cache
def _outline(path: str) -> _Outline:
    """Return the outline of that file; empty if it guards nothing or can't be read as Python."""
    try:
        with open(path, "rb") as file:
            source = file.read()
        if b"__main__" not in source:
            return _Outline()
        with warnings.catch_warnings():  # Python has shown them when it compiled the program
            warnings.simplefilter("ignore")
            return _read(ast.parse(source), path, source.decode(errors="replace"))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return _Outline()


#: In the text, which takes 1% of the time of the tree. Extra matches do no harm.
_find_globals = re.compile(r"^\s*global\s+([\w, ]+)", re.MULTILINE).findall


def _read(tree: ast.Module, path: str, text: str) -> _Outline:
    guarded: list[ast.stmt] = []
    bound = _bound(tree.body, guarded)
    if not guarded:
        return _Outline()
    only_here = _bound(guarded, [])
    names = frozenset(bound - only_here)
    only_here.update(name.strip() for found in _find_globals(text) for name in found.split(","))
    only_here -= bound
    lines = [(statement.lineno, statement.end_lineno or statement.lineno) for statement in guarded]
    return _Outline(
        lines, names, _needs(compile(tree, path, "exec", dont_inherit=True), only_here) if only_here else {}
    )


def _bound(statements: Sequence[ast.stmt], guarded: list[ast.stmt]) -> set[str]:
    """Return the names that these statements bind in their module; those inside a guard are added to ``guarded``."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(statements)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and (guard := _guarded_part(node)) is not None:
            guarded += guard
            waiting += node.orelse if guard is node.body else node.body
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif not isinstance(node, _OWN_NAMES):
            waiting += ast.iter_child_nodes(node)
    return found


#: Nodes with names of their own.
_OWN_NAMES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def _guarded_part(node: ast.If) -> list[ast.stmt] | None:
    """Return the statements that only the main module runs, if the condition is on its name; else None."""
    for test in ast.walk(node.test):
        if isinstance(test, ast.Compare):
            asked = {getattr(part, "id", getattr(part, "value", None)) for part in (test.left, *test.comparators)}
            if asked == {"__name__", "__main__"}:
                return node.orelse if isinstance(test.ops[0], ast.NotEq) else node.body
    return None


def _needs(module: CodeType, only_here: set[str]) -> dict[str, frozenset[str]]:
    """Return which of these names the functions and classes at the module's top read, also through others."""
    reads: dict[str, set[str]] = {}
    for constant in module.co_consts:
        if isinstance(constant, CodeType):
            name = constant.co_name.removeprefix("<generic parameters of ").rstrip(">")
            reads.setdefault(name, set()).update(globals_of(constant))
    needs = {name: read & only_here for name, read in reads.items()}
    waiting = [name for name, needed in needs.items() if needed]
    while waiting:
        needed = waiting.pop()
        for name, read in reads.items():
            if needed in read and not needs[needed] <= needs[name]:
                needs[name] |= needs[needed]
                waiting.append(name)
    return {name: frozenset(needed) for name, needed in needs.items() if needed}
