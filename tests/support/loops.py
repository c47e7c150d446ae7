"""Event loops to run a test's coroutine in: asyncio, trio, and anyio on trio."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from tests.support.length import long
from tests.support.systems import not_on_windows
from tests.support.waiting import Gate

Run = Callable[[Callable[[], Awaitable[None]]], None]

#: Seconds until a coroutine counts as hanging.
PATIENCE = 300.0


def run_in_asyncio(main: Callable[[], Awaitable[None]]) -> None:
    """Run it in asyncio."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await main()

    asyncio.run(bounded())


def run_in_trio(main: Callable[[], Awaitable[None]]) -> None:
    """Run it in trio."""
    import trio

    async def bounded() -> None:
        with trio.fail_after(PATIENCE):
            await main()

    trio.run(bounded)


def run_in_anyio(main: Callable[[], Awaitable[None]]) -> None:
    """Run it in anyio on trio."""

    async def bounded() -> None:
        with anyio.fail_after(PATIENCE):
            await main()

    anyio.run(bounded, backend="trio")


#: Calls a test with each of them: it runs a coroutine function, in which `anyio` may be used throughout.
each_loop = pytest.mark.parametrize(
    "run",
    [
        run_in_asyncio,
        pytest.param(run_in_trio, marks=not_on_windows("wine does not have what trio waits with")),
        long(run_in_anyio),
    ],
)


def in_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test that is such a coroutine function in each of them."""

    @functools.wraps(test)
    def run_it(*, run: Run, **fixtures: object) -> None:
        run(functools.partial(test, **fixtures))

    asked = inspect.signature(test)
    run_as_well = inspect.Parameter("run", inspect.Parameter.KEYWORD_ONLY)
    vars(run_it)["__signature__"] = asked.replace(parameters=[*asked.parameters.values(), run_as_well])
    in_each: Callable[..., None] = each_loop(run_it)
    return in_each


async def arrive(gate: Gate, count: int = 1) -> set[str]:
    """Wait until so many have come to the gate; their names."""
    while len(gate.arrived()) < count:  # noqa: ASYNC110 - a thread to wait in would outlive the test
        await anyio.sleep(0.001)
    return gate.arrived()


#: Seconds of a task's own work after which an iterator gives the others a turn, although it need not wait.
LONG_WORK = 0.012


async def turns_of_others(iterate: Callable[[], Awaitable[object]]) -> int:
    """How many turns another task has had meanwhile."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await iterate()
        tasks.cancel_scope.cancel()
    return turns
