"""What a command says to people: errors of usage, exit codes, and colours where there is a terminal."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from enum import IntEnum
from typing import Any, NoReturn, TextIO

from mpqueue._os.standard_streams import understand_codes
from mpqueue._text import fitting, visible


class Exit(IntEnum):
    """How a command ended."""

    GOOD = 0
    FAILED = 1  #: some items failed, or it could not be done
    USAGE = 2  #: wrong usage
    DRAINED = 75  #: SIGTERM or the time limit came before the end: the same command goes on (EX_TEMPFAIL)
    INTERRUPTED = 130  #: Ctrl-C
    NO_READER = 141  #: who read its output has gone


class UsageError(Exception):
    """Wrong usage; the message says what was expected, and what was there."""


_CODES = {"red": "31", "green": "32", "yellow": "33", "bold": "1"}


class Coloured(str):
    """Text of this program's own that steers the terminal, and may."""

    __slots__ = ()


def coloured(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in a colour, if the stream (stderr) is a terminal and ``NO_COLOR`` is not set."""
    stream = sys.stderr if stream is None else stream
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    understand_codes()
    return Coloured(f"\x1b[{_CODES[colour]}m{visible(text)}\x1b[0m")


def say(*parts: str) -> None:
    """Tell people something, on stderr. What could steer the terminal is escaped, but for what `coloured` made."""
    tell("".join(part if isinstance(part, Coloured) else visible(part) for part in parts), sys.stderr)


def tell(text: str, stream: TextIO | None = None) -> None:
    """A line for people, on stdout or another stream, also where its encoding does not have all of it."""
    stream = sys.stdout if stream is None else stream
    print(fitting(text, stream), file=stream, flush=True)


def say_error(text: str) -> None:
    """Tell people what is wrong, on stderr."""
    say(coloured("mpqueue: error:", "red"), f" {text}")


class Parser(argparse.ArgumentParser):
    """One whose words can't steer the terminal: it repeats what it was given. An error is one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where the usage is."""
        say_error(message if "--help" in message else f"{message}; `{self.prog} --help` lists the options")
        self.exit(Exit.USAGE)

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(fitting(visible(message), file or sys.stderr) if message else message, file)


class VisibleFormatter(logging.Formatter):
    """Of what handlers log, for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, with what its item is called."""
        name = getattr(record, "mpqueue_label", None)
        if name is not None:
            record.where = f"{name}: "
        return visible(super().format(record))
