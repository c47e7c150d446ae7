"""``module:function`` and ``path/file.py:function``, as objects."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

from mpqueue._call_checks import nearest
from mpqueue._cli.usage import UsageError
from mpqueue._text import shown


def load_function(name: str, what: str) -> Callable[..., Any]:
    """The function; modules are looked for in the current folder first, as by ``python -m``.

    Raises UsageError where there is none. What the module raises while it is imported comes through.
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


def _import(name: str, what: str) -> Any:
    folder = Path.cwd()
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"{what}: expected a Python file, got {name!r}, which is not there")
        folder, name = path.resolve().parent, path.stem
    elif name.startswith("."):
        raise UsageError(f"{what}: expected a module's name, or a path that ends in .py, got {name!r}")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            meant = nearest(name, [path.stem for path in folder.glob("*.py")])
            hint = "" if meant is None else f"; did you mean {meant}?"
            raise UsageError(f"{what}: expected a module that can be imported, got {name!r}: {error}{hint}") from None
        raise
