"""What items need, on the command line: ``--uses cpu=2,gpu=1``, ``--resources gpu=2``."""

from __future__ import annotations

import argparse
from functools import partial

from mpqueue._cli.options.declared_flags import Add
from mpqueue._options import size_in_bytes


def add_needs(add: Add) -> None:
    """Add the options."""
    add("--uses", type=_amounts, action="append", metavar="NAME=N", help="what an item needs while it runs, such as "
        "cpu=2,memory=3GB,gpu=1: CPUs of as many as there are workers, memory, and --resources")  # fmt: skip
    for former, name in (("--cpus", "cpu=N"), ("--memory", "memory=SIZE")):
        add(former, type=partial(_refuse, f"--uses {name}"), help=argparse.SUPPRESS)
    add_resources(add)


def add_resources(add: Add) -> None:
    """Add ``--resources``."""
    add("--resources", type=_amounts, action="append", metavar="NAME=N", help="what is available for all items, such "
        "as gpu=2,license=5,memory=16GB")  # fmt: skip


def merged(given: list[dict[str, int]] | None) -> dict[str, int] | None:
    """All that was given in several options of a name; None where none was."""
    if given is None:
        return None
    return {name: amount for part in given for name, amount in part.items()}


def _amounts(text: str) -> dict[str, int]:
    return {name: _size(amount) if name == "memory" else _count(name, amount) for name, amount in _pairs(text)}


def _refuse(now: str, _: str) -> None:
    raise argparse.ArgumentTypeError(f"it is {now} now")


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [part.partition("=") for part in text.split(",")]
    for name, equals, amount in pairs:
        if not (name.strip() and equals and amount.strip()):
            raise argparse.ArgumentTypeError(f"expected NAME=N, such as gpu=1, got {text!r}")
    return [(name.strip(), amount.strip()) for name, _, amount in pairs]


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{name}: expected a whole number, got {text!r}")
    return int(text)


def _size(text: str) -> int:
    try:
        return size_in_bytes("SIZE", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
