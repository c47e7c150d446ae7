"""Calls as items, for the drop-ins, joblib's among them. Loads small modules only, since workers load it."""

from __future__ import annotations

import importlib
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


# -- joblib in a worker: imported before the first batch comes, which may ask for ``backend="mpqueue"`` in its turn. ---


def prepare_for_joblib(initializer: Callable[[], object] | None) -> None:
    """Import joblib, which no batch's timeout counts then, and call the user's initializer."""
    importlib.import_module("joblib.parallel").BACKENDS.setdefault("mpqueue", _make_backend)
    if initializer is not None:
        initializer()


def _make_backend(**options: Any) -> Any:
    """The backend; its module is loaded when it is asked for, since few workers need it."""
    return importlib.import_module("mpqueue.joblib_backend").MPQueueBackend(**options)
