"""A handler that returns the same object again, with other contents: each item has the contents that it returned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mpqueue import Executor, JobQueue, Pool

pytestmark = pytest.mark.usefixtures("forked_workers")

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


def every_other() -> Callable[[int], Any]:
    """Nothing at first, and each time but one."""
    inner = same_list([0, 0])
    return lambda item: inner(item) if item % 2 else None


def fresh_at_first() -> Callable[[int], Any]:
    """What is returned is held from the tenth item on only."""
    inner = same_list([0, 0])
    return lambda item: inner(item) if item > 9 else [item, item]


def around(row: Any) -> dict[Any, Any]:
    """Far down, and behind many others."""
    many: dict[Any, Any] = dict.fromkeys(range(120))
    many["row"] = [[[[[row]]]]]
    return many


def deep_inside() -> Callable[[int], Any]:
    """Where nobody looks."""
    inner = same_list([0, 0])
    return lambda item: around(inner(item))


def in_an_error() -> Callable[[int], Any]:
    """Among the arguments of an exception that is returned."""
    inner = same_list([0, 0])
    return lambda item: ValueError(inner(item))


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (same_list(), lambda item: [item, item]),
        (in_a_dict(), lambda item: {"item": item, "row": [item, item]}),
        (in_a_tuple(), lambda item: (item, [item, item])),
        (same_object(), lambda item: Row([item, item])),
        (growing(), lambda item: [*range(item + 1)]),
        (every_other(), lambda item: [item, item] if item % 2 else None),
        (fresh_at_first(), lambda item: [item, item]),
        (deep_inside(), lambda item: around([item, item])),
    ],
    ids=["list", "in a dict", "in a tuple", "object", "growing", "every other", "fresh at first", "deep inside"],
)
def test_each_item_has_what_it_returned(
    queue: JobQueue, handler: Callable[[int], Any], expected: Callable[[int], Any]
) -> None:
    assert queue.run(range(COUNT), handler).results == [*map(expected, range(COUNT))]


def test_so_it_is_among_many_short_items_of_other_kinds(queue: JobQueue) -> None:
    inner, kinds = same_list(), (int, str, float, lambda _: None, bool)

    def handler(item: int) -> Any:
        if item % 5_000 == 4_321:
            raise ValueError(item)
        return inner(item) if item % 1_000 in (500, 501, 777) else kinds[item // 3_000 % 5](item)

    items = queue.run(range(20_000), handler).items
    for index, item in enumerate(items):
        if index % 5_000 == 4_321:
            assert str(index) in str(item.error)
        elif index % 1_000 in (500, 501, 777):
            assert item.result == [index, index]
        else:
            expected = kinds[index // 3_000 % 5](index)
            assert (type(item.result), item.result) == (type(expected), expected)


def test_so_it_is_where_the_first_item_fails(queue: JobQueue) -> None:
    inner = same_list([0, 0])

    def handler(item: int) -> Any:
        return inner(10 // item and item)

    job = queue.run([0, *range(1, COUNT)], handler)
    assert [item.result for item in job.items if item.error is None][:9] == [[n, n] for n in range(1, 10)]


def test_so_it_is_inside_of_an_error(queue: JobQueue) -> None:
    results: list[Any] = list(queue.run(range(COUNT), in_an_error()).results)
    assert [result.args for result in results] == [([item, item],) for item in range(COUNT)]


def view(item: int) -> memoryview:
    """Of memory that is kept."""
    BUFFER[:] = bytes([item]) * 8
    return memoryview(BUFFER)[:4]


BUFFER = bytearray(8)


@pytest.mark.slow
def test_views_of_memory_that_is_kept_have_what_was_in_it(queue: JobQueue) -> None:
    results: list[Any] = list(queue.run(range(COUNT), view).results)
    assert [bytes(result) for result in results] == [bytes([number]) * 4 for number in range(COUNT)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name"),
    [("numpy", "frombuffer"), ("torch", "from_numpy"), ("pandas", "Series"), ("PIL.Image", "fromarray")],
)
def test_views_of_libraries_too(module: str, name: str, queue: JobQueue) -> None:
    np = pytest.importorskip("numpy")
    pytest.importorskip(module)

    def handler(item: int, kept: list[Any] = []) -> Any:  # noqa: B006 - that is the point
        import importlib

        kept[:] = kept or [np.zeros((4, 4), "u1")]
        kept[0][:] = item
        make = getattr(importlib.import_module(module), name)
        if name == "Series":
            return make(kept[0].ravel(), copy=False)
        return make(kept[0], **({"dtype": "u1"} if name == "frombuffer" else {}))

    results: list[Any] = list(queue.run(range(COUNT), handler).results)
    assert [{*np.asarray(result).ravel().tolist()} for result in results] == [{number} for number in range(COUNT)]


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
        executor.submit(number, 1).result(300)
        handler = same_list([0, 0])
        futures = [executor.submit(function, at) for at in range(COUNT) for function in (number, handler)]
        assert [future.result(300) for future in futures[::2]] == [*range(COUNT)]
        assert [future.result(300) for future in futures[1::2]] == [[at, at] for at in range(COUNT)]


def test_pools_too() -> None:
    with Pool(1, max_retries=0) as pool:
        expected = [[at, at] for at in range(COUNT)]
        assert list(pool.imap(same_list([0, 0]), range(COUNT))) == expected
        assert [result.get(300) for result in [pool.apply_async(same_list(), (at,)) for at in range(COUNT)]] == expected
