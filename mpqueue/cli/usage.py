"""What a command says to people: errors of usage, exit codes, and colours where there is a terminal."""

from __future__ import annotations

import os
import sys
from enum import IntEnum
from typing import TextIO


class Exit(IntEnum):
    """How a command ended."""

    GOOD = 0
    FAILED = 1  #: some items failed, or it could not be done
    USAGE = 2  #: it was told something that makes no sense
    INTERRUPTED = 130  #: Ctrl-C
    NO_READER = 141  #: who read its output has gone


class UsageError(Exception):
    """The command was told something that makes no sense; the message says what was expected, and what was there."""


_CODES = {"red": "31", "green": "32", "yellow": "33", "bold": "1"}


def coloured(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in a colour, where the stream (stderr) is a terminal and nobody has asked for none (``NO_COLOR``)."""
    stream = sys.stderr if stream is None else stream
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def say(text: str) -> None:
    """Tell people something, on stderr."""
    print(text, file=sys.stderr, flush=True)


def say_error(text: str) -> None:
    """Tell people what is wrong, on stderr."""
    say(f"{coloured('mpqueue: error:', 'red')} {text}")
