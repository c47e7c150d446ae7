"""Words of a command line, quoted for the shell of this system."""

from __future__ import annotations

import os
import re
import shlex
import subprocess

from mpqueue._os.system import IS_WINDOWS
from mpqueue._text import visible_line


def _for_posix(word: str) -> str:
    """Quote a word for a shell; control characters get a form that bash, zsh and ksh know."""
    if visible_line(word) == word:
        return shlex.quote(word)
    return f"$'{''.join(_as_escape(byte) for byte in os.fsencode(word))}'"


def _as_escape(byte: int) -> str:
    character = chr(byte)
    if character in "\\'":
        return f"\\{character}"
    return character if " " <= character <= "~" else f"\\{byte:03o}"


#: Characters besides letters and digits that need no quotes in `cmd.exe` and in PowerShell.
_PLAIN = frozenset("-+_./:\\=%")


def _for_windows(word: str) -> str:
    """Quote a word for `cmd.exe`, and PowerShell unless it has a quote. Control characters have no form there.

    A name between two `%` can't be quoted either; it stays unchanged if there is no such variable.
    """
    word = visible_line(word)
    if '"' in word:  # cmd does not know `\"`, and must not see a quote
        return re.sub(r'[()!^"<>&|]', r"^\g<0>", subprocess.list2cmdline([word]))
    if word and all(character.isalnum() or character in _PLAIN for character in word):
        return word
    backslashes = len(word) - len(word.rstrip("\\"))
    return f'"{word}{backslashes * chr(92)}"'


#: Returns a word, quoted if necessary.
quoted = _for_windows if IS_WINDOWS else _for_posix
