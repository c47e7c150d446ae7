"""The texts of a command for people: help, errors of usage, exit codes, and colours on a terminal."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Any, NoReturn, Self, TextIO

from mpqueue._call_checks import nearest
from mpqueue._os.standard_streams import pipes_break, understand_codes
from mpqueue._text import fitting, visible


class Exit(IntEnum):
    """The exit codes, each with its meaning: the same for all commands."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        """Make a code with its meaning."""
        one = int.__new__(cls, code)
        one._value_ = code
        one.meaning = meaning
        return one

    GOOD = 0, "all went well"
    FAILED = 1, "items failed, or something could not be read or written"
    USAGE = 2, "wrong usage: nothing was done"
    DRAINED = 75, "SIGTERM, --time-limit or --deadline came first: run it again to go on"  # EX_TEMPFAIL
    INTERRUPTED = 130, "Ctrl-C"
    NO_READER = 141, "the program that read the output has ended"


EXIT_CODES = "\n".join(["exit codes:", *(f"  {code:<4} {code.meaning}" for code in Exit)])


class UsageError(Exception):
    """Wrong usage; the message has the expected value and the given one."""


@contextmanager
def usage_errors(before: str = "", kinds: tuple[type[Exception], ...] = (TypeError, ValueError)) -> Iterator[None]:
    """Raise exceptions of these kinds as `UsageError`, with their messages after the text ``before``."""
    try:
        yield
    except kinds as error:
        raise UsageError(f"{before}{error}") from None


def first_given(args: argparse.Namespace, *names: str) -> str | None:
    """Return the flag of the first of these options that was given; None if none was."""
    return next((f"--{name.replace('_', '-')}" for name in names if getattr(args, name)), None)


class OutputError(Exception):
    """Stdout is closed, or can't be written to; the message says which."""


_CODES = {"red": "31", "green": "32", "yellow": "33", "bold": "1"}


class Coloured(str):
    """Text of mpqueue's own that may steer the terminal."""

    __slots__ = ()


def coloured(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in a colour, if the stream (stderr) is a terminal and ``NO_COLOR`` is not set."""
    stream = sys.stderr if stream is None else stream
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    understand_codes()
    return Coloured(f"\x1b[{_CODES[colour]}m{visible(text)}\x1b[0m")


def say(*parts: str) -> None:
    """Print text for people on stderr. Characters that could steer the terminal are escaped, unless `coloured`."""
    text = "".join(part if isinstance(part, Coloured) else visible(part) for part in parts)
    try:
        print(fitting(text, sys.stderr), file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:  # stderr can't be written to: the exit code remains
        pass


@contextmanager
def on_stdout() -> Iterator[TextIO]:
    """Yield Python's stdout, and flush it at the end. Raises OutputError if it is closed, or can't be written to.

    A closed stdout has the null device as its descriptor by now, which would take everything.
    """
    if sys.stdout is None:
        raise OutputError("stdout: expected a stream for the output, got one that is closed")
    try:
        with pipes_break():
            yield sys.stdout
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"stdout: {error.strerror}") from None


def say_error(text: str) -> None:
    """Print an error for people on stderr."""
    say(coloured("mpqueue: error:", "red"), f" {text}")


class Help(argparse.HelpFormatter):
    """Paragraphs are filled, except those of several lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        parts = text.strip().split("\n\n")
        return "\n\n".join(part if "\n" in part else fill(part, width, indent) for part in parts)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose help ends with the exit codes.

    An abbreviated option is no option: ``--retry 2`` is not ``--retry-delay 2``.
    """

    def __init__(self, *, epilog: str, **settings: Any) -> None:
        super().__init__(
            **settings, epilog=f"{epilog.strip()}\n\n{EXIT_CODES}", formatter_class=Help, allow_abbrev=False
        )
        self.color = False  # from Python 3.14: its colours depend on other settings than those of `coloured`
        self._positionals.title = "arguments"

    def error(self, message: str) -> NoReturn:
        """Print the error, and where to find the usage."""
        what = "options" if " " in self.prog else "commands"
        say_error(message if "--help" in message else f"{message}; `{self.prog} --help` lists the {what}")
        self.exit(Exit.USAGE)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            meant = nearest(value, action.choices)
            hint = "" if meant is None else f"; did you mean {meant}?"
            raise argparse.ArgumentError(action, f"expected {', '.join(action.choices)}, got {value!r}{hint}")

    def _print_message(self, message: str, file: Any = None) -> None:
        stream = file or sys.stderr
        with on_stdout() if stream is sys.stdout else suppress(OSError):
            stream.write(fitting(message or "", stream))


class VisibleFormatter(logging.Formatter):
    """The formatter of handlers' log records, for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, with its item's label."""
        name = getattr(record, "mpqueue_label", None)
        if name is not None:
            record.where = f"{name}: "
        return visible(super().format(record))
