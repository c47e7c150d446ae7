"""A function that is sent with each call: pickled once, and anew as soon as what it reads is another."""

from __future__ import annotations

import functools
import pickle
from typing import Any

from mpqueue._wire.pickling.packed_functions import FunctionPacker, PackedFunction
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
