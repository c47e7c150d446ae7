"""What a worker's initializer leaves in the script's names, for the functions that come after it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import pytest

from mpqueue._wire.pickling import beside, classes, main_names
from mpqueue._wire.pickling.beside import within
from mpqueue._wire.pickling.payload import Packed, dump_code, load
from tests.unit.test_classes import as_in_another_process

SOURCE = """
class Config:
    level = 1
    names = ["a"]

count, other = 0, "first"

def begin():
    global count, choose
    count, choose = 5, lambda: "another"
    Config.level = 7
    helper.marked = True

def helper():
    return count

def choose():
    return "the program's"

def read():
    return count, other, Config.level, Config.names, getattr(helper, "marked", False), helper(), choose()

def fail():
    global count
    count = 9
    raise ValueError("in the initializer")
"""


class Program:
    """A script, whose functions are sent."""

    def __init__(self) -> None:
        self.main: Any = ModuleType("__main__")
        exec(SOURCE, vars(self.main))

    def send(self, name: str) -> Packed:
        """One of its functions, as it is now."""
        before, sys.modules["__main__"] = sys.modules["__main__"], self.main
        try:
            return dump_code(getattr(self.main, name))[0]
        finally:
            sys.modules["__main__"] = before


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    """This process is a worker meanwhile, which has had no initializer."""
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    nothing: dict[str, Any] = {"_space": None, "_kept": set(), "_attributes": {}}
    for name, value in nothing.items():
        monkeypatch.setattr(main_names, name, value)
    monkeypatch.setattr(main_names, "of_initializers", scope := classes.Scope())
    monkeypatch.setattr(classes, "of_initializers", scope)
    monkeypatch.setattr(classes, "_latest", None)
    _of_worker.clear()
    return Program()


#: The classes that the worker has met, and their ids.
_of_worker: list[dict[Any, Any]] = []


@contextmanager
def in_worker() -> Iterator[None]:
    """Of what was sent from here only what the worker has met is known."""
    tables: tuple[Any, ...] = (classes._known, classes._ids)
    with as_in_another_process():
        for table, content in zip(tables, _of_worker, strict=False):
            table.update(content)
        try:
            yield
        finally:
            _of_worker[:] = (dict(table.items()) for table in tables)


def loaded(packed: Packed) -> Any:
    """A function of a job that begins in this worker."""
    with in_worker(), classes.in_scope(classes.Scope()):
        return load(packed)


def begin(packed: Packed) -> None:
    with in_worker():
        main_names.run_initializer(lambda: load(packed))


def test_what_it_names_is_the_workers_own_for_functions_that_come_later_and_the_rest_is_the_programs(
    program: Program,
) -> None:
    first, initializer = program.send("read"), program.send("begin")
    begin(initializer)
    read = loaded(first)
    assert read() == (5, "first", 7, ["a"], True, 5, "another")
    program.main.other, program.main.count = "second", 1
    program.main.Config.level, program.main.Config.names = 2, ["a", "b"]
    again = loaded(program.send("read"))
    assert again() == (5, "second", 7, ["a"], True, 5, "another")
    assert read() == (5, "first", 7, ["a"], True, 5, "another"), "each has what the program had when it was sent"


def test_without_one_each_function_has_names_of_its_own_unless_they_are_loaded_together(program: Program) -> None:
    read, initializer = program.send("read"), program.send("begin")
    loaded(initializer)()
    assert loaded(read)()[0] == 0
    with main_names.together():
        set_up, handler = load(initializer), load(read)
    set_up()
    assert handler()[0] == 5
    assert handler.__globals__["__name__"] == "__main__"
    assert not main_names.has_own()


class Outer:
    class Inner:
        """Has a longer name than its own."""


Kind = TypeVar("Kind")


def test_what_the_other_side_has_imported_is_found_by_its_whole_name(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "Outer", Outer, raising=False)
    monkeypatch.setattr(main, "Kind", Kind, raising=False)
    for each in (Outer, Outer.Inner, Kind):
        monkeypatch.setattr(each, "__module__", "__main__")
    there: Any = SimpleNamespace(has={"Outer", "Outer.Inner", "Kind"}.__contains__)
    assert main_names.found_by_name(Outer) is None

    def found(*objects: object) -> list[str | None]:
        return within(lambda: [*map(main_names.found_by_name, objects)], (beside.script, there))

    assert found(Outer, Outer.Inner, Kind, Outer()) == ["Outer", "Outer.Inner", "Kind", None]
    monkeypatch.setattr(main, "Outer", None)
    assert found(Outer, Outer.Inner) == [None, None], "there is another one"
    there.has = set[str]().__contains__
    assert found(Kind) == [None]


def test_what_was_loaded_together_is_so_where_it_goes_next(program: Program) -> None:
    with main_names.together():
        functions = [load(program.send(name)) for name in ("begin", "read")]
    together = beside.namespace, main_names.names_of(*functions)
    sent = within(lambda: [dump_code(function)[0] for function in functions], together)
    with main_names.together():
        set_up, handler = map(load, sent)
    set_up()
    assert handler()[0] == 5


def test_a_second_one_finds_what_the_first_has_left_also_where_it_fails(program: Program) -> None:
    read, failing, initializer = (program.send(name) for name in ("read", "fail", "begin"))
    with pytest.raises(ValueError, match="in the initializer"):
        begin(failing)
    assert loaded(read)()[:1] == (9,)
    begin(initializer)
    assert loaded(program.send("read"))()[:3] == (5, "first", 7)
