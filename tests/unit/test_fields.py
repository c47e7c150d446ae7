"""What a column, or a label, can show of a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mpqueue._plain import field_of


@dataclasses.dataclass
class Choice:
    title: str = "a"
    choose: Callable[..., Any] = max
    kind: type = int

    @property
    def both(self) -> str:
        return f"{self.title}!"

    def format(self) -> str:
        raise AssertionError

    @staticmethod
    def split() -> str:
        raise AssertionError

    @classmethod
    def count(cls) -> str:
        raise AssertionError


@dataclasses.dataclass(slots=True)
class Slotted:
    count: Callable[..., Any] = len


class Pair(NamedTuple):
    count: int  # type: ignore[assignment]  # a method of tuples
    index: Callable[..., Any]


class Proxy:
    """What stands for a text, as a shared object does."""

    def __repr__(self) -> str:
        return "Proxy()"

    def __getattr__(self, name: str) -> Any:
        return getattr("bad", name)


class Odd(int):
    """A number with a field."""

    unit = "s"


@pytest.mark.parametrize(
    ("value", "name", "expected"),
    [
        (Choice(), "title", "a"),
        (Choice(), "both", "a!"),
        (Choice(), "choose", max),
        (Choice(), "kind", int),
        (Slotted(), "count", len),
        (Pair(3, len), "count", 3),
        (Pair(3, len), "index", len),
        (Path("d/x.tar.gz"), "name", "x.tar.gz"),
        (Path("d/x.tar.gz"), "suffix", ".gz"),
        (Path("d/x.tar.gz"), "stem", "x.tar"),
        (Path("d/x"), "parent", Path("d")),
        (1 + 2j, "real", 1.0),
        (range(3, 5), "start", 3),
        (Odd(3), "unit", "s"),
        (ValueError("x"), "args", ("x",)),
        (Choice, "title", "a"),
        (Choice, "__name__", "Choice"),
    ],
    ids=repr,
)
def test_attributes_are_fields(value: Any, name: str, expected: Any) -> None:
    assert field_of(value, name) == expected


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("bad", "title"),
        (b"bad", "count"),
        (17, "real"),
        (1.5, "imag"),
        (True, "numerator"),
        ([1], "count"),
        ({1}, "copy"),
        (Path("x"), "exists"),
        (Path("x"), "cwd"),
        (Choice(), "format"),
        (Choice(), "split"),
        (Choice(), "count"),
        (Choice, "format"),
        (Choice, "count"),
        (Choice(), "no name"),
        (Choice(), "missing"),
        (Proxy(), "title"),
    ],
    ids=repr,
)
def test_methods_and_what_all_numbers_and_texts_have_are_none(value: Any, name: str) -> None:
    absent = object()
    assert field_of(value, name, absent) is absent
