"""The inputs of a command, from the command line or stdin, as items."""

from __future__ import annotations

import codecs
import csv
import glob
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from mpqueue._cli.usage import UsageError, say
from mpqueue._text import shown

#: The ways in which inputs can be read; "files" is the default.
KINDS = ("files", "lines", "jsonl", "csv")
STDIN = "-"
#: The most characters of a CSV cell; Python's default is 131,072.
_LONGEST_CELL = 2**31 - 1
#: The likely format of a file with that suffix, if it is the only one.
_ROWS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


def read_items(inputs: Sequence[str], kind: str | None) -> list[Any]:
    """Return the items. Raises UsageError for a file that can't be read, or has another format than the option says."""
    kind = _kind_of(inputs, kind)
    if inputs.count(STDIN) > 1:
        raise UsageError(f"-: expected stdin once, got it {inputs.count(STDIN)} times")
    if kind == "files":
        return _files(inputs)
    read: Callable[[TextIO], Iterable[Any]] = {"lines": _lines, "jsonl": _json_lines, "csv": _rows}[kind]
    items: list[Any] = []
    for name in _expanded(inputs) if inputs else [STDIN]:
        with _opened(name, "" if kind == "csv" else "\n") as file:
            try:
                items += read(file)
            except ValueError as error:
                raise UsageError(f"{_named(name)}: expected {kind}, got {error}") from None
            except OSError as error:
                raise UsageError(f"{_named(name)}: {error.strerror}") from None
    return items


def of_files(inputs: Sequence[str], kind: str | None) -> bool:
    """True if the items are files."""
    return _kind_of(inputs, kind) == "files"


def _kind_of(inputs: Sequence[str], kind: str | None) -> str:
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


def _named(name: str) -> str:
    return "stdin" if name == STDIN else name


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
