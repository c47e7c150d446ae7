"""The two rules for text: how it is shown to people, and how it is written for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqueue._text import (
    SHOWN,
    as_utf8,
    digits,
    encode_text,
    json_text,
    label,
    repr_of,
    shown,
    shown_json,
    visible,
    visible_line,
)

texts = st.text(st.characters(exclude_categories=()))
HUGE = 10**5000


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Kühe, 牛, 🐄", "Kühe, 牛, 🐄"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        (b"a\xff".decode(errors="surrogateescape"), r"a\udcff"),
        ("\ud800", r"\ud800"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31mred", r"\x9b31mred"),
        ("over\rwritten", r"over\rwritten"),
        ("gpj.\u202ename", r"gpj.\u202ename"),
        ("\u2066\u2069\u2028\x7f\0", r"\u2066\u2069\u2028\x7f\x00"),
    ],
)
def test_what_is_no_text_and_what_steers_a_terminal_is_shown_escaped(text: str, seen: str) -> None:
    assert visible(text) == seen
    assert visible_line(text) == seen.replace("\n", "\\n").replace("\t", "\\t")
    assert label(text) == visible_line(text)


@given(texts)
def test_what_is_shown_can_be_encoded_and_steers_nothing(text: str) -> None:
    assert not {*"\x1b\x07\x9b\r\u202e"} & set(visible(text))
    assert "\n" not in visible_line(text)
    visible(text).encode()
    assert visible(visible(text)) == visible(text)


@given(texts)
def test_json_is_utf_8_and_is_read_as_the_very_text(text: str) -> None:
    written = json_text({text: [text]}).encode()
    # Two halves that stand side by side are one character in JSON, as in UTF-16.
    assert json.loads(written) == {_whole(text): [_whole(text)]}
    assert not {*b"\x1b\x7f"} & set(written)
    told = json.loads(shown_json(text).encode())
    told.encode()
    assert not {*"\x9b\u202e\u2028\x7f"} & set(told)


def _whole(text: str) -> str:
    return json.loads(json.dumps(text))  # type: ignore[no-any-return]


@given(st.binary(max_size=20))
def test_bytes_that_are_no_utf_8_are_written_as_they_were(name: bytes) -> None:
    assert encode_text(name.decode(errors="surrogateescape")) == name


def test_a_surrogate_that_stands_for_no_byte_is_written_escaped() -> None:
    assert encode_text("\ud800\udcffé") == b"\\ud800\xff\xc3\xa9"
    assert as_utf8("\ud800\udcffé") == "\\ud800\\udcffé"


class Reprless:
    """Can't be shown."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


class Exits(Reprless):
    """Ends whatever looks at it."""

    def __repr__(self) -> str:
        raise SystemExit


def deep(depth: int) -> list[Any]:
    """Lists in lists."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize("number", [HUGE, -HUGE, 7 * HUGE], ids=["huge", "negative", "seven times"])
def test_an_integer_that_python_does_not_print_is_shown_by_its_beginning_and_written_in_full(number: int) -> None:
    written = digits(number)
    assert int(written, 16) == number
    bits = number.bit_length()
    for seen in (shown(number), label(number), repr_of(number)):
        start, _, size = seen.partition("... ")
        assert written.startswith(start)
        assert size == f"(an int of {bits:,} bits)"
    assert digits(-12) == "-12"


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ([1, HUGE, "x"], "an int of 16,610 bits), 'x']"),
        ({"a": (HUGE,)}, "an int of 16,610 bits),)}"),
        ([Reprless(), 5], "[<Reprless: its repr() raised ZeroDivisionError>, 5]"),
        (Exits(), "<Exits: its repr() raised SystemExit>"),
        (deep(100_000), "[[[[[[[...]]]]]]]"),
    ],
    ids=["in a list", "in a dict", "raises", "exits", "deep"],
)
def test_what_can_be_shown_of_a_value_is_shown(value: Any, seen: str) -> None:
    assert shown(value).endswith(seen)
    assert repr_of(value).endswith(seen)


def test_a_long_repr_is_cut_and_a_raw_one_is_escaped() -> None:
    class Raw:
        def __repr__(self) -> str:
            return "\x1b[2J\n" + "x" * 100_000

    assert shown(Raw()).startswith(r"\x1b[2J\nxxx")
    assert len(shown(Raw())) < SHOWN + 50
