"""Which calls are pickled together: those of which none can see what another has changed."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import pytest

from mpqueue._parent.transport.common_parts import have_parts_in_common
from mpqueue._worker.handlers.called import Call, StarCall
from tests.support import handlers as do


class Thing:
    """An object of a class."""

    def method(self, item: Any) -> Any:
        """A method of it."""
        return item


def calls(*args: Any, function: Any = do.succeed) -> list[Call]:
    return [Call(function, (arg,), {}) for arg in args]


def nested(depth: int, inmost: Any) -> Any:
    for _ in range(depth):
        inmost = [inmost]
    return inmost


SHARED: list[Any] = []
LOOP: list[Any] = []
LOOP.append(LOOP)
THING = Thing()


@pytest.mark.parametrize(
    "items",
    [
        calls(1, "a", b"c", None, 2.0, pathlib.Path("d")),
        calls([1], [1], {"a": (1, [2])}, {3}, frozenset({4})),
        calls((1, 2), (1, 2)),
        calls(*[nested(50, number) for number in range(4)]),
        calls([], [], function=len),
        calls(1, 2, function=functools.partial(max, 3)),
        calls(1, 2, function=Thing),
        [Call(do.succeed, (), {"a": [number]}) for number in range(3)],
        calls(SHARED),
        [SHARED, SHARED],
        [],
    ],
)
def test_these_have_nothing_in_common_that_changes(items: list[Any]) -> None:
    assert len(items) < 2 or not have_parts_in_common(items)


@pytest.mark.parametrize(
    "items",
    [
        calls(SHARED, SHARED),
        calls(1, [SHARED], {"a": {"b": SHARED}}),
        calls((1, SHARED), (2, SHARED)),
        calls(*[nested(50, SHARED) for _ in range(2)]),
        [Call(do.succeed, (), {"a": SHARED}) for _ in range(2)],
        [Call(do.succeed, (SHARED,), {}), Call(do.succeed, (), {"a": SHARED})],
        calls(1, 2, function=THING.method),
        calls(1, 2, function=functools.partial(do.succeed, SHARED)),
        calls(1, 2, function=functools.partial(functools.partial(THING.method))),
        calls(1, 2, function=SHARED.append),
        calls(1, 2, function=StarCall(len)),
        [Call(function, (1,), {}) for function in (THING.method, THING.method)],
        calls(Thing(), Thing()),  # what is in them can't be seen
        calls([*range(1000)], 1),
        calls(LOOP, 1),
    ],
)
def test_these_may_have(items: list[Any]) -> None:
    assert have_parts_in_common(items)


def test_arrays_have_nothing_in_common_unless_they_are_one() -> None:
    np = pytest.importorskip("numpy")
    one = np.zeros(3)
    assert not have_parts_in_common(calls(np.zeros(3), one))
    assert have_parts_in_common(calls([one], [one]))
    assert have_parts_in_common(calls(np.array([SHARED], object), 1))
