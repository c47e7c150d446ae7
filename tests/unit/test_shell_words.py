"""A command line that is printed can be given again, to the shell of each system."""

from __future__ import annotations

import os
import shlex

import pytest

from mpqueue._os import shell_words


@pytest.mark.parametrize("word", ["a", "", "my file", "it's", "$x", "a\nb", os.fsdecode(b"\xff\\'")])
def test_a_posix_shell_takes_a_word_as_it_was(word: str) -> None:
    quoted = shell_words._for_posix(word)
    if quoted.startswith("$'"):
        assert quoted[2:-1].encode().decode("unicode_escape").encode("latin-1") == os.fsencode(word)
    else:
        assert shlex.split(quoted) == [word]


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("-j1", "-j1"),
        (r"C:\files\a.txt", r"C:\files\a.txt"),
        ("\xe4", "\xe4"),
        ("", '""'),
        (r"my files\a.txt", r'"my files\a.txt"'),
        ("my files\\", '"my files\\\\"'),
        ("a&b", '"a&b"'),
        ("it's", '"it\'s"'),
        ("*.txt", '"*.txt"'),
        ("100%", "100%"),
        ('say "a&b"', r'^"say \^"a^&b\^"^"'),
        ("a\nb", r"a\nb"),
    ],
)
def test_cmd_takes_a_word_as_it_was(word: str, quoted: str) -> None:
    assert shell_words._for_windows(word) == quoted
