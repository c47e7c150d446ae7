"""A function that is sent with each call: as it was when that was made; in a worker the same until it has changed."""

from __future__ import annotations

import functools
import pickle
import sys
import threading
import types
from types import SimpleNamespace
from typing import Any

import pytest

from mpqueue._wire.pickling.classes import CallsScope, in_scope, leave
from mpqueue._wire.pickling.packed_functions import MAX_KEPT_BYTES, MAX_KEPT_FUNCTIONS, FunctionPacker, PackedFunction
from mpqueue._wire.pickling.payload import dump, load
from tests.support import handlers as do
from tests.unit.test_classes import as_in_another_process


def packed(packer: FunctionPacker, function: Any) -> PackedFunction:
    made = packer.pack(function)
    assert isinstance(made, PackedFunction)
    return made


FACTOR = 3


def inner(number: int) -> int:
    return number * FACTOR


def outer(number: int) -> int:
    return inner(number) + 1


def test_it_is_what_it_was_when_the_call_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (inner, outer):
        monkeypatch.setattr(function, "__module__", "__main__")
    packer = FunctionPacker()
    first = packed(packer, outer)
    assert packer.pack(outer) is first
    monkeypatch.setitem(globals(), "FACTOR", 4)
    again = packed(packer, outer)
    assert again is not first
    assert pickle.loads(pickle.dumps(first))(2) == 7
    assert pickle.loads(pickle.dumps(again))(2) == 9
    assert (again.__name__, again.__module__, again(2)) == ("outer", "__main__", 9)


def test_what_is_named_or_a_closure_or_no_function_goes_as_it_is() -> None:
    packer, value = FunctionPacker(), 1
    for function in (lambda: value, do.succeed, functools.partial(len), functools.partial(do.double, []), len, int, 5):
        assert packer.pack(function) is function


def test_what_workers_have_imported_with_the_script_goes_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    names = script_with(monkeypatch, "def shared(): pass\ndef changed(): pass\n")
    there: Any = SimpleNamespace(has="shared".__eq__)
    packer = FunctionPacker(script=there)
    assert packer.pack(names["shared"]) is names["shared"]
    assert isinstance(packer.pack(names["changed"]), PackedFunction)


def test_a_value_that_gets_another_name_is_seen() -> None:
    packer = FunctionPacker()
    script: dict[str, Any] = {"__name__": "__main__"}
    exec(
        """
def read(*, c=None, d=None):
    try:
        return c, d, vars(read), A
    except NameError:
        return c, d, vars(read), [B]
""",
        script,
    )
    read = script["read"]

    def returned(function: Any) -> Any:
        return pickle.loads(pickle.dumps(packed(packer, function)))()

    script["A"] = "x"
    assert returned(read) == (None, None, {}, "x")
    script["B"] = script.pop("A")
    assert returned(read) == (None, None, {}, ["x"])
    read.a = "x"
    assert returned(read) == (None, None, {"a": "x"}, ["x"])
    read.b = vars(read).pop("a")
    assert returned(read) == (None, None, {"b": "x"}, ["x"])


def script_with(monkeypatch: pytest.MonkeyPatch, source: str) -> dict[str, Any]:
    """The names of a script that is the main module meanwhile."""
    main = types.ModuleType("__main__")
    exec(source, vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    return vars(main)


COUNTER = "count = [0]\ndef read(): return count\ndef make(): return lambda: count\n"


def test_in_a_worker_it_goes_on_with_what_calls_have_left_until_it_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    names, packer = script_with(monkeypatch, COUNTER), FunctionPacker()

    def send() -> Any:
        return pickle.loads(pickle.dumps(packer.pack(names["read"])))

    met = send()
    met().append(1)
    assert send() is met
    names["count"].append(2)
    assert send()() == [0, 2]
    names["count"].pop()
    assert send()() == [0], "what a worker has left of it is old"


def test_of_a_partial_what_is_bound_comes_with_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    names, packer = script_with(monkeypatch, "def read(a, *, b): return a, b\n"), FunctionPacker()
    bound = functools.partial(names["read"], [1], b=2)
    bound.note = 3  # type: ignore[attr-defined]
    sent = packer.pack(bound)
    assert isinstance(sent.func, PackedFunction)
    one, other = pickle.loads(pickle.dumps(sent)), pickle.loads(pickle.dumps(sent))
    assert (one(), vars(one)) == (([1], 2), {"note": 3})
    assert one.func is other.func
    assert one.args[0] is not other.args[0]


def test_one_that_is_big_or_can_not_be_pickled_goes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    names, packer = script_with(monkeypatch, COUNTER), FunctionPacker()
    names["count"] = bytearray(MAX_KEPT_BYTES + 1)
    assert packer.pack(names["read"]) is names["read"]
    names["count"] = threading.Lock()
    with pytest.raises(TypeError, match="cannot pickle"):
        dump(packer.pack(names["read"]))


def test_a_class_that_it_brings_does_not_come_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "class Own: pass\ndef ask(own): return type(own) is Own\n"
    names, packer = script_with(monkeypatch, source), FunctionPacker()
    ask = packed(packer, names["ask"])
    assert len(ask.classes) == 1
    data = dump((ask, names["Own"]()))
    assert data.data.count(b"_class_setstate") == 1, "which says that it was brought"
    with as_in_another_process(), in_scope(calls := CallsScope()):
        function, own = load(data)
        assert function(own)
    leave(calls)


def test_each_of_many_is_looked_at_once() -> None:
    packer = FunctionPacker()

    def one() -> int:
        return 1

    first, named, again = packer.pack_all([one, do.double, one])
    assert isinstance(first, PackedFunction)
    assert (named, again) == (do.double, first)


def test_so_many_are_known_and_the_oldest_are_forgotten() -> None:
    packer = FunctionPacker()
    functions = [(lambda number=number: number) for number in range(MAX_KEPT_FUNCTIONS + 1)]
    made = [packer.pack(function) for function in functions]
    assert packer.pack(functions[-1]) is made[-1]
    assert packer.pack(functions[1]) is made[1]
    assert packer.pack(functions[0]) is not made[0]
