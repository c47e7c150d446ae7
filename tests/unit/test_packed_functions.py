"""How a function goes to the workers: by its name where they find it under that name, else whole."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest

from mpqueue._wire.pickling.packed_functions import constant_parts
from mpqueue._wire.pickling.payload import dump_code, load

SOURCE = """
def double(number):
    return 2 * number

hidden = double

def double(number):
    return "another one"
"""


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """A module that is loaded, with a function that its name no longer leads to."""
    made = types.ModuleType("mpqueue_test_made")
    exec(SOURCE, vars(made))
    sys.modules[made.__name__] = made
    yield made
    sys.modules.pop(made.__name__, None)


def test_a_function_of_a_module_is_named(module: types.ModuleType) -> None:
    packed, segment = dump_code(module.double)
    assert segment is None
    assert load(packed) is module.double
    assert b"cloudpickle" not in packed.data


def test_one_that_is_not_found_under_its_name_goes_whole(module: types.ModuleType) -> None:
    packed, _ = dump_code(module.hidden)
    met = load(packed)
    assert met is not module.double
    assert met(21) == 42


def test_one_of_a_module_that_is_gone_goes_whole(module: types.ModuleType) -> None:
    double = module.double
    del sys.modules[module.__name__]
    packed, _ = dump_code(double)
    assert load(packed)(21) == "another one"
    assert module.__name__ not in sys.modules


def test_one_of_the_script_goes_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    script = types.ModuleType("__main__")
    exec(SOURCE, vars(script))
    monkeypatch.setitem(sys.modules, "__main__", script)
    packed, _ = dump_code(script.double)
    assert load(packed) is not script.double


def test_what_a_function_reads_is_constant_where_nothing_can_set_it_anew(module: types.ModuleType) -> None:
    def reading(value: Any) -> Any:
        return lambda: value

    constant = (1, "a", (frozenset({2}), b""), module, module.double, functools.partial(max, 1, key=abs))
    for value in constant:
        assert constant_parts(reading(value)) is not None, value
    gone = types.ModuleType(module.__name__)
    for value in ([1], gone, sys.modules["__main__"], functools.cache(module.hidden)):
        assert constant_parts(reading(value)) is None, value


def test_what_was_registered_to_go_whole_does(module: types.ModuleType) -> None:
    cloudpickle.register_pickle_by_value(module)
    try:
        packed, _ = dump_code(module.double)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert load(packed) is not module.double
