"""Terminals: programs that run at one, what they print there, and what a person would see of it."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.programs import PATIENCE, write_program

if sys.platform != "win32":  # whose consoles can't be played by a program
    import fcntl
    import pty
    import termios

ROWS, COLUMNS = 24, 100


#: Makes standard input the terminal that this session is controlled by, and becomes the program that is named.
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A program in the foreground of a terminal of its own, of which everything that is printed is kept."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        if sys.platform == "win32":
            pytest.skip("Windows: no program can play a console")
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        attributes = termios.tcgetattr(slave)
        attributes[1] &= ~termios.OPOST  # newlines stay what they are
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, sys.executable, *arguments],
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._text = b""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        while True:
            try:
                text = os.read(self.master, 1 << 16)
            except OSError:  # nobody has the other end open any more
                return
            if not text:
                return
            self._text += text

    @property
    def text(self) -> str:
        """What the terminal shows, but for the echo of Ctrl-C."""
        return self._text.decode().replace("^C", "")

    def press_ctrl_c(self) -> None:
        """As a person does: the terminal sends SIGINT to the whole foreground group."""
        os.write(self.master, b"\x03")

    def end(self) -> int:
        """Wait for the program's end, and return its exit code."""
        code = self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        return code


@contextmanager
def terminal(folder: Path, body: str) -> Iterator[Terminal]:
    """A script at a terminal; ``body`` may be indented as a whole."""
    with terminal_with(folder, str(write_program(folder, body))) as shown:
        yield shown


@contextmanager
def terminal_with(folder: Path, *arguments: str) -> Iterator[Terminal]:
    """The interpreter at a terminal, with these arguments."""
    shown = Terminal(folder, list(arguments))
    try:
        yield shown
    finally:
        shown.process.kill()
        shown.process.wait()
        shown.reader.join(PATIENCE)
        os.close(shown.master)


def screen(text: str) -> list[str]:
    """What is to be seen on a screen without an end after this was written to it: its lines, without trailing blanks.

    Knows what bars use: carriage returns, lines up, and clearing from the cursor on.
    """
    lines, row, column = [""], 0, 0
    for part in re.split(r"(\r|\n|\x1b\[[0-9;]*[A-Za-z])", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[A":
            row = max(0, row - 1)
        elif part in {"\x1b[J", "\x1b[K"}:
            lines[row] = lines[row][:column]
            if part == "\x1b[J":
                del lines[row + 1 :]
        elif part and not part.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]
