"""``module:function`` and ``path/file.py:function``, as objects."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from functools import reduce
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from mpqueue._call_checks import nearest
from mpqueue._cli.usage import UsageError
from mpqueue._text import shown
from mpqueue._wire.pickling.imports import module_name_of


def load_function(name: str, what: str) -> Callable[..., Any]:
    """Return the function; modules are looked for in the current folder first, as by ``python -m``.

    It is the function of the named file, even if another file has the same name; so it is in workers and in a journal.
    Raises UsageError if there is none, or if workers would find another file. Errors of importing the module are
    raised.
    """
    module_name, colon, attributes = name.rpartition(":")
    if not colon or not module_name or not attributes:
        raise UsageError(f"{what}: expected module:function or file.py:function, got {name!r}")
    module = _import(module_name, what)
    try:
        function = reduce(getattr, attributes.split("."), module)
    except AttributeError as error:
        meant = nearest(attributes, [each for each, value in vars(module).items() if callable(value)])
        hint = "" if meant is None else f"; did you mean {module_name}:{meant}?"
        raise UsageError(f"{what}: expected a function in {module_name}, got {name!r}: {error}{hint}") from None
    if not callable(function):
        raise UsageError(f"{what}: expected a function, got {name!r}, which is {shown(function)}")
    return function  # type: ignore[no-any-return]


def check_one_folder(names: Iterable[str | None]) -> None:
    """Raise UsageError if the functions of these names are in files of several folders.

    Each folder would hide modules of the other ones that have the same names, in workers too.
    """
    folders = dict.fromkeys(folder for name in names if name is not None and (folder := _folder_of(name)) is not None)
    if len(folders) > 1:
        raise UsageError(
            f"module:handler: expected functions in files of one folder, got {' and '.join(folders)}; move them into "
            "one, or run one function after another"
        )


def _folder_of(name: str) -> str | None:
    """The folder of the function's file; None if its module is in none that is searched because of its name."""
    module, here = name.rpartition(":")[0], os.getcwd()
    if module.endswith(".py"):
        return str(Path(module).resolve().parent)
    return None if _spec_in([here], module.partition(".")[0]) is None else here


def _import(name: str, what: str) -> Any:
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UsageError(f"{what}: expected a Python file, got {name!r}, which is not there")
        return _import_file(Path(name).resolve(), what)
    if name.startswith("."):
        raise UsageError(f"{what}: expected a module's name, or a path that ends in .py, got {name!r}")
    here = os.getcwd()
    top = name.partition(".")[0]
    file = _found_in([here], top)
    if file is not None and file == os.path.join(here, f"{name}.py"):
        return _import_file(Path(file), what)
    if _spec_in([here], top) is not None:
        _put_first(here)
    elif here not in sys.path:
        sys.path.append(here)  # what the module imports may be there
    if file is not None and not _leads_to(top, file):
        raise UsageError(
            f"{what}: expected {name!r} in the current folder ({file}), but that name leads to {_place_of(top)}; "
            f"rename one of them, or name the file: {name.replace('.', '/')}.py:function"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            meant = nearest(name, [path.stem for path in Path(here).glob("*.py")])
            hint = "" if meant is None else f"; did you mean {meant}?"
            raise UsageError(f"{what}: expected a module that can be imported, got {name!r}: {error}{hint}") from None
        raise


def _import_file(file: Path, what: str) -> Any:
    """The module of exactly that file, also in workers: if its name leads elsewhere, by its path."""
    _put_first(str(file.parent))
    is_plain = "." not in file.stem and file.stem not in sys.stdlib_module_names and _leads_to(file.stem, str(file))
    module = importlib.import_module(file.stem if is_plain else module_name_of(str(file)))
    if is_plain and not _is_same(_found_in(sys.path, file.stem), str(file)):
        raise UsageError(
            f"{what}: expected workers to find {file}, but its code has changed sys.path, so that {file.stem!r} leads "
            f"to {_found_in(sys.path, file.stem)}; append to sys.path instead, or rename one of them"
        )
    return module


def _put_first(folder: str) -> None:
    """Search that folder before all others."""
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()


def _leads_to(name: str, file: str) -> bool:
    return _is_same(_place_of(name), file)


def _place_of(name: str) -> str | None:
    """Return the file of that module, loaded or to be imported; None if there is none."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__file__", None)
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.origin


def _found_in(folders: list[str], name: str) -> str | None:
    """The file of that module in the first of these folders that has it."""
    spec = _spec_in(folders, name)
    return None if spec is None else spec.origin


def _spec_in(folders: list[str], name: str) -> ModuleSpec | None:
    return PathFinder.find_spec(name, folders)


def _is_same(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return False
    try:
        return one == other or os.path.samefile(one, other)
    except OSError:  # such as "built-in", or a module in a zip file
        return False
