"""What items need, on the command line: ``--cpus``, ``--memory``, ``--uses gpu=1``, ``--resources gpu=2``."""

from __future__ import annotations

import argparse

from mpqueue._options import size_in_bytes


def add_needs(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("--cpus", type=int, metavar="N", help="CPUs that an item needs, of as many as there are workers (default: 1)")
    add("--memory", type=_size, metavar="SIZE", help="memory that an item needs, such as 3GB: as many run as fit")
    add("--uses", type=_amounts, action="append", metavar="NAME=N", help="what an item needs of --resources, such as "
        "gpu=1; separate several with commas")  # fmt: skip
    add("--resources", type=_supplies, action="append", metavar="NAME=N", help="what is available for all items, such "
        "as gpu=2,license=5,memory=16GB")  # fmt: skip


def merged(given: list[dict[str, int]] | None) -> dict[str, int] | None:
    """All that was given in several options of a name; None where none was."""
    if given is None:
        return None
    return {name: amount for part in given for name, amount in part.items()}


def _amounts(text: str) -> dict[str, int]:
    return {name: _count(name, amount) for name, amount in _pairs(text)}


def _supplies(text: str) -> dict[str, int]:
    return {name: _size(amount) if name == "memory" else _count(name, amount) for name, amount in _pairs(text)}


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
