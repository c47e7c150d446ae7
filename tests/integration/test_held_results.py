"""A handler that returns the same object again, with other contents: each item has the contents that it returned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mpqueue import Executor, JobQueue, Pool
from mpqueue._worker.chunk.holding import is_held

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

COUNT = 200


@dataclass
class Row:
    """What handlers fill again and again."""

    cells: list[int] = field(default_factory=list)


def same_list(buffer: list[int] = [0, 0]) -> Callable[[int], Any]:  # noqa: B006 - that is the point
    """Handlers that return, or put into what they return, what they hold."""

    def handler(item: int) -> list[int]:
        buffer[:] = [item, item]
        return buffer

    return handler


def in_a_dict() -> Callable[[int], Any]:
    """Inside of what is new each time."""
    inner = same_list([0, 0])
    return lambda item: {"item": item, "row": inner(item)}


def in_a_tuple() -> Callable[[int], Any]:
    """The same inside of a tuple."""
    inner = same_list([0, 0])
    return lambda item: (item, inner(item))


def same_object() -> Callable[[int], Any]:
    """An object of a class."""
    row = Row()

    def handler(item: int) -> Row:
        row.cells = [item, item]
        return row

    return handler


def growing() -> Callable[[int], Any]:
    """What is returned grows."""
    seen: list[int] = []

    def handler(item: int) -> list[int]:
        seen.append(item)
        return seen

    return handler


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    """One worker: so items are sent together."""
    with JobQueue(1, max_retries=0) as made:
        yield made


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (same_list(), lambda item: [item, item]),
        (in_a_dict(), lambda item: {"item": item, "row": [item, item]}),
        (in_a_tuple(), lambda item: (item, [item, item])),
        (same_object(), lambda item: Row([item, item])),
        (growing(), lambda item: [*range(item + 1)]),
    ],
    ids=["list", "in a dict", "in a tuple", "object", "growing"],
)
def test_each_item_has_what_it_returned(
    queue: JobQueue, handler: Callable[[int], Any], expected: Callable[[int], Any]
) -> None:
    assert queue.run(range(COUNT), handler).results == [*map(expected, range(COUNT))]


def test_so_it_is_where_the_first_item_fails(queue: JobQueue) -> None:
    inner = same_list([0, 0])

    def handler(item: int) -> Any:
        return inner(10 // item and item)

    job = queue.run([0, *range(1, COUNT)], handler)
    assert [item.result for item in job.items if item.error is None][:9] == [[n, n] for n in range(1, 10)]


def test_each_array_is_what_was_returned(queue: JobQueue) -> None:
    np = pytest.importorskip("numpy")  # which there is none of under wine
    buffer = np.zeros(10)

    def whole(item: int) -> Any:
        buffer[:] = item
        return buffer

    def view(item: int) -> Any:
        buffer[:] = item
        return buffer[2:4]

    for handler in (whole, view):
        results: list[Any] = list(queue.run(range(COUNT), handler).results)
        assert [float(result.min()) for result in results] == [float(result.max()) for result in results]
        assert [float(result[0]) for result in results] == [*map(float, range(COUNT))]


def number(item: int) -> int:
    """A call that returns nothing that could be held."""
    return item


def test_calls_of_several_functions_are_told_apart() -> None:
    with Executor(1, max_retries=0) as executor:
        executor.submit(number, 1).result(60)
        handler = same_list([0, 0])
        futures = [executor.submit(function, at) for at in range(COUNT) for function in (number, handler)]
        assert [future.result(60) for future in futures[::2]] == [*range(COUNT)]
        assert [future.result(60) for future in futures[1::2]] == [[at, at] for at in range(COUNT)]


def test_pools_too() -> None:
    with Pool(1, max_retries=0) as pool:
        expected = [[at, at] for at in range(COUNT)]
        assert list(pool.imap(same_list([0, 0]), range(COUNT))) == expected
        assert [result.get(60) for result in [pool.apply_async(same_list(), (at,)) for at in range(COUNT)]] == expected


KEPT = {"a": [1]}


@pytest.mark.parametrize(
    ("handler", "item", "held"),
    [
        (lambda item: {"item": item, "more": [item, {"x": [1]}]}, 5, False),
        (lambda item: KEPT, 5, True),
        (lambda item: KEPT["a"], 5, True),
        (lambda item: [KEPT], 5, True),
        (lambda item: item, {"x": [1]}, False),
        (lambda item: item["x"], {"x": [1]}, False),
        (lambda item: {"x": item["x"]}, {"x": [1]}, False),
        (lambda item: (item, [item]), 5, False),
        (lambda item: Row([item]), 5, False),
        (lambda item: Row(KEPT["a"]), 5, True),
        (lambda item: "text", 5, False),
        (lambda item: None, 5, False),
        (lambda item: Row, 5, False),
    ],
)
def test_what_is_new_or_the_item_s_own_is_not_held(handler: Callable[[Any], Any], item: Any, held: bool) -> None:
    results: list[Any] = []
    results.extend(map(handler, [item]))
    assert is_held(results, 0, item) is held
