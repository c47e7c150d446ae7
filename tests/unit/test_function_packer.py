"""A function that is sent with each call: pickled once, and anew as soon as what it reads is another."""

from __future__ import annotations

import functools
import pickle
import sys
import threading
import types
from typing import Any

import pytest

from mpqueue._wire.pickling.packed_functions import KEPT, MOST_BYTES, FunctionPacker, PackedFunction, ScriptFunction
from mpqueue._wire.pickling.payload import dump, load
from tests.support import handlers as do


def test_function_that_reads_constants_only_is_pickled_once() -> None:
    packer, factor = FunctionPacker(), 3

    def inner(number: int) -> int:
        return number * factor

    def outer(number: int) -> int:
        return inner(number) + 1

    first = packer.pack(outer)
    assert isinstance(first, PackedFunction)
    assert packer.pack(outer) is first
    assert pickle.loads(pickle.dumps(first))(2) == 7
    factor = 4
    again = packer.pack(outer)
    assert again is not first
    assert pickle.loads(pickle.dumps(again))(2) == 9
    assert packer.pack(do.succeed) is do.succeed

    held: list[int] = []
    assert packer.pack(lambda: held).__name__ == "<lambda>"


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
        packed = packer.pack(function)
        assert isinstance(packed, PackedFunction)
        return pickle.loads(pickle.dumps(packed))()

    script["A"] = "x"
    assert returned(read) == (None, None, {}, "x")
    script["B"] = script.pop("A")
    assert returned(read) == (None, None, {}, ["x"])
    read.a = "x"
    assert returned(read) == (None, None, {"a": "x"}, ["x"])
    read.b = vars(read).pop("a")
    assert returned(read) == (None, None, {"b": "x"}, ["x"])
    bound = functools.partial(read, c="x")
    assert returned(bound)[:2] == ("x", None)
    bound.keywords["d"] = bound.keywords.pop("c")
    assert returned(bound)[:2] == (None, "x")


def script_with(monkeypatch: pytest.MonkeyPatch, source: str) -> dict[str, Any]:
    """The names of a script that is the main module meanwhile."""
    main = types.ModuleType("__main__")
    exec(source, vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    return vars(main)


COUNTER = "count = [0]\ndef read(): return count\ndef make(): return lambda: count\n"


def test_a_function_of_the_script_that_reads_what_may_change_is_the_same_until_that_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names, packer = script_with(monkeypatch, COUNTER), FunctionPacker()
    sent = packer.pack(names["read"])
    assert isinstance(sent, ScriptFunction)
    assert packer.pack(names["read"]) is sent
    assert (sent.__name__, sent.__module__, sent()) == ("read", "__main__", [0])
    first, same = pickle.dumps(sent), pickle.dumps(sent)
    assert first == same
    met = pickle.loads(first)
    met().append(1)
    assert pickle.loads(same) is met, "where it has not changed, the worker's is as it was left"
    names["count"].append(2)
    changed = pickle.dumps(sent)
    assert pickle.loads(changed)() == [0, 2]
    names["count"].pop()
    assert pickle.dumps(sent) not in (first, changed), "what a worker has left of it is old"
    assert pickle.loads(pickle.dumps(sent))() == [0]


def test_in_one_pickle_it_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names, packer = script_with(monkeypatch, COUNTER), FunctionPacker()
    sent = packer.pack(functools.partial(names["read"]))
    assert isinstance(sent.func, ScriptFunction)
    one, other = load(dump([sent, sent.func]))
    assert one() is other()


def test_other_functions_that_read_what_may_change_go_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    names, packer = script_with(monkeypatch, COUNTER), FunctionPacker()
    made, builtin = names["make"](), functools.partial(len)
    for function in (made, builtin, functools.partial(do.double, []), len, int, 5):
        assert packer.pack(function) is function or isinstance(packer.pack(function), PackedFunction)
    assert packer.of_script(made) is made
    assert packer.of_script(builtin) is builtin
    assert FunctionPacker(share_globals=True).pack(names["read"]) is names["read"]


def test_one_that_is_big_or_can_not_be_pickled_goes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    names, packer = script_with(monkeypatch, COUNTER), FunctionPacker()
    names["count"] = bytearray(MOST_BYTES + 1)
    sent = packer.pack(names["read"])
    assert len(load(dump(sent))()) == MOST_BYTES + 1
    assert b"ScriptFunction" not in dump(sent).data
    names["count"] = threading.Lock()
    with pytest.raises(TypeError, match="cannot pickle"):
        dump(FunctionPacker().pack(names["read"]))
    big = bytes(MOST_BYTES + 1)

    def constant() -> bytes:
        return big

    assert packer.pack(constant) is constant


def test_each_of_many_is_looked_at_once() -> None:
    packer = FunctionPacker()

    def one() -> int:
        return 1

    first, named, again = packer.pack_all([one, do.double, one])
    assert isinstance(first, PackedFunction)
    assert (named, again) == (do.double, first)


@pytest.mark.parametrize(("source", "leaves"), [("return 1", False), ("global x; x = 1", True), ("f.x = 1", True)])
def test_one_that_leaves_something_behind_is_another_one_each_time_that_it_is_new(source: str, leaves: bool) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(f"def f():\n    {source}\n", names)
    one, other = FunctionPacker().pack(names["f"]), FunctionPacker().pack(names["f"])
    assert (one.number == other.number == 0) == (not leaves)
    assert (one.number == other.number) == (not leaves)


def test_so_many_are_known_and_the_oldest_are_forgotten() -> None:
    packer = FunctionPacker()
    functions = [(lambda number=number: number) for number in range(KEPT + 1)]
    made = [packer.pack(function) for function in functions]
    assert packer.pack(functions[-1]) is made[-1]
    assert packer.pack(functions[1]) is made[1]
    assert packer.pack(functions[0]) is not made[0]
