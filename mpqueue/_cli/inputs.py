"""The inputs of a command, from the command line or stdin, as items; and its function, by name, as an object.

A function is named as ``module:function`` or ``path/file.py:function``.
"""

from __future__ import annotations

import codecs
import csv
import glob
import importlib
import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import reduce
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, TextIO

from mpqueue._call_checks import nearest
from mpqueue._cli.usage import UsageError, say
from mpqueue._text import shown
from mpqueue._wire.pickling.main_names import module_name_of

#: The ways in which inputs can be read; "files" is the default.
KINDS = ("files", "lines", "jsonl", "csv")
STDIN = "-"
#: The most characters of a CSV cell; Python's default is 131,072.
_LONGEST_CELL = 2**31 - 1
#: The likely format of a file with that suffix, if it is the only one.
_ROWS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


def read_items(inputs: Sequence[str], kind: str | None) -> list[Any]:
    """Return the items. Raises UsageError for a file that can't be read, or has another format than the option says."""
    kind = kind_of(inputs, kind)
    if inputs.count(STDIN) > 1:
        raise UsageError(f"-: expected stdin once, got it {inputs.count(STDIN)} times")
    if kind == "files":
        return _files(inputs)
    read: Callable[[TextIO], Iterable[Any]] = {"lines": _lines, "jsonl": _json_lines, "csv": _rows}[kind]
    items: list[Any] = []
    for name in _expanded(inputs) if inputs else [STDIN]:
        source = "stdin" if name == STDIN else name
        with _opened(name, "" if kind == "csv" else "\n") as file:
            try:
                items += read(file)
            except ValueError as error:
                raise UsageError(f"{source}: expected {kind}, got {error}") from None
            except OSError as error:
                raise UsageError(f"{source}: {error.strerror}") from None
    return items


def kind_of(inputs: Sequence[str], kind: str | None) -> str:
    """Return how the inputs are read: as the option says, else as files, or as the lines of stdin alone."""
    return kind or ("lines" if list(inputs) == [STDIN] else "files")


def _files(inputs: Sequence[str]) -> list[str]:
    if not inputs:
        raise UsageError("INPUT: expected files, patterns, or - for the lines of stdin, got none")
    if STDIN in inputs:
        raise UsageError(
            "-: expected it alone, for the lines of stdin, got it among files; --from lines, jsonl or csv reads "
            "what is in stdin and in files; ./- is a file of that name"
        )
    names = list(_expanded(inputs))
    if len(names) == 1 and (kind := _ROWS.get(os.path.splitext(names[0])[1].lower())) is not None:
        say(f"mpqueue: the one item is the file {names[0]} itself; --from {kind} makes an item of each row in it")
    for name in names:
        if os.path.isdir(name):
            raise UsageError(
                f"{name}: expected a file, got a folder; for the files in it, use '{os.path.join(name, '*')}'"
            )
    return names


def _expanded(inputs: Sequence[str]) -> Iterator[str]:
    for name in inputs:
        if name == STDIN or os.path.exists(name):
            yield name
        elif glob.has_magic(name):
            found = sorted(glob.glob(name, recursive=True))
            if not found:
                raise UsageError(f"{name}: expected a pattern of files, got one that matches no file")
            yield from found
        else:
            raise UsageError(f"{name}: expected a file, got a name that is not there")


@contextmanager
def _opened(name: str, newline: str) -> Iterator[TextIO]:
    """The file, or stdin, without a byte order mark at the beginning of UTF-8."""
    if name == STDIN:
        if sys.stdin is None:
            raise UsageError("-: expected lines on stdin, got a closed stdin")
        if isinstance(sys.stdin, io.TextIOWrapper):  # bytes that are no text are kept, as in file names
            sys.stdin.reconfigure(encoding=_encoding_of(sys.stdin), errors="surrogateescape", newline=newline)
        yield sys.stdin
        return
    try:
        file = open(name, newline=newline, encoding="utf-8-sig", errors="surrogateescape")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from None
    with file:
        yield file


def _encoding_of(file: io.TextIOWrapper) -> str:
    """The file's encoding: UTF-8 if its mark says so, else the locale's."""
    if file.encoding.lower() in ("utf-8", "utf8"):
        return "utf-8-sig"
    if isinstance(file.buffer, io.BufferedReader):
        with suppress(OSError):  # reading raises it again
            if file.buffer.peek(len(codecs.BOM_UTF8)).startswith(codecs.BOM_UTF8):
                return "utf-8-sig"
    return file.encoding


def _lines(file: TextIO) -> Iterator[str]:
    for line in file:
        if text := line.removesuffix("\r\n").removesuffix("\n"):
            yield text


def _json_lines(file: TextIO) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            except RecursionError:
                raise ValueError(f"line {number}: lists or objects that are nested too deeply") from None


def _rows(file: TextIO) -> Iterator[dict[str, str]]:
    """Yield a dict per row. Raises ValueError for losses: two columns of one name, too many or too few cells."""
    limit = csv.field_size_limit(_LONGEST_CELL)
    line = 0
    try:
        reader = csv.reader(file, strict=True)
        names: list[str] = []
        for row in reader:
            line, first = reader.line_num + 1, line or 1
            if not names:
                names = row
                _check_names(names, first)
            elif len(row) == len(names):
                yield dict(zip(names, row, strict=True))
            elif row:
                raise ValueError(f"line {first}: expected {len(names)} cells, one for each column, got {len(row)}")
    except csv.Error as error:
        raise ValueError(f"line {line or 1}: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _check_names(names: Sequence[str], line: int) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"line {line}: expected another name for each column, got two called {shown(twice)}")


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
    return None if PathFinder.find_spec(module.partition(".")[0], [here]) is None else here


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
    if PathFinder.find_spec(top, [here]) is not None:
        _put_first(here)
    elif here not in sys.path:
        sys.path.append(here)  # what the module imports may be there
    if file is not None and not _is_same(_place_of(top), file):
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
    is_plain = (
        "." not in file.stem and file.stem not in sys.stdlib_module_names and _is_same(_place_of(file.stem), str(file))
    )
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


def _place_of(name: str) -> str | None:
    """Return the file of that module, loaded or to be imported; None if there is none."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__file__", None)
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.origin


def _found_in(folders: list[str], name: str) -> str | None:
    """The file of that module in the first of these folders that has it."""
    spec = PathFinder.find_spec(name, folders)
    return None if spec is None else spec.origin


def _is_same(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return False
    try:
        return one == other or os.path.samefile(one, other)
    except OSError:  # such as "built-in", or a module in a zip file
        return False
