"""`mpqueue.Executor` in the clothes of `concurrent.futures.ProcessPoolExecutor`, for programs that name that one."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

import mpqueue
from tests.support.length import IS_LONG

#: Workers, of which each takes a while to start.
FEW = 2


class ProcessPoolExecutor(mpqueue.Executor):
    """The standard library's signature, and its one try a call; in the short form, of five workers only two."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        if max_workers is not None and max_workers > FEW and not IS_LONG:
            max_workers = FEW
        super().__init__(max_workers, initializer, initargs, max_tasks_per_child, max_retries=0, mp_context=mp_context)


def take_its_place() -> None:
    """From now on it is what programs get that ask `concurrent.futures` for the standard library's."""
    concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[misc,assignment]
