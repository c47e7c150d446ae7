"""Calls as items, for the drop-ins. Imports nothing, since workers load it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A function and its arguments, as an item of a stream with the handler `run_call`. A tuple: it pickles in 1 us."""

    function: Callable[..., Any]
    args: Iterable[Any]
    kwargs: Mapping[str, Any]


def run_call(call: Call) -> Any:
    """The handler of a stream of calls."""
    return call.function(*call.args, **call.kwargs)


class StarCall:
    """A handler that calls a function with an item's entries as its arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, item: Iterable[Any]) -> Any:
        """Return ``function(*item)``."""
        return self.function(*item)
