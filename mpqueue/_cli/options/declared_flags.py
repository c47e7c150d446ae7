"""Flags of ``mpqueue run`` that are made of the options' declarations, and times on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from mpqueue._declared import At, Option, options_at
from mpqueue._durations import seconds_in
from mpqueue._options import GivenOptions

#: The ``add_argument`` of a parser, or of a group of one.
Add = Callable[..., Any]


def add_flags(add: Add, declared: type = GivenOptions, **elsewhere: Add) -> None:
    """Add those options that have a flag; those with these names ``elsewhere``."""
    for one in options_at(declared, At.COMMAND).values():
        assert one.kind is not None
        add_it = elsewhere.get(one.name, add)
        text = one.text.replace("`", "").rstrip(".")
        help_text = (text[0].lower() + text[1:]).replace("%", "%%")
        if one.kind.read is None:
            add_it(one.flag, dest=one.name, action="store_true", help=help_text)
        else:
            word = partial(_word, one)
            add_it(one.flag, dest=one.name, type=word, default=one.default, metavar=one.kind.metavar, help=help_text)


def given_flags(args: argparse.Namespace, at: At, declared: type = GivenOptions) -> dict[str, Any]:
    """Those that were given, and may be given there."""
    flags = {name: getattr(args, name) for name, one in options_at(declared, At.COMMAND).items() if one.at & at}
    return {name: value for name, value in flags.items() if value is not None and value is not False}


def _word(declared_as: Option, text: str) -> Any:
    kind = declared_as.kind
    assert kind is not None
    assert kind.read is not None
    try:
        return kind.check(declared_as.name, kind.read(text))
    except (TypeError, ValueError) as error:
        why = str(error).removeprefix(f"{declared_as.name}: ")
        raise argparse.ArgumentTypeError(why if "expected" in why else f"expected {kind.word}, got {text!r}") from None


def duration(text: str) -> float:
    """A time in seconds. Raises ArgumentTypeError."""
    try:
        return seconds_in(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
