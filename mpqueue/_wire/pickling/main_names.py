"""``__main__`` as the functions of a script find it in a worker.

They are sent by value, each pickle with the global variables that its functions read, so two that came in different
pickles would have variables of their own. Where a pool has an initializer, that is not what programs expect: it sets
globals for the functions that come after it. So a worker that has run one keeps one namespace for all that comes from
``__main__``; and data in it is the worker's own by then: what is sent with later functions does not replace it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

from mpqueue._wire.pickling.classes import is_redefined

_CODE = (FunctionType, ModuleType, type)

_shared: dict[str, Any] | None = None  #: the worker's, once it has an initializer
_kept: frozenset[str] = frozenset()  #: the names in it that are the worker's own


#: What the module of a script is called; the second where `multiprocessing` has started this process by spawn.
NAMES = ("__main__", "__mp_main__")
#: What a pickle holds that names either.
MARK = b"_main__"


class MainNames(dict[str, Any]):
    """Stands for the namespace of ``__main__`` in a pickle."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _namespace, (dict(self),)


def _namespace(names: dict[str, Any]) -> dict[str, Any]:
    if _shared is None:
        return names
    _shared.update(names)
    return _shared


def namespaces() -> Iterator[dict[str, Any]]:
    """The dictionaries that are the globals of functions of ``__main__`` in this process."""
    main = sys.modules.get("__main__")
    if main is not None:
        yield vars(main)
    if _shared is not None:
        yield _shared


def run_initializer(load: Callable[[], Callable[[], object]]) -> None:
    """Load an initializer and call it; what it leaves in its globals is there for all functions that come later."""
    global _shared, _kept  # noqa: PLW0603 - a process has one ``__main__``
    _shared = {}
    initializer = load()
    before = dict(_shared)
    try:
        initializer()
    finally:
        _kept = frozenset(
            name
            for name, value in _shared.items()
            if not name.startswith("__") and (before.get(name) is not value or not isinstance(value, _CODE))
        )


def own_values() -> dict[str, Any] | None:
    """What is the worker's own now; to be taken before functions are unpickled, and `put_back` afterwards."""
    return {name: _shared[name] for name in _kept if name in _shared} if _shared and _kept else None


def put_back(values: dict[str, Any]) -> None:
    """Undo what unpickling functions has done to the worker's own; a cached function keeps what it has cached."""
    if _shared is not None:
        _shared.update({name: own for name, own in values.items() if not is_redefined(own, _shared.get(name))})
