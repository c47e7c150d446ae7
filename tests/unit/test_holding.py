"""Which results wait to be pickled together: only those that nothing can change before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mpqueue._worker.chunk.holding import MOST, run_up_to_held

KEPT: list[Any] = [1]
KEPT_ONES: dict[str, Any] = {"a": [1], "t": (1, 2)}


class Thing:
    """No list, tuple or dict."""


def itself(_: int) -> list[Any]:
    """It refers to itself."""
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    "handler",
    [
        lambda item: item,
        lambda _: None,
        lambda _: "text",
        lambda item: (item, [item]),
        lambda item: [item],
        lambda item: {"a": {"b": item}, "c": [item, (item, [])]},
        lambda _: KEPT_ONES["t"],
        lambda _: {},
    ],
)
def test_what_is_new_and_plain_waits(handler: Callable[[int], Any]) -> None:
    out: list[Any] = []
    with pytest.raises(StopIteration):  # the end of the items
        run_up_to_held(map(handler, range(20_000)), out, {})
    assert len(out) == 20_000


@pytest.mark.parametrize(
    "handler",
    [
        lambda _: KEPT,
        lambda _: [KEPT],
        lambda _: (1, (2, KEPT)),
        lambda item: {"a": item, "b": KEPT},
        lambda _: KEPT_ONES,
        lambda _: {"x": {"y": KEPT_ONES["a"]}},
        lambda _: [[[[[[]]]]]],
        lambda _: [0] * (MOST + 1),
        lambda _: {Thing(): 1},
        lambda _: Thing(),
        lambda _: bytearray(),
        lambda _: {1},
        itself,
    ],
)
def test_what_is_held_or_may_be_is_given_back_before_the_next_item_runs(handler: Callable[[int], Any]) -> None:
    ran = []

    def run(item: int) -> Any:
        ran.append(item)
        return handler(item)

    for item in range(5000):
        out: list[Any] = []
        run_up_to_held(map(run, [item, -1]), out, {})
        assert (out, ran[-1]) == ([], item)


def test_what_brings_items_along_does_not_wait() -> None:
    out: list[Any] = []
    assert run_up_to_held(map(abs, [1, 2]), out, {0: ([], None)}) == 1
    assert not out


def test_an_error_of_an_item_comes_out_at_its_place() -> None:
    out: list[Any] = []
    with pytest.raises(ZeroDivisionError):
        run_up_to_held(map((1).__floordiv__, [1, 0, 1]), out, {})
    assert out == [1]
