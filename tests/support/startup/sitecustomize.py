"""Runs first in each Python process that the tests start: tags the names that it will take in shared folders.

`multiprocessing`, loky and `tempfile` name semaphores, shared memory and files at random. In /dev/shm such names do not
say which program made them, and other programs make names of the same kind there. With this run's tag in place of some
of the random characters, `tests.support.leaks` recognises what a program of ours has left, even if it was killed.
Names keep their length.

Nothing is imported here: the modules are changed when the program itself imports them. Processes that ignore PYTHONPATH
have no tag. What `tests.support.mutants` has changed is run in place of what is in the files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

#: The variable that holds this run's cookie.
COOKIE = "MPQUEUE_TEST_RUN"
#: The variables that hold a folder with changed code, by the names of modules, and the file in which it notes calls,
#: behind as many bytes that say where.
CHANGED, CALLS, START = "MPQUEUE_TEST_CHANGED", "MPQUEUE_TEST_CALLS", 8
#: What changed code calls with the number of each function that it runs.
CALLED = "called_in_a_test"
#: Letters that are no hexadecimal digits: names of `multiprocessing.shared_memory` consist of these.
_LETTERS = str.maketrans("0123456789abcdef", "ghijklmnopqrstuv")
_LENGTH = 4


def tag() -> str:
    """What this run's names contain; empty outside of a run."""
    return os.environ.get(COOKIE, "")[:_LENGTH].translate(_LETTERS)


def _tag_tempfile(tempfile: Any) -> None:
    """Names of temporary files, and of the semaphores of multiprocessing and loky, which take theirs from there."""
    names = tempfile._RandomNameSequence
    original = names.__next__

    def take(self: Any) -> str:
        mark = tag()
        return mark + str(original(self))[len(mark) :]

    names.__next__ = take


def _tag_shared_memory(shared_memory: Any) -> None:
    original = shared_memory._make_filename

    def take() -> str:
        start, mark = len(shared_memory._SHM_NAME_PREFIX), tag()
        name = str(original())
        return name[:start] + mark + name[start + len(mark) :]

    shared_memory._make_filename = take


_CHANGES: dict[str, Callable[[Any], None]] = {
    "tempfile": _tag_tempfile,
    "multiprocessing.shared_memory": _tag_shared_memory,
}


class _TaggingFinder:
    """Lets the other finders find these modules, and changes them once they have run."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """See `importlib.abc.MetaPathFinder`."""
        if name not in _CHANGES:
            return None
        spec = _find(name, path, [finder for finder in sys.meta_path if finder is not self])
        if spec is not None:
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                _CHANGES[name](module)

            spec.loader.exec_module = exec_module
        return spec


def _find(name: str, path: Any, finders: list[Any]) -> Any:
    return next(filter(None, (finder.find_spec(name, path) for finder in finders)), None)


def _run_changed(folder: str) -> None:
    import builtins
    import marshal
    import mmap
    from importlib.machinery import SourceFileLoader

    unchanged = SourceFileLoader.get_code

    def get_code(self: Any, name: str) -> Any:
        if name.startswith("mpqueue.") and os.path.exists(path := os.path.join(folder, name)):
            with open(path, "rb") as file:
                return marshal.load(file)
        return unchanged(self, name)

    SourceFileLoader.get_code = get_code  # type: ignore[assignment,method-assign]
    if CALLS in os.environ:
        with open(os.environ[CALLS], "r+b") as file:
            table = mmap.mmap(file.fileno(), 0)

        def called(number: int) -> None:
            table[int.from_bytes(table[:START], "little") + number] = 1

        setattr(builtins, CALLED, called)


def _run_the_one_behind() -> None:
    """Run the ``sitecustomize`` that this one hides, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    path = [folder for folder in sys.path if os.path.abspath(folder) != here]
    spec = _find("sitecustomize", path, sys.meta_path)
    if spec is not None:
        module: Any = type(sys)("sitecustomize")
        module.__file__ = spec.origin
        spec.loader.exec_module(module)


def install() -> None:
    """Tag the names of this process from now on; a second time changes nothing. Windows has no such folder."""
    if os.name == "nt":
        return
    if any(type(finder).__name__ == _TaggingFinder.__name__ for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _TaggingFinder())
    for name, change in _CHANGES.items():
        if name in sys.modules:
            change(sys.modules[name])


if __name__ == "sitecustomize":
    install()
    if CHANGED in os.environ:
        _run_changed(os.environ[CHANGED])
    if os.environ.get("MPQUEUE_PORTABLE") == "1":
        import bare_posix  # type: ignore[import-not-found]

        bare_posix.take_away()
    _run_the_one_behind()
