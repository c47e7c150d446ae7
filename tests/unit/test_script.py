"""What a program reads from the source of its main module: what is guarded, and what a worker finds there by name."""

from __future__ import annotations

import pickle
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from mpqueue._wire.pickling import beside, main_names, script
from mpqueue._wire.pickling.beside import within


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
class Fields:
    field = more
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
        **dict.fromkeys(["one", "two", "round_about", "about_round", "Config", "Fields"], more),
        "opens": model,
    }


GUARDED = "def f(): return only_here\ndef g(): pass\nif __name__ == '__main__':\n    only_here = 1\n"


def program(folder: Path, source: str = GUARDED, file: str = "program.py", **attributes: object) -> ModuleType:
    """A main module, which has been run."""
    made = ModuleType("__main__")
    made.__file__ = str(folder / file)
    Path(made.__file__).write_text(source, encoding="utf-8")
    vars(made).update(attributes)
    return made


def test_a_program_that_guards_its_start_can_be_imported_and_is_asked_for_what_is_on_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", main := program(tmp_path))
    found = script.script_here(starts_now=True)
    assert found is not None
    assert found.path == main.__file__
    assert [found.has(name) for name in ("f", "g", "g.attribute", "only_here", "none")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    main.__dict__["only_here"] = 1
    assert [found.has(name) for name in ("f", "g")] == [False, True], "what reads that goes by value"


@pytest.mark.parametrize(
    ("file", "source", "spec"),
    [
        ("program.py", "print(1)\n", None),
        ("ipython", GUARDED, None),
        ("ipython.py", GUARDED, None),
        ("__main__.py", GUARDED, "package.__main__"),
        ("__main__.py", GUARDED, "__main__"),
    ],
)
def test_other_programs_can_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, source: str, spec: str | None
) -> None:
    made = program(tmp_path, source, file, __spec__=None if spec is None else ModuleSpec(spec, None))
    monkeypatch.setitem(sys.modules, "__main__", made)
    assert script.script_here(starts_now=False) is None


@pytest.mark.parametrize("attribute", ["ps1", "frozen"])
def test_nor_what_is_typed_or_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attribute: str) -> None:
    monkeypatch.setitem(sys.modules, "__main__", program(tmp_path, __spec__=ModuleSpec("ipython", None)))
    assert script.script_here(starts_now=False) is not None
    monkeypatch.setattr(sys, attribute, True, raising=False)
    assert script.script_here(starts_now=False) is None
    monkeypatch.delattr(sys, attribute)
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    assert script.script_here(starts_now=False) is None


@pytest.mark.parametrize(("guard", "can"), [("if __name__ == '__main__':\n    ", True), ("", False)])
def test_one_that_starts_outside_of_its_guard_can_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guard: str, can: bool
) -> None:
    source = f"def start(): found.append(ask(starts_now=True))\n{guard}start()\nif __name__ == '__main__':\n    pass\n"
    found: list[object] = []
    main = program(tmp_path, source, found=found, ask=script.script_here)
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(compile(source, str(main.__file__), "exec"), vars(main))
    assert [one is not None for one in found] == [can]
    assert script.script_here(starts_now=True) is not None, "it has been run"


def test_where_it_is_imported_it_is_there_by_its_names_and_its_guard_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"import sys\n{GUARDED}    sys.exit('run')\nimported = was_imported()\n"
    for name in ("__main__", "__mp_main__"):
        monkeypatch.setitem(sys.modules, name, sys.modules["__main__"])
    monkeypatch.setattr(main_names, "_imported", None)
    path = program(tmp_path, source.replace("was_imported()", "__name__, __file__")).__file__
    assert path is not None
    pickle.loads(pickle.dumps(script.Script(None, path)))()
    main = sys.modules["__main__"]
    assert sys.modules["__mp_main__"] is main
    assert vars(main)["imported"] == ("__mp_main__", path)
    assert not script.is_being_imported()
    assert main_names.finds_names()
    assert main_names.found_by_name(vars(main)["g"]) == "g"
    assert main_names.found_by_name(lambda: None) is None
    assert within(lambda: main_names.found_by_name(vars(main)["g"]), (beside.script, None)) is None
    with pytest.raises(ModuleNotFoundError, match="'no_such_module'"):
        script.Script("no_such_module", path)()
