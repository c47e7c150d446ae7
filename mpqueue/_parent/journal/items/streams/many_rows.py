"""Many rows in one statement: SQLite writes them in one go, and other threads run meanwhile.

Of a statement for each row the interpreter's lock would have to be had again after each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

#: Arguments that a statement of any SQLite may have, and rows of one: a few sizes, each of which is compiled once.
MOST_ARGUMENTS = 999
SIZES = (256, 64, 16, 4, 1)


def rows_at_once(insert: str, values: Sequence[Any], width: int) -> Iterator[tuple[str, Sequence[Any]]]:
    """Statements that ``insert`` (as far as its VALUES) rows of so many values each, and their arguments."""
    at, left = 0, len(values) // width
    while left:
        size = next(size for size in SIZES if size <= left and size * width <= MOST_ARGUMENTS)
        yield _statement(insert, size, width), values[at : at + size * width]
        at, left = at + size * width, left - size


@cache
def _statement(insert: str, rows: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return insert + ", ".join([row] * rows)
