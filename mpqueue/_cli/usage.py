"""What a command says to people: errors of usage, exit codes, and colours where there is a terminal."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Any, NoReturn, TextIO

from mpqueue._os.standard_streams import pipes_break, understand_codes
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


class OutputError(Exception):
    """Stdout is closed, or does not take what is written to it; the message says which."""


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
    text = "".join(part if isinstance(part, Coloured) else visible(part) for part in parts)
    try:
        print(fitting(text, sys.stderr), file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:  # stderr takes nothing: the exit code remains
        pass


def tell(text: str) -> None:
    """A line for people, on stdout, also where its encoding does not have all of it. Raises OutputError."""
    with on_stdout() as stream:
        print(fitting(text, stream), file=stream)


@contextmanager
def on_stdout() -> Iterator[TextIO]:
    """Python's stdout, flushed at the end. Raises OutputError where it was closed from the start, or takes no more.

    What was closed has the null device as its descriptor by now, which would take everything.
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
    """Tell people what is wrong, on stderr."""
    say(coloured("mpqueue: error:", "red"), f" {text}")


class Parser(argparse.ArgumentParser):
    """One whose words can't steer the terminal: it repeats what it was given. An error is one line.

    The beginning of an option's name is no option: ``--retry 2`` is not ``--retry-delay 2``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where the usage is."""
        say_error(message if "--help" in message else f"{message}; `{self.prog} --help` lists the options")
        self.exit(Exit.USAGE)

    def _print_message(self, message: str, file: Any = None) -> None:
        stream = file or sys.stderr
        with on_stdout() if stream is sys.stdout else suppress(OSError):
            stream.write(fitting(visible(message or ""), stream))


class VisibleFormatter(logging.Formatter):
    """Of what handlers log, for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, with what its item is called."""
        name = getattr(record, "mpqueue_label", None)
        if name is not None:
            record.where = f"{name}: "
        return visible(super().format(record))
