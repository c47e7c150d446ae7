"""All that is public, as text: what `docs/reference/public-api.txt` is made of, and held against.

``python -m tests.support.public_names`` writes the file anew (`make public-api`).

Public is what `__all__` of a public module names. A line is a name with its signature; of a class also its public
methods, properties and fields, those of private bases of mpqueue too. What a class inherits from elsewhere is left
out: that depends on the version of Python and of others' packages.
"""

from __future__ import annotations

import enum
import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ForwardRef

#: Modules that programs may import from.
MODULES = (
    "mpqueue",
    "mpqueue.backends",
    "mpqueue.errors",
    "mpqueue.events",
    "mpqueue.joblib_backend",
    "mpqueue.otel",
    "mpqueue.pandas",
    "mpqueue.retry",
    "mpqueue.sinks",
    "mpqueue.status",
    "mpqueue.testing",
)
LISTING = Path(__file__).parent.parent.parent / "docs" / "reference" / "public-api.txt"

#: What only mpqueue makes: how is not public.
_MADE_BY_MPQUEUE = {
    *("CurrentItem", "FailedTry", "FailureGroup", "FileSink", "ItemRetry", "Job", "JobFinished", "JobItem", "JobPlan"),
    *("JobProgress", "JobRun", "JobStarted", "Progress", "Pruned", "QueueStats", "Shared"),
}

#: Special methods by which an object can be used in a statement or by an operator.
_PROTOCOLS = frozenset(
    f"__{name}__"
    for name in (
        *("iter", "next", "len", "getitem", "contains", "call", "bool", "enter", "exit"),
        *("aiter", "anext", "aenter", "aexit", "await"),
    )
)


def lines_of(module: str) -> list[str]:
    """The lines of one module."""
    found = importlib.import_module(module)
    lines: list[str] = []
    for name in sorted(found.__all__):
        lines += _lines(name, getattr(found, name), module)
    return lines


def listing() -> dict[str, list[str]]:
    """The lines that the file has for each module."""
    sections = {}
    for section in f"\n{LISTING.read_text()}".split("\n# ")[1:]:
        module, *lines = section.splitlines()
        sections[module] = [line for line in lines if line]
    return sections


def _lines(name: str, value: Any, module: str) -> Iterator[str]:
    home = _home(value)
    if module != "mpqueue" and home is not None:
        yield f"{name} = mpqueue.{home}"
    elif inspect.isclass(value):
        yield from _class_lines(name, value)
    elif callable(value):
        yield _function_line(name, value)
    else:
        yield f"{name} = {_value(value)}"


def _home(value: Any) -> str | None:
    """By which name `mpqueue` itself has it, so that it is listed once."""
    package = importlib.import_module("mpqueue")
    name: str = getattr(value, "__name__", "")
    return name if name in package.__all__ and getattr(package, name) is value else None


def _class_lines(name: str, cls: type) -> Iterator[str]:
    bases = ", ".join(_bases(cls))
    yield f"class {name}({bases})" if bases else f"class {name}"
    if issubclass(cls, enum.Enum):
        for member in cls:
            yield f"    {member.name} = {member.value!r}"
    elif _has_constructor(cls) and name not in _MADE_BY_MPQUEUE:
        yield f"    {name}{_signature(cls)}"
    for attribute, value in sorted(_attributes(cls).items()):
        yield f"    {_attribute_line(attribute, value)}"


def _bases(cls: type) -> list[str]:
    """The nearest bases that are not private."""
    named = [one for one in cls.__mro__[1:] if one is not object and not one.__module__.startswith("mpqueue._")]
    public = importlib.import_module("mpqueue").__all__
    named += [one for one in cls.__mro__[1:] if one.__module__.startswith("mpqueue._") and one.__name__ in public]
    return [one.__name__ for one in named if not any(one in other.__mro__[1:] for other in named)]


def _has_constructor(cls: type) -> bool:
    """Whether mpqueue says how it is made: not of a protocol, nor of an error that takes what every exception takes."""
    makers = [next(one for one in cls.__mro__ if method in vars(one)) for method in ("__init__", "__new__")]
    return not getattr(cls, "_is_protocol", False) and any(one.__module__.startswith("mpqueue") for one in makers)


def _attributes(cls: type) -> dict[str, Any]:
    """Public attributes that a class of mpqueue gives it, and the fields' annotations."""
    found: dict[str, Any] = {}
    for one in reversed(cls.__mro__):
        if not one.__module__.startswith("mpqueue"):
            continue
        fields = {field: _annotation(value) for field, value in inspect.get_annotations(one).items()}
        found |= {name: value for name, value in vars(one).items() if name not in fields}
        found |= fields
    if issubclass(cls, enum.Enum):
        found = {name: value for name, value in found.items() if name not in cls.__members__}
    return {name: value for name, value in found.items() if name in _PROTOCOLS or not name.startswith("_")}


def _attribute_line(name: str, value: Any) -> str:
    if isinstance(value, str):
        return f"{name}: {value}"
    if isinstance(value, property):
        kind = "property" if value.fset is None else "property, settable"
        return f"{name}: {_annotation(inspect.signature(value.fget).return_annotation)}  ({kind})"  # type: ignore[arg-type]
    if isinstance(value, functools.cached_property):
        return f"{name}: {_annotation(inspect.signature(value.func).return_annotation)}  (property)"
    if isinstance(value, classmethod | staticmethod):
        return f"{_function_line(name, value.__func__)}  ({type(value).__name__})"
    if callable(value):
        return _function_line(name, value)
    return f"{name} = {_value(value)}"


def _function_line(name: str, function: Any) -> str:
    mark = "async " if inspect.iscoroutinefunction(function) else ""
    return f"{mark}{name}{_signature(function)}"


def _signature(called: Any) -> str:
    """As Python would print it, without what differs from version to version."""
    signature = inspect.signature(called)
    parts = []
    last = None
    for one in signature.parameters.values():
        if last is one.POSITIONAL_ONLY and one.kind is not one.POSITIONAL_ONLY:
            parts.append("/")
        if one.kind is one.KEYWORD_ONLY and last not in (one.KEYWORD_ONLY, one.VAR_POSITIONAL):
            parts.append("*")
        parts.append(_parameter(one))
        last = one.kind
    if last is inspect.Parameter.POSITIONAL_ONLY:
        parts.append("/")
    returned = signature.return_annotation
    arrow = "" if inspect.isclass(called) or returned is signature.empty else f" -> {_annotation(returned)}"
    return f"({', '.join(parts)}){arrow}"


def _parameter(one: inspect.Parameter) -> str:
    text = "*" * ((one.kind is one.VAR_POSITIONAL) + 2 * (one.kind is one.VAR_KEYWORD)) + one.name
    if one.annotation is not one.empty:
        text += f": {_annotation(one.annotation)}"
    return text if one.default is one.empty else f"{text} = {_value(one.default)}"


def _annotation(value: Any) -> str:
    if isinstance(value, str | ForwardRef):
        return value if isinstance(value, str) else value.__forward_arg__
    return value.__name__ if inspect.isclass(value) else str(value).removeprefix("typing.")


def _value(value: Any) -> str:
    """A value that reads the same everywhere; `...` for one that has no such form."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, frozenset | set):
        return "{" + ", ".join(sorted(map(_value, value))) + "}"
    if type(value) is tuple:
        return "(" + ", ".join(map(_value, value)) + ")"
    if inspect.isclass(value):
        return value.__name__
    return repr(value) if value is None or isinstance(value, bool | int | float | str | bytes) else "..."


def main() -> None:
    """Write the file anew."""
    sections = ["\n".join([f"# {module}", "", *lines_of(module)]) for module in MODULES]
    LISTING.write_text("\n\n".join(sections) + "\n")


if __name__ == "__main__":
    main()
