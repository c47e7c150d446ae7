"""What a handler is made of, for a journal: which edits of the script count, and which parts they are said to be."""

from __future__ import annotations

import functools
import sys
import types
from typing import Any

import pytest

from mpqueue import share
from mpqueue._queue.recorded.code_parts import Code, CodeNow, code_of

#: A script in which each place that is marked counts.
SCRIPT = """
import enum, functools, made_package

class Base:
    def common(self): return 1  # base

class Config(Base):
    __slots__ = ("size",)
    level = 1  # level
    @property
    def double(self): return 2  # get
    @double.setter
    def double(self, value): self.size = 1  # set
    @staticmethod
    def plain(): return 3  # static
    @classmethod
    def named(cls): return 4  # class method

class Colour(enum.Enum):
    RED = 5  # member
    def shade(self): return 6  # method

@functools.cache
def cached(x): return 7  # cached

def wraps(function): return function
rate = 8  # data

def f(x):
    return Config, Colour, cached(x), rate, made_package.call(x), shared
"""
MARKS = [line.partition("  # ")[2] for line in SCRIPT.splitlines() if "  # " in line]


def made(source: str = SCRIPT, version: str = "1.0", monkeypatch: Any = None, shared: Any = None) -> CodeNow:
    package = types.ModuleType("made_package")
    package.__dict__.update(__version__=version, call=len)
    monkeypatch.setitem(sys.modules, "made_package", package)
    names: dict[str, Any] = {"__name__": "__main__", "shared": shared}
    exec(source, names)
    return code_of(names["f"])


@pytest.mark.parametrize("mark", MARKS)
def test_an_edit_of_what_it_uses_counts_and_is_named(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = SCRIPT.splitlines()
    [at] = [number for number, line in enumerate(lines) if line.endswith(f"  # {mark}")]
    code, _, _ = lines[at].partition("  # ")
    digit = next(each for each in reversed(code) if each.isdigit())
    lines[at] = code[::-1].replace(digit, digit * 2, 1)[::-1]
    before, now = made(monkeypatch=monkeypatch), made("\n".join(lines), monkeypatch=monkeypatch)
    assert now.code.number != before.code.number
    changed = [name for name, digest in now.code.parts.items() if before.code.parts.get(name) != digest]
    assert len(changed) == 1
    assert now.describe([before.code]) == f"{now.places.get(changed[0], f'`{changed[0]}`')} has changed"


def test_what_stands_elsewhere_or_is_not_used_is_the_same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = made(monkeypatch=monkeypatch)
    moved = "\n\n" + SCRIPT.replace("def wraps(function): return function", "def unused(): return 9")
    assert made(moved, monkeypatch=monkeypatch).code.number == before.code.number


def test_another_version_of_a_package_is_said_beside_what_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = made(monkeypatch=monkeypatch)
    now = made(SCRIPT.replace("rate = 8", "rate = 9"), "2.0", monkeypatch)
    assert before.code.packages == {"made_package": "1.0"}
    assert now.describe([before.code]).endswith("has changed (made_package is 2.0 and was 1.0)")
    assert made(version="2.0", monkeypatch=monkeypatch).code.number == before.code.number, "it is no change by itself"


def test_what_is_shared_counts_by_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [made(monkeypatch=monkeypatch, shared=share(value)).code.number for value in ([1], [1], [2])]
    assert numbers[0] == numbers[1] != numbers[2]


def test_many_changes_are_counted_and_a_part_that_came_or_went_is_named() -> None:
    now = Code("3", dict.fromkeys("abcdefgh", "new"), {})
    before = Code("3", dict.fromkeys("abcdefgh", "old"), {})
    text = CodeNow(now, {"a": "`a`, s.py:1"}).describe([before])
    assert text.startswith("`a`, s.py:1, `b`")
    assert text.endswith(" others have changed")
    gone = CodeNow(Code("3", {"a": "same"}, {}), {}).describe([Code("3", {"a": "same", "b": "old"}, {})])
    assert gone == "`b` has changed"


def test_a_handler_and_its_setup_are_named_as_people_know_them() -> None:
    def f(x: int) -> int:
        return x

    bare, bound = code_of(f), code_of(functools.partial(f, 1), f)
    assert "the handler (now `" in bare.places["the handler"]
    assert bare.places["the setup"] == "the setup"
    assert bound.places["the handler"].startswith("what is bound to `")
    assert bound.places["the setup"].startswith("the setup (now `")
