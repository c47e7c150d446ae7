"""``mpqueue run a:load m:compute w:write INPUT``: items that go through several functions."""

from __future__ import annotations

import argparse
import os
import re

from mpqueue._cli.usage import UsageError, first_given

#: A word that is no input: module:function or file.py:function.
_FUNCTION = re.compile(r"([^:]+\.py|[^\W\d][\w.]*):[^\W\d][\w.]*")


def take_functions(args: argparse.Namespace) -> list[str]:
    """Take the names of functions from the front of the inputs.

    An existing file of such a name stays an input, and so does each word after ``--``. Raises UsageError for options
    that apply to one function only.
    """
    names: list[str] = []
    while (
        len(args.inputs) > args.after_dashes
        and _FUNCTION.fullmatch(args.inputs[0])
        and not os.path.exists(args.inputs[0])
    ):
        names.append(args.inputs.pop(0))
    if names:
        option = first_given(args, "setup", "plan", "cost", "uses", "capture_output")
        if option is not None:
            raise UsageError(f"{option}: expected one function, got {len(names) + 1}: it can't be had with several")
    return names
