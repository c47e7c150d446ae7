"""Calls that are almost right, refused at once: misspelled options, handlers that can't be called, the wrong items.

Uses the standard library and `_text` only.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple, TypeVar

from mpqueue._text import shown

_T = TypeVar("_T")

#: Hint for a call with the function and the items in each other's place.
SWAPPED = "; were the function and the items swapped?"

#: The most characters of a value that a hint shows.
LONGEST_VALUE = 40


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that ``name`` most likely means; None if none is near enough."""
    from difflib import get_close_matches  # only if the name is wrong: few programs get here

    there = list(names)
    found = get_close_matches(name, there, n=1, cutoff=0.65) or get_close_matches(name.lower(), there, 1, 0.65)
    return found[0] if found else None


class Word(NamedTuple):
    """The meaning of a word of another library, or of 1.0.0rc1. ``{}`` in its texts is replaced by the given value."""

    options: tuple[str, ...] = ()  #: one of these, the first that the call has
    form: str = ""  #: how that is written, if not by its name only
    elsewhere: str = ""  #: a hint if the call has none of them


def _limit(key: str) -> Word:
    return Word(elsewhere=f"write JobQueue(per_worker={{{key!r}: {{}}}})")


_WORKERS = "JobQueue(concurrency=...) says how many workers there are"
_MEANINGS = {
    "max_workers workers num_workers n_workers n_jobs jobs num_jobs nproc num_proc processes num_processes "
    "ncpus num_cpus cores pool_size": Word(("concurrency", "max_workers", "processes", "n_jobs"), elsewhere=_WORKERS),
    "attempts tries retries max_attempts max_tries num_retries n_retries": Word(
        ("max_retries",),
        elsewhere="max_retries, of JobQueue, create_job(), run() or Stage, counts the tries after the first",
    ),
    "verbose tqdm progress progress_bar show_progress": Word(
        ("progress",), elsewhere="run(progress=True) and map(progress=True) show it"
    ),
    "chunk_size batch_size chunksize": Word(
        ("chunksize",), elsewhere="create_job(), run() and map() have chunksize, how many items are sent together"
    ),
    "setup initializer init worker_init": Word(
        ("setup", "initializer"), elsewhere="JobQueue(initializer=...) calls it once in each worker"
    ),
    "args kwargs fn_args fn_kwargs initargs constants": Word(
        elsewhere="functools.partial(function, ...) gives it what is the same for all items"
    ),
    "callback on_complete on_result on_success done_callback": Word(
        elsewhere="queue.on('item:completed', function) calls one with each item that completes"
    ),
    "error_callback on_failure": Word(
        elsewhere="queue.on('item:failed', function) calls one with each item that fails for good"
    ),
    "maxtasksperchild max_tasks_per_child max_tasks worker_lifespan max_calls": _limit("items")._replace(
        options=("max_tasks_per_child", "maxtasksperchild")
    ),
    # of 1.0.0rc1
    "cpus": Word(("uses",), "uses={'cpu': {}}", _WORKERS),
    "memory": Word(("uses",), "uses={'memory': {}}"),
    "open": Word(("handler",), "open_job(...)"),
    "max_waiting": Word(("handler",), "open_job(..., max_waiting={})"),
    "trace": Word(("profile",), "profile=True, for job.report()"),
    **{name: Word(("rerun",), f"rerun=Rerun({name}={{}})") for name in ("update", "key", "version", "redo", "strict")},
    "threads_per_worker": _limit("threads"),
    "max_items_per_worker": _limit("items"),
    "max_memory_per_worker": _limit("memory"),
    "setup_timeout": _limit("setup_timeout"),
}
_WORDS = {word: meaning for words, meaning in _MEANINGS.items() for word in words.split()}


def option_meant(name: str, names: Iterable[str]) -> str | None:
    """Return the option among ``names`` that this word of another library means; None if it is not known."""
    there = {*names}
    return next((option for option in _WORDS.get(name, Word()).options if option in there), None)


def _hint_for(name: str, names: Iterable[str], value: object) -> str:
    word, option = _WORDS.get(name, Word()), option_meant(name, names)
    if option is not None and not word.form:
        return f"did you mean {option}?"
    hint = word.elsewhere if option is None else f"write {word.form}"
    return hint.replace("{}", shown(value) if len(shown(value)) <= LONGEST_VALUE else "...")


def no_such_option(function: str, name: str, names: Iterable[str], value: object) -> TypeError:
    """The error for an option that the function does not have, with a hint at the likely one."""
    there = [*names]
    hint = _hint_for(name, there, value)
    if hint:
        return TypeError(f"{function}() has no option {name!r}: {hint}")
    meant = nearest(name, there)
    return TypeError(
        f"{function}() got an unexpected keyword argument {name!r}{'' if meant is None else f'; did you mean {meant}?'}"
    )


def no_such_key(option: str, key: object, keys: Iterable[str], value: object) -> TypeError:
    """The error for a key that this option's dict can't have, with a hint at the likely one."""
    there, name = [*keys], key if isinstance(key, str) else ""
    hint = _hint_for(name, [option], value)
    if not hint and (meant := nearest(name, there)) is not None:
        hint = f"did you mean {meant!r}?"
    expected = f"{option}: expected some of the keys {', '.join(map(repr, there))}, got {shown(key)}"
    return TypeError(f"{expected}; {hint}" if hint else expected)


def no_such_attribute(kind: str, name: str, elsewhere: Mapping[str, str], obj: object) -> AttributeError:
    """The error for an attribute that an object does not have; ``elsewhere`` has the replacements."""
    found = elsewhere.get(name, "").format(name=name)
    hint = f"; {found} is what you want" if found else ""
    return AttributeError(f"{kind!r} object has no attribute {name!r}{hint}", name=name, obj=obj)


def check_calls(handler: Any, *, with_state: bool) -> None:
    """Raise TypeError for a handler that can't be called with one item, or with an item and the setup's state.

    Looks at the handler's own signature, if it has one; the signature of a function that it wraps does not count.
    """
    count = 2 if with_state else 1
    if type(handler) is FunctionType:
        code, defaults = handler.__code__, handler.__defaults__ or ()
        if code.co_argcount - len(defaults) <= count <= code.co_argcount and not code.co_kwonlyargcount:
            return
    if hasattr(handler, "__signature__") or not callable(handler):
        return
    try:
        signature = (_signature_of_builtin if is_module_builtin(handler) else _signature_of)(handler)
    except (TypeError, ValueError):  # written in C
        return
    try:
        signature.bind(*[None] * count)
    except TypeError as error:
        wanted = "an item and the state that setup returned" if with_state else "one item"
        hint = "" if with_state else _hint(signature)
        raise TypeError(
            f"handler: expected a function that can be called with {wanted}, got {_name_of(handler)}{signature}: "
            f"{error}{hint}"
        ) from None


def check_one_iterable(name: str, more: tuple[object, ...]) -> None:
    """Raise TypeError for a call with several iterables of items, as the built-in `map` takes them."""
    if more:
        raise TypeError(
            f"{name}() takes one iterable of items, got {1 + len(more)}: zip() makes one of them, whose items are "
            "tuples, and mpqueue.starmap() calls the function with the parts of each"
        )


def is_module_builtin(function: Any) -> bool:
    """True for a function of a module that is written in C, such as `math.sqrt`; no method of an object."""
    return type(function) is BuiltinFunctionType and type(function.__self__) is ModuleType


def _signature_of(function: Any) -> inspect.Signature:
    return inspect.signature(function, follow_wrapped=False)


#: Python reads the signature of a function that is written in C from its text, which takes 0.2 ms.
_signature_of_builtin = functools.lru_cache(maxsize=64)(_signature_of)


def _hint(signature: inspect.Signature) -> str:
    required = [each for each in signature.parameters.values() if each.default is each.empty]
    if len(required) < 2:
        return ""
    second = "; setup= makes its second argument, once in each worker" if len(required) == 2 else ""
    return (
        f"{second}; functools.partial() gives it what is the same for all items, and mpqueue.starmap() calls it with "
        "tuples"
    )


def _name_of(handler: Any) -> str:
    name = getattr(handler, "__qualname__", None)
    return name if isinstance(name, str) else f"{type(handler).__qualname__} object "


def check_callable(function: object, name: str, *, gets_items: bool = True) -> None:
    """Raise TypeError unless the argument can be called; if it ``gets_items``, with a hint at swapped arguments."""
    if not callable(function):
        swapped = SWAPPED if gets_items and isinstance(function, Iterable) and not isinstance(function, str) else ""
        raise TypeError(
            f"{name}: expected a callable, got {shown(function)} of type {type(function).__name__}{swapped}"
        )


def iterator_of(items: Iterable[_T], name: str = "items") -> Iterator[_T]:
    """Return an iterator over an argument of this name. Raises TypeError if it has none, and any error of ``__iter__``.

    A TypeError in ``__iter__`` counts as having none.
    """
    try:
        return iter(items)
    except TypeError:
        swapped = SWAPPED if callable(items) else ""
        raise TypeError(
            f"{name}: expected an iterable, got {shown(items)} of type {type(items).__name__}{swapped}"
        ) from None


def check_items(items: object) -> None:
    """Raise TypeError for one thing that can be iterated over: text, bytes, a mapping, a data frame."""
    kind, hint = type(items), ""
    if kind is list or kind is tuple or kind is range:
        return
    library = kind.__module__.partition(".")[0]
    if isinstance(items, str):
        hint = "[text] is one item, and list(text) has an item for each character"
    elif isinstance(items, bytes | bytearray):
        hint = "[data] is one item, and list(data) has an item for each byte"
    elif isinstance(items, Mapping):
        hint = "list(it) has its keys, list(it.items()) its pairs, and list(it.values()) its values"
    elif kind.__name__ == "DataFrame" and library == "pandas":
        hint = 'its .to_dict("records") has an item for each row'
    elif kind.__name__ == "DataFrame" and library == "polars":
        hint = "its .to_dicts() has an item for each row"
    if hint:
        raise TypeError(f"items: expected a list of items or another iterable, got a {kind.__name__}; {hint}")
