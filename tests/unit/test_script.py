"""What a program reads from the source of its main module: what is guarded, and what a worker finds there by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpqueue._wire.pickling import script


def outline(folder: Path, source: str) -> script._Outline:
    """Of a module with that source."""
    path = folder / "program.py"
    path.write_text(source, encoding="utf-8")
    return script._outline(str(path))


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('if __name__ == "__main__":\n    a = 1\n    b = 2\n', [(2, 2), (3, 3)]),
        ('if "__main__" == __name__: main()\n', [(1, 1)]),
        ('x = 1\nif __name__ == "__main__" and x:\n    main(\n        1)\n', [(3, 4)]),
        ('try:\n    if __name__ == "__main__":\n        main()\nfinally:\n    pass\n', [(3, 3)]),
        ('if __name__ != "__main__":\n    x = 1\nelse:\n    main()\n', [(4, 4)]),
        ('def f():\n    if __name__ == "__main__":\n        main()\n', []),
        ('if __name__ == "other":\n    "__main__"\n', []),
        ('print("__main__")\n', []),
        ('if __name__ == "__main__":\n    print "Python 2"\n', []),
        ("print(1)\n", []),
        ('if __name__ == "__main__":\n    print("\\d")\n', [(2, 2)]),
    ],
)
def test_lines_of_guards(source: str, lines: list[tuple[int, int]], tmp_path: Path) -> None:
    assert sorted(outline(tmp_path, source).guards) == lines


NAMES = """
import os.path, sys as system
from json import *
from json import dumps
Point = namedtuple("Point", "x y")
first, (second, *rest) = 1, (2, 3)
annotated: int = 4
for each in [inner for inner in rest]:
    with open(each) as file:
        size = 1
if size:
    def f(local): return local
class Config:
    attribute = 1
def twice(): pass
def sets():
    global made_later
    made_later = 1
if __name__ == "__main__":
    def here_only(): pass
    twice = 1
    def g(): in_function = 1
"""


def test_names_that_both_sides_have(tmp_path: Path) -> None:
    assert outline(tmp_path, NAMES).names == {
        *("os", "system", "*", "dumps", "Point", "first", "second", "rest", "annotated", "each", "file", "size"),
        *("f", "Config", "sets"),
    }


NEEDS = """
limit = 1
def plain(x): return x + limit + unknown
def one(x): return x + more
def two(x): return [one(y) for y in x]
def round_about(x): return about_round(x)
def about_round(x): return round_about(x) or two(x)
class Config:
    def ask(self): return lambda: more
def has_its_own(more): return more
def opens():
    global model
    model = 1
if __name__ == "__main__":
    more = limit = 1
"""


def test_names_that_only_the_program_has_are_needed_by_what_reads_them(tmp_path: Path) -> None:
    more, model = frozenset({"more"}), frozenset({"model"})
    assert outline(tmp_path, NEEDS).needs == {
        **dict.fromkeys(["one", "two", "round_about", "about_round", "Config"], more),
        "opens": model,
    }
