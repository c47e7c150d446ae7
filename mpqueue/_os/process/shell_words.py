"""Words of a command line, as the shell of this system takes them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess

from mpqueue._os.system import IS_WINDOWS
from mpqueue._text import visible_line


def _for_posix(word: str) -> str:
    """Quote a word for a shell: bash, zsh and ksh know the form for what can't be shown."""
    if visible_line(word) == word:
        return shlex.quote(word)
    return f"$'{''.join(_as_escape(byte) for byte in os.fsencode(word))}'"


def _as_escape(byte: int) -> str:
    character = chr(byte)
    if character in "\\'":
        return f"\\{character}"
    return character if " " <= character <= "~" else f"\\{byte:03o}"


#: Besides letters and digits, what needs no quotes in `cmd.exe` and in PowerShell.
_PLAIN = frozenset("-+_./:\\=%")


def _for_windows(word: str) -> str:
    """Quote a word for `cmd.exe`, and PowerShell unless it has a quote. What can't be shown has no form there.

    The name of a variable between two `%` has none either; it stays as it is where there is no such variable.
    """
    word = visible_line(word)
    if '"' in word:  # cmd does not know `\"`, and must see no quote
        return re.sub(r'[()!^"<>&|]', r"^\g<0>", subprocess.list2cmdline([word]))
    if word and all(character.isalnum() or character in _PLAIN for character in word):
        return word
    backslashes = len(word) - len(word.rstrip("\\"))
    return f'"{word}{backslashes * chr(92)}"'


#: A word, quoted where it must be.
quoted = _for_windows if IS_WINDOWS else _for_posix
