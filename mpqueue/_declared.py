"""Options that are declared once, and what is made of them: signatures, checks of calls, names that may be meant.

An option is a field of a dataclass, made by `option`: its name, its type and its default, beside them its check, where
it may be given, and one sentence. The flags of ``mpqueue run``, the types of `mpqueue._keywords` and the table of the
reference are made of these too.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Flag, auto
from typing import Any, NamedTuple, TypeVar

from mpqueue._call_checks import no_such_key, no_such_option
from mpqueue._plain import PLAIN, plain
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
    POOL = auto()  #: `Pool`, `Executor` and the backend of joblib, beside what these have from elsewhere
    COMMAND = auto()  #: ``mpqueue run``, which passes it on to the queue or the job
    WORKER = auto()  #: the keys of ``JobQueue(per_worker=)``


class ValueKind(NamedTuple):
    """Values of one kind. ``check`` gets the option's name and a value; it returns that, or raises.

    ``read`` makes a value of a ``word`` of the command line; None: the option is a flag without a word.
    """

    check: Callable[[str, Any], Any]
    read: Callable[[str], Any] | None = None
    metavar: str = ""
    word: str = ""


class Option(NamedTuple):
    """An option as it was declared. ``kind`` is None where the rule that uses it checks it."""

    name: str
    type: str
    default: Any
    kind: ValueKind | None
    at: At
    text: str
    flag: str | None  #: what the command line calls it


def option(
    default: Any, at: At, text: str, kind: ValueKind | None = None, *, flag: str | None = None
) -> Any:  # as type checkers know it of `field`
    """Declare an option: a field of a frozen dataclass. ``flag`` is for those that ``mpqueue run`` has."""
    return field(default=default, metadata={Option: (kind, at, text, flag)})


@functools.cache
def options_at(declared: type[Any], at: At) -> dict[str, Option]:
    """The options of a class that may be given there, by name, in the order of their declaration."""
    found = (
        Option(one.name, re.sub(r"\bSeconds\b", "float | str", str(one.type)), one.default, *one.metadata[Option])
        for one in fields(declared)
        if Option in one.metadata
    )
    return {one.name: one for one in found if one.at & at}


def check_names(declared: type, at: At, public_name: str, given: Mapping[str, Any], more: tuple[str, ...] = ()) -> None:
    """Raise TypeError for an option that can't be given there; ``more`` are the call's other arguments."""
    known = options_at(declared, at)
    for name in given:
        if name not in known:
            raise no_such_option(public_name, name, [*known, *more], given[name])


def read(declared: type[T], at: At, public_name: str, given: Mapping[str, Any], more: tuple[str, ...] = ()) -> T:
    """Return the given options, checked and plain, as one object; an option that was not given has its default.

    Raises TypeError for names that there are not, and what the checks raise. Costs what is given, however many there
    are.
    """
    known = options_at(declared, at)  # type: ignore[arg-type] # a class can be hashed
    made = object.__new__(declared)
    values = vars(made)
    for name, value in given.items():
        declared_as = known.get(name)
        if declared_as is None:
            raise no_such_option(public_name, name, [*known, *more], value)
        if value is not declared_as.default:
            values[name] = _checked(declared_as, name, value)
    return made


def read_keys(declared: type[T], at: At, name: str, given: object) -> T:
    """Do the same as `read` for a mapping, the value of the option ``name``. Raises TypeError for anything else too."""
    known = options_at(declared, at)  # type: ignore[arg-type] # as above
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{name}: expected a dict with some of the keys {', '.join(map(repr, known))}, got {shown(given)}"
        )
    made = object.__new__(declared)
    for key, value in given.items():
        declared_as = known.get(plain(key)) if isinstance(key, str) else None
        if declared_as is None:
            raise no_such_key(name, key, known, value)
        if value is not declared_as.default:
            vars(made)[declared_as.name] = _checked(declared_as, f"{name}[{declared_as.name!r}]", value)
    return made


def _checked(declared_as: Option, name: str, value: Any) -> Any:
    if declared_as.kind is not None:
        value = declared_as.kind.check(name, value)
    return value if type(value) in PLAIN else plain(value)


def takes(declared: type, at: At, *, without: tuple[str, ...] = ()) -> Callable[[F], F]:
    """The function's signature, as `inspect.signature` and completion see it, names the options that it takes.

    Its own arguments come first; of an option among them the declaration is theirs.
    """

    def decorate(function: F) -> F:
        own = inspect.signature(function)
        first = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
        taken = {one.name for one in first} | {*without}
        rest = [_parameter(one) for one in options_at(declared, at).values() if one.name not in taken]
        function.__signature__ = own.replace(parameters=[*first, *rest])  # type: ignore[attr-defined]
        return function

    return decorate


@functools.cache
def _parameter(declared_as: Option) -> inspect.Parameter:
    return inspect.Parameter(
        declared_as.name, inspect.Parameter.KEYWORD_ONLY, default=declared_as.default, annotation=declared_as.type
    )


@dataclass(frozen=True)
class Plain:
    """A dataclass whose numbers and texts are plain."""

    def __post_init__(self) -> None:
        values = vars(self)
        for name, value in values.items():
            if type(value) not in PLAIN:
                values[name] = plain(value)
