"""Options, declared once, with their signatures, the checks of calls, and hints at misspelled names.

An option is a field of a dataclass, made by `option`: its name, type, default, check, the calls that take it, and one
sentence. The flags of ``mpqueue run``, the types of `mpqueue._keywords` and the table of the reference are generated
from it too.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import field, fields
from enum import Flag, auto
from typing import Any, NamedTuple, TypeVar

from mpqueue._call_checks import no_such_key, no_such_option
from mpqueue._plain import plain
from mpqueue._text import shown

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class At(Flag):
    """Calls that take options."""

    QUEUE = auto()  #: `JobQueue`
    JOB = auto()  #: `create_job`, `run`, `plan_job`
    OPEN = auto()  #: `open_job`
    STAGE = auto()  #: `Stage`
    STAGES = auto()  #: `run_stages`, `start_stages`
    MAP = auto()  #: `map`, `starmap`, `amap`
    STREAM = auto()  #: `imap`, `imap_unordered`
    STAGED_MAP = auto()  #: `mpqueue.stages`
    POOL = auto()  #: `Pool` and `Executor`, beside the options of the originals
    COMMAND = auto()  #: ``mpqueue run``, which passes the option on to the queue or the job
    WORKER = auto()  #: the keys of ``JobQueue(per_worker=)``


class ValueKind(NamedTuple):
    """Values of one kind. ``check`` gets the option's name and a value; it returns the value, or raises.

    ``read`` turns a word of the command line into a value; if it is None, the option is a flag without a value.
    """

    check: Callable[[str, Any], Any]
    read: Callable[[str], Any] | None = None
    metavar: str = ""
    word: str = ""


class Option(NamedTuple):
    """A declared option. ``kind`` is None if the rule that uses the option checks it."""

    name: str
    type: str
    default: Any
    kind: ValueKind | None
    at: At
    text: str
    flag: str | None  #: its flag on the command line


def option(
    default: Any, at: At, text: str, kind: ValueKind | None = None, *, flag: str | None = None
) -> Any:  # type checkers know this signature from `field`
    """Declare an option: a field of a frozen dataclass. ``flag`` is for options that ``mpqueue run`` has."""
    return field(default=default, metadata={Option: (kind, at, text, flag)})


@functools.cache
def options_at(declared: type[Any], at: At) -> dict[str, Option]:
    """The options of a class that these calls take, by name, in the order of their declaration."""
    found = (
        Option(one.name, re.sub(r"\bSeconds\b", "float | str", str(one.type)), one.default, *one.metadata[Option])
        for one in fields(declared)
        if Option in one.metadata
    )
    return {one.name: one for one in found if one.at & at}


def check_names(declared: type, at: At, public_name: str, given: Mapping[str, Any], more: tuple[str, ...] = ()) -> None:
    """Raise TypeError for an option that the call does not take; ``more`` are the call's other arguments."""
    known = options_at(declared, at)
    for name in given:
        if name not in known:
            raise no_such_option(public_name, name, [*known, *more], given[name])


def read(declared: type[T], at: At, public_name: str, given: Mapping[str, Any], more: tuple[str, ...] = ()) -> T:
    """Return the given options, checked and plain, as one object; an option that was not given has its default.

    Raises TypeError for unknown names, and the errors of the checks. The cost grows with the options given only.
    """
    check_names(declared, at, public_name, given, more)
    return _made(declared, options_at(declared, at), given)  # type: ignore[arg-type] # a class can be hashed


def read_keys(declared: type[T], at: At, name: str, given: object) -> T:
    """Read a mapping, the value of the option ``name``, as `read` does. Raises TypeError for any other value too."""
    known = options_at(declared, at)  # type: ignore[arg-type] # as above
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{name}: expected a dict with some of the keys {', '.join(map(repr, known))}, got {shown(given)}"
        )
    for key, value in given.items():
        if not isinstance(key, str) or plain(key) not in known:
            raise no_such_key(name, key, known, value)
    return _made(declared, known, {plain(key): value for key, value in given.items()}, name)


def _made(declared: type[T], known: Mapping[str, Option], given: Mapping[str, Any], of: str = "") -> T:
    made = object.__new__(declared)
    for name, value in given.items():
        kind = known[name].kind
        if value is not known[name].default:
            checked = value if kind is None else kind.check(f"{of}[{name!r}]" if of else name, value)
            vars(made)[name] = plain(checked)
    return made


def takes(declared: type, at: At) -> Callable[[F], F]:
    """Give the function a signature, for `inspect.signature` and completion, that names the options that it takes."""

    def decorate(function: F) -> F:
        own = inspect.signature(function)
        first = [one for one in own.parameters.values() if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
        taken = {one.name for one in first}
        rest = [_parameter(one) for one in options_at(declared, at).values() if one.name not in taken]
        function.__signature__ = own.replace(parameters=[*first, *rest])  # type: ignore[attr-defined]
        return function

    return decorate


@functools.cache
def _parameter(declared_as: Option) -> inspect.Parameter:
    return inspect.Parameter(
        declared_as.name, inspect.Parameter.KEYWORD_ONLY, default=declared_as.default, annotation=declared_as.type
    )
