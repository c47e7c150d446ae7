"""What may be a handler: plain functions and everything else that can be called, wherever it is defined."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpqueue import HandlerPicklingError, JobQueue, RetryPolicy
from tests.support import handlers as do
from tests.support.programs import run_program
from tests.support.results import check_nothing_created, results_of

pytestmark = pytest.mark.usefixtures("forked_workers")


class Adder:
    """Its instances can be called; so can their method."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, item: int) -> int:
        return item + self.number

    def add(self, item: int) -> int:
        return item + self.number

    @classmethod
    def add_nothing(cls, item: int) -> int:
        return item

    @staticmethod
    def add_one(item: int) -> int:
        return item + 1


class LaterAdder(Adder):
    """Its calls return something to await."""

    async def __call__(self, item: int) -> int:  # type: ignore[override]
        return item + self.number


def make_closure(number: int) -> Callable[[int], int]:
    def add(item: int) -> int:
        return item + number

    return add


async def add_later(item: int, number: int = 5) -> int:
    return item + number


class Awaitable:
    """Something to await that is no coroutine."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __await__(self) -> Any:
        yield from ()
        return self.value


HANDLERS: dict[str, tuple[Callable[[int], Any], list[int]]] = {
    "plain function": (do.double, [2, 4]),
    "lambda": (lambda item: item + 5, [6, 7]),
    "closure": (make_closure(5), [6, 7]),
    "bound method": (Adder(5).add, [6, 7]),
    "class method": (Adder.add_nothing, [1, 2]),
    "static method": (Adder.add_one, [2, 3]),
    "callable object": (Adder(5), [6, 7]),
    "partial": (functools.partial(pow, 3), [3, 9]),
    "builtin": (abs, [1, 2]),
    "class": (complex, [complex(1), complex(2)]),  # type: ignore[list-item]
    "coroutine function": (add_later, [6, 7]),
    "partial of a coroutine function": (functools.partial(add_later, number=6), [7, 8]),
    "callable whose call is a coroutine function": (LaterAdder(5), [6, 7]),
    "lambda that returns a coroutine": (lambda item: add_later(item, 4), [5, 6]),
    "function that returns an awaitable": (lambda item: Awaitable(item + 5), [6, 7]),
}


@pytest.mark.slow
@pytest.mark.holds("seed: create_job: the handler may be a coroutine function")
def test_handlers_of_all_kinds_give_their_results() -> None:
    with JobQueue(1) as queue:
        found = {kind: queue.run([1, 2], handler).results for kind, (handler, _) in HANDLERS.items()}
    assert found == {kind: results for kind, (_, results) in HANDLERS.items()}


@pytest.mark.parametrize("items", [[0, 0.5, 4], [0, 0, 0.5, 0, 4, 0.25], [0.5, 0, 4], [0, 0]], ids=str)
@pytest.mark.parametrize("max_retries", [0, 1])
def test_what_a_plain_function_returns_is_awaited_also_where_the_first_items_raise(
    items: list[float], max_retries: int
) -> None:
    with JobQueue(1, retry=RetryPolicy(max_retries, base_delay=0.0)) as queue:
        job = queue.run(items, lambda item: add_later(int(4 / item)), capture_output=True)
    assert job.results == [int(4 / item) + 5 if item else None for item in items]
    assert {item.error for item in job.items if not item.payload} == {"ZeroDivisionError: division by zero"}


def test_coroutines_of_a_job_share_one_event_loop_in_a_worker_and_run_one_at_a_time() -> None:
    running: list[int] = []

    async def handle(item: int) -> tuple[int, list[int]]:
        running.append(item)
        await asyncio.sleep(0)
        alone = list(running)
        running.remove(item)
        return id(asyncio.get_running_loop()), alone

    with JobQueue(1) as queue:
        results = results_of(queue.run(range(20), handle))
    assert len({loop for loop, _ in results}) == 1
    assert [alone for _, alone in results] == [[item] for item in range(20)]


def test_handler_that_takes_only_the_item_gets_no_state_without_setup() -> None:
    def handle(*args: Any) -> int:
        return len(args)

    with JobQueue(1) as queue:
        assert queue.run([1], handle).results == [1]
        assert queue.run([1], handle, setup=lambda: None).results == [2]


def test_big_handler_is_serialized_once_when_the_job_is_created() -> None:
    big = bytearray(b"x" * 5_000_000)

    def handle(item: int) -> int:
        return big[item]

    with JobQueue(2) as queue:
        queue.create_job("job", range(100), handle, chunksize=1)
        big[0] = 0
        assert set(queue.start("job").result().results) == {ord("x")}


@pytest.mark.slow
def test_handler_may_be_defined_in_a_notebook(tmp_path: Path) -> None:
    """A cell is compiled from a string and run in `__main__`, and has no file."""
    cells = [
        "import mpqueue",
        "class Item:\n    def __init__(self, id):\n        self.id = id",
        "def handle(item):\n    return Item(item.id + suffix)",
        "suffix = '!'",
        "with mpqueue.JobQueue(2) as queue:\n    job = queue.run([Item('a'), Item('b')], handle)",
        "print([result.id for result in job.results], type(job.results[0]) is Item)",
    ]
    body = f"import __main__\ndel __main__.__file__\nfor cell in {cells!r}:\n    exec(cell, __main__.__dict__)\n"
    done = run_program(tmp_path, body)
    assert (done.stdout, done.stderr) == ("['a!', 'b!'] True\n", "")


# --- that are refused -----------------------------------------------------------------------------------------------


@pytest.mark.holds("error: HandlerPicklingError", "error: PicklingError")
def test_handler_that_cannot_be_serialized_is_refused_at_once_naming_the_variable() -> None:
    """What else is named, see tests/unit/test_packed_handler.py."""
    the_lock = threading.Lock()

    def handle(*_: object) -> Any:
        return the_lock

    with JobQueue(1) as queue:
        with pytest.raises(HandlerPicklingError, match="'the_lock'"):
            queue.create_job("job", ["a", "b"], handle)
        with pytest.raises(HandlerPicklingError, match=r"^setup: .*'the_lock'"):
            queue.create_job("job", ["a", "b"], lambda item, state: item, setup=handle)
        check_nothing_created(queue)


def test_handler_that_drags_the_queue_along_is_refused() -> None:
    with JobQueue(1) as queue:

        def handle(item: int) -> Any:
            return queue.get_stats()

        draggers: list[Callable[..., Any]] = [handle, lambda item: queue.run([item], do.double), queue.get_job]
        for dragging in draggers:
            with pytest.raises(HandlerPicklingError, match="a JobQueue can't be pickled"):
                queue.create_job("job", ["a", "b"], dragging)
        check_nothing_created(queue)


@pytest.mark.slow
def test_handler_in_main_that_drags_the_queue_along_is_refused_naming_it(tmp_path: Path) -> None:
    done = run_program(
        tmp_path,
        """
        import mpqueue
        the_queue = mpqueue.JobQueue(1)
        def handle(item):
            return the_queue.get_stats()
        with the_queue:
            try:
                the_queue.run([1], handle)
            except mpqueue.HandlerPicklingError as error:
                print(error)
            assert the_queue.jobs() == []
        """,
    )
    assert "the global variable 'the_queue', of type JobQueue" in done.stdout
    assert "Nothing was created" in done.stdout


@pytest.mark.parametrize("handler", [None, 5, "double", [do.double]], ids=["None", "int", "str", "list"])
def test_handler_that_cannot_be_called_is_refused(handler: Any) -> None:
    with JobQueue(1) as queue:
        with pytest.raises(TypeError, match=r"^handler: expected a callable, got .* of type"):
            queue.create_job("job", ["a", "b"], handler)
        if handler is not None:
            with pytest.raises(TypeError, match=r"^setup: expected a callable, got .* of type"):
                queue.create_job("job", ["a", "b"], do.succeed, setup=handler)
        check_nothing_created(queue)
