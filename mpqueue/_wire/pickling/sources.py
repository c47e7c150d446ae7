"""Digests of users' modules, to check whether a worker elsewhere has the same source code as this process.

Functions that can be imported are sent by name. A worker of a cluster has its own files. So a handler's frame has a
digest of each of its modules, and a worker with a different file refuses the job, and names the module.

Comments and the form of the code do not count: the digest is of its syntax tree.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import os
import pickletools
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from mpqueue._os.process_handle import process_name
from mpqueue._wire.pickling.main_names import is_users


class Sources(NamedTuple):
    """The digests of a handler's modules in the parent, by name; modules come after those that they import."""

    process: str  #: the parent, see `process_name`
    digests: tuple[tuple[str, str], ...]


def sources_of(pickles: Iterable[bytes]) -> Sources | None:
    """Return the digests of users' modules that these pickles name, and of modules that those import; None if none.

    A module costs a few milliseconds per 1,000 lines, once until it is edited.
    """
    found: dict[str, str] = {}
    for name in _names(pickles):
        _add(name, found, set())
    digests = tuple((name, digest) for name, digest in found.items() if digest)
    return Sources(process_name(), digests) if digests else None


def digests_of(names: Iterable[str]) -> dict[str, str]:
    """Return the digests of these users' modules, loaded or not, and of those that the loaded ones import.

    For a module without Python code, the bytes of its file count.
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        if name in sys.modules:
            _add(name, found, set())
        elif (module := not_loaded(name)) is not None:
            found[name] = _digest_of(module)
    for name in [name for name, digest in found.items() if not digest]:
        with contextlib.suppress(OSError), open(str(vars(sys.modules[name]).get("__file__")), "rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def not_loaded(name: str) -> ModuleType | None:
    """Return an empty module with the file of one that is not loaded; None if not found, or not the user's."""
    path: Any = None
    spec = None
    for count, _ in enumerate(name.split("."), 1):
        spec = PathFinder.find_spec(".".join(name.split(".")[:count]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    module = ModuleType(name)
    module.__spec__, module.__file__ = spec, None if spec is None else spec.origin
    return module if is_users(name, module) else None


def _names(pickles: Iterable[bytes]) -> Iterator[str]:
    """Yield each text that is the name of a module; accidental matches do no harm."""
    for data in pickles:
        for _, argument, _ in pickletools.genops(data):
            if isinstance(argument, str) and argument.partition(" ")[0] in sys.modules:
                yield argument.partition(" ")[0]


def _add(name: str, found: dict[str, str], under_way: set[str]) -> None:
    module = sys.modules.get(name)
    if name in found or name in under_way or module is None or not is_users(name, module):
        return
    under_way.add(name)
    if "." in name:
        _add(name.rpartition(".")[0], found, under_way)
    for value in list(vars(module).values()):
        if isinstance(value, ModuleType):
            _add(value.__name__, found, under_way)
        elif isinstance(value, FunctionType | type):
            _add(value.__module__, found, under_way)
    found[name] = _digest_of(module)


def _digest_of(module: ModuleType) -> str:
    """Return a digest of a module's current file; "" if it has none that can be read as Python."""
    path = str(vars(module).get("__file__"))
    try:
        found = os.stat(path)
        return _digest(path, found.st_mtime_ns, found.st_size)
    except (OSError, SyntaxError, ValueError):
        return ""


@functools.lru_cache(1024)
def _digest(path: str, _changed: int, _size: int) -> str:
    with open(path, "rb") as file:
        tree = ast.parse(file.read())
    return hashlib.blake2b(ast.dump(tree).encode(errors="surrogatepass"), digest_size=16).hexdigest()


# -- in a worker -------------------------------------------------------------------------------------------------------


def check_loaded(sources: Sources) -> None:
    """Check, after a handler was loaded, that the modules imported for it are the parent's.

    Raises ImportError for a module whose file here differs.
    """
    if sources.process == process_name():
        return
    for name, wanted in sources.digests:
        module = sys.modules.get(name)
        if module is not None and _digest_of(module) != wanted:
            sys.modules.pop(name)  # the next handler finds the then current file
            raise ImportError(
                f"expected the module {name!r} as it is in the program, got another one: "
                f"{vars(module).get('__file__')}; bring the same files to all workers, or define its functions in the "
                "program itself"
            )
