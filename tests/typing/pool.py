"""What a type checker makes of `mpqueue.Pool`. Checked by mypy, never run."""

from __future__ import annotations

import multiprocessing.pool
from typing import assert_type

from mpqueue import Pool


def length(text: str) -> int:
    """A function with types."""
    return len(text)


def area(width: int, height: float = 1.0) -> float:
    """A function of two arguments."""
    return width * height


def results_have_the_types_of_what_is_called(pool: Pool) -> None:
    assert_type(pool.map(length, ["a", "b"]), list[int])
    assert_type(pool.map_async(length, ["a"]).get(), list[int])
    assert_type(pool.starmap(area, [(1, 2.0)]), list[float])
    assert_type(pool.starmap_async(area, [(1,)]).get(), list[float])
    assert_type(pool.apply(area, (1,), {"height": 2.0}), float)
    assert_type(pool.apply_async(length, ("a",)).get(), int)
    assert_type(next(pool.imap(length, ["a"])), int)
    assert_type(pool.imap(length, ["a"]).next(timeout=1), int)
    assert_type(next(pool.imap_unordered(length, ["a"], chunksize=2)), int)
    with Pool(2) as mine:
        assert_type(mine, Pool)


def mistakes_are_found(pool: Pool) -> None:
    pool.map(length, [1, 2])  # type: ignore[arg-type]
    pool.imap(length, [1])  # type: ignore[arg-type]
    pool.map(area, 3)  # type: ignore[arg-type]
    pool.apply_async(length, ("a",), callback=length)  # type: ignore[misc]


def it_goes_where_the_standard_one_goes(pool: Pool) -> multiprocessing.pool.Pool:
    standard: multiprocessing.pool.AsyncResult[int] = pool.apply_async(length, ("a",))
    standard.wait()
    return pool
