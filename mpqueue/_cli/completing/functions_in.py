"""The functions of a module that is named on the command line, for a shell that completes it. Nothing is imported.

A module that is imported may do anything and take seconds, at each press of a key. So its file is looked for as an
import would, and only parsed.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder

#: Bytes of a file that are parsed: larger ones are data.
MOST_BYTES = 4 << 20


def functions_of(word: str) -> list[str]:
    """How the word ``module:fun`` or ``file.py:fun`` may go on, whole, in the order of the file; none for others.

    Names with ``_`` at their front come only where one was typed. After ``Class.``, the methods of that class.
    """
    place, colon, typed = word.rpartition(":")
    path = _path_of(place) if colon else None
    if path is None:
        return []
    try:
        with open(path, "rb") as file:
            body = ast.parse(file.read(MOST_BYTES)).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    owner, _, start = typed.rpartition(".")
    for name in filter(None, owner.split(".")):
        body = next((one.body for one in body if isinstance(one, ast.ClassDef) and one.name == name), [])
    before = f"{place}:{owner}{'.' if owner else ''}"
    names = dict.fromkeys(_names_in(body))
    return [before + name for name in names if name.startswith(start) and (start or not name.startswith("_"))]


def _names_in(body: Sequence[ast.stmt]) -> Iterator[str]:
    """Also of those that are defined under a condition."""
    for one in body:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            yield one.name
        elif isinstance(one, ast.If | ast.Try | ast.With):
            yield from _names_in(one.body)
            yield from _names_in(getattr(one, "orelse", ()))


def _path_of(place: str) -> str | None:
    """The file of the module, or the file itself. A package is not imported to look into it."""
    if place.endswith(".py"):
        return place if os.path.isfile(place) else None
    folders: Sequence[str] | None = [os.getcwd(), *sys.path]
    found = None
    for part in place.split("."):
        try:
            spec = PathFinder.find_spec(part, folders)
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        found, folders = spec.origin, list(spec.submodule_search_locations or ())
    return found if found is not None and found.endswith(".py") else None
