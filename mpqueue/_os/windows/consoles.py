"""Consoles: standard streams that write to one, and its terminal codes."""

from __future__ import annotations

import ctypes
import io
import msvcrt
import os
import sys
from ctypes import wintypes
from typing import Any

from mpqueue._os.windows import kernel32

assert sys.platform == "win32"

_OUTPUT, _ERRORS = 0xFFFFFFF5, 0xFFFFFFF4  # -11 and -12
_UNDERSTANDS_CODES = 0x4


def understand_codes() -> None:
    """Make this process's console interpret terminal codes: by default it shows them as text."""
    for number in (_OUTPUT, _ERRORS):
        handle, mode = kernel32.standard_handle(number), wintypes.DWORD()
        if kernel32.console_mode(handle, mode):
            kernel32.set_console_mode(handle, mode.value | _UNDERSTANDS_CODES)


def follow_numbers() -> None:
    """Replace standard output and error if they are Python's own for consoles, see `_Followed`."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)  # unbuffered streams are their own
        if type(raw).__name__ != "_WindowsConsoleIO":
            continue
        stream.flush()
        followed: Any = _Followed(raw, stream)
        new = io.TextIOWrapper(
            followed if buffer is raw else io.BufferedWriter(followed),
            stream.encoding,
            stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


class _Followed(io.RawIOBase):
    """A stream that writes where its number leads now. Python's own assumes a console, and fails with files."""

    def __init__(self, console: Any, stream: Any) -> None:
        self._console = console
        self._stream = stream  # held: it would close the number once nothing refers to it
        self._fd: int = console.fileno()

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return _is_console(self._fd)

    def write(self, data: Any, /) -> int | None:
        if _is_console(self._fd):
            count: int | None = self._console.write(data)
            return count
        return os.write(self._fd, data)


def _is_console(fd: int) -> bool:
    return bool(kernel32.console_mode(msvcrt.get_osfhandle(fd), ctypes.byref(wintypes.DWORD())))
