"""Flags of commands, and the meaning of their values: declared options, items' needs, engines, profiles."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mpqueue._cli.inputs import load_function
from mpqueue._cli.usage import Exit, say, usage_errors
from mpqueue._declared import At, Option, options_at
from mpqueue._options import GivenOptions
from mpqueue._parent.lane_protocol import Backend
from mpqueue._queue.arguments import choose_backend
from mpqueue._queue.job import Job
from mpqueue._text import seconds_in

#: The ``add_argument`` of a parser, or of one of its groups.
Add = Callable[..., Any]


def add_flags(add: Add, declared: type = GivenOptions, at: At = At.COMMAND, **elsewhere: Add) -> None:
    """Add the options that have a flag, and these calls take; those with these names to the group ``elsewhere``."""
    for one in options_at(declared, At.COMMAND).values():
        if not one.at & at:
            continue
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
    """Return the given flags that this call takes, by the names of their options."""
    flags = {name: getattr(args, name) for name, one in options_at(declared, At.COMMAND).items() if one.at & at}
    return {name: value for name, value in flags.items() if value is not None and value is not False}


def word_of(name: str) -> Callable[[str], Any]:
    """Return the function that reads the value of the option of this name. It raises ArgumentTypeError."""
    return partial(_word, options_at(GivenOptions, ~At(0))[name])


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
    """Return a time in seconds. Raises ArgumentTypeError."""
    try:
        return seconds_in(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# -- Needs of items on the command line: ``--uses cpu=2,gpu=1``, ``--resources gpu=2``. --------------------------------


def add_needs(add: Add) -> None:
    """Add ``--uses`` and ``--resources``."""
    add("--uses", type=_amounts, action="append", metavar="NAME=N", help="what an item needs while it runs, such as "
        "cpu=2,memory=3GB,gpu=1: CPUs of as many as there are workers, memory, and --resources")  # fmt: skip
    add_resources(add)


def add_resources(add: Add) -> None:
    """Add ``--resources``."""
    add("--resources", type=_amounts, action="append", metavar="NAME=N", help="what is available for all items, such "
        "as gpu=2,license=5,memory=16GB")  # fmt: skip


def merged(given: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    """The values of all options of one name, as one mapping; None if there are none."""
    if given is None:
        return None
    return {name: amount for part in given for name, amount in part.items()}


def _amounts(text: str) -> dict[str, int | str]:
    amounts: dict[str, int | str] = {}
    for part in text.split(","):
        name, _, amount = map(str.strip, part.partition("="))
        if not (name and amount):
            raise argparse.ArgumentTypeError(f"expected NAME=N, such as gpu=1, got {text!r}")
        if name != "memory" and not (amount.isascii() and amount.isdigit()):
            raise argparse.ArgumentTypeError(f"{name}: expected a whole number, got {amount!r}")
        amounts[name] = amount if name == "memory" else int(amount)
    return amounts


# -- ``--backend``: the engine of a run's workers. ---------------------------------------------------------------------


def open_backend(name: str | None) -> Backend:
    """Return the engine of that name; None: loky. Connects to its cluster. Raises UsageError if there is none."""
    with usage_errors(f"--backend {name}: ", (ImportError, OSError, TypeError, ValueError)):
        if name is not None and ":" in name and "://" not in name:
            return choose_backend(load_function(name, "--backend")())
        return choose_backend(name or "loky")


# -- ``--profile FILE``: the lines that handlers spent time in, in the format that the file's suffix names. ------------

#: The formats: the report, speedscope's JSON, and folded stacks.
SUFFIXES = (".html", ".json", ".folded", ".txt")


def profile_file(text: str) -> Path:
    """Return the file of ``--profile``. Raises ArgumentTypeError."""
    path = Path(text)
    if path.suffix.lower() not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"expected a file named {', '.join(SUFFIXES)}, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that is there, got {text!r}")
    return path


def write_profile(job: Job, path: Path, exit_code: int) -> int:
    """Write the profile, after the job's end or interruption; returns the exit code."""
    profile = job.profile
    assert profile is not None, "the job was made with it"
    if not job._book.timings.lanes:
        say("--profile: nothing ran, so there is no profile")
        return exit_code
    try:
        match path.suffix.lower():
            case ".html":
                job.report().save(path)
            case ".json":
                profile.to_speedscope(path)
            case _:
                profile.to_collapsed(path)
    except OSError as error:
        say(f"--profile: {error}")
        return exit_code or Exit.FAILED
    say(f"profile: {path}")
    return exit_code
