"""Which results wait to be pickled together: only those that nothing can change before."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mpqueue._worker.chunk.holding import MOST, run_up_to_held
from mpqueue._worker.chunk.results import ChunkResults, NotReadyError

KEPT: list[Any] = [1]
KEPT_ONES: dict[str, Any] = {"a": [1], "t": (1, 2), "deep": ([1], 2)}


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
        lambda _: KEPT_ONES["deep"],
        lambda _: [KEPT_ONES["deep"]],
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


class TestReports:
    """Of several threads: the watchdog reports early what has ended, while results are pickled."""

    @staticmethod
    def results(out: list[Any], marked: Callable[[int], None] = lambda _: None) -> ChunkResults:
        """Of items that have returned these."""
        job: Any = SimpleNamespace(plain=True, discards=False, passes_on=False, capture=None)
        running: Any = SimpleNamespace(out=out, added={}, indices=range(len(out)))
        return ChunkResults(job, running, False, marked, None, lambda: False)

    def test_what_is_pickled_and_what_is_plain_are_reported_together(self) -> None:
        made = self.results([1])
        made.add_at_once(Thing())
        _, packed, failures = made.take(2, final=False)
        assert len(packed) == 2
        assert not failures

    def test_no_report_is_made_of_results_that_are_just_being_pickled(self) -> None:
        """They leave the list one by one."""

        def report(_: int) -> None:
            with pytest.raises(NotReadyError):
                made.take(3, final=False)

        made = self.results(out := [1], report)
        made.add_at_once(Thing())
        out.append(3)
        made.stretch_ended(0, 3)
        assert len(made.take(3, final=False)[1]) == 3
