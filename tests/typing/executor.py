"""The types of `mpqueue.Executor`."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Iterator
from typing import Never, NoReturn, assert_type

from mpqueue import Executor


def join(number: int, *, text: str) -> list[str]:
    """A function with a signature."""
    return [text] * number


async def join_later(number: int, *, text: str) -> list[str]:
    """Workers run it to its end."""
    return [text] * number


def refuse(number: int) -> NoReturn:
    """It never returns."""
    raise ValueError(number)


def check_coroutines(executor: Executor) -> None:
    """The result is what the coroutine returns."""
    assert_type(executor.submit(join_later, 3, text="a").result(), list[str])
    assert_type(executor.map(join_later, [3]), Iterator[list[str]])
    executor.submit(join_later, "3", text="a")  # type: ignore[arg-type]
    refused = executor.submit(refuse, 3)
    assert_type(refused.result(), Never)


def check_submit(executor: Executor) -> None:
    """The arguments are those of the function, the result is what it returns."""
    assert_type(executor.submit(join, 3, text="a").result(), list[str])
    assert_type(executor.submit(join, 3, text="a").result(), list[str])
    assert_type(executor.submit(len, "abc").result(timeout=1.0), int)
    assert_type(executor.submit(len, "abc").cancel(kill=True), bool)
    executor.submit(join, "3", text="a")  # type: ignore[arg-type]
    executor.submit(join, 3)  # type: ignore[call-arg]
    executor.submit(join, 3, text="a", more=1)  # type: ignore[call-arg]


def check_map(executor: Executor) -> None:
    """The results are what the function returns."""
    assert_type(executor.map(len, ["a", "b"]), Iterator[int])
    assert_type(executor.map(len, ["a", "b"], timeout=1.0, chunksize=2, buffersize=3), Iterator[int])
    executor.map(len, ["a"], buffersize="3")  # type: ignore[arg-type]


async def check_asyncio(executor: Executor) -> None:
    """asyncio knows the type too."""
    assert_type(await asyncio.wrap_future(executor.submit(len, "abc")), int)
    assert_type(await asyncio.get_running_loop().run_in_executor(executor, len, "abc"), int)


def check_interface() -> concurrent.futures.Executor:
    """It is one of the standard library's kind."""
    with Executor(2) as executor:
        assert_type(executor, Executor)
    return executor
