"""``--profile FILE``: where the handlers were, to the line, in the form that the file's name says."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpqueue._cli.options.declared_flags import Add
from mpqueue._cli.usage import Exit, say
from mpqueue._queue.job import Job

#: The report, speedscope's JSON, and folded stacks.
SUFFIXES = (".html", ".json", ".folded", ".txt")


def add_profile(add: Add) -> None:
    """Add it."""
    add("--profile", type=_file, metavar="FILE", help="sample where handlers are, to the line: .html "
        "for a report with a flame graph, .json for speedscope.app, .folded or .txt for flamegraph.pl")  # fmt: skip


def _file(text: str) -> Path:
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"expected a file named {', '.join(SUFFIXES)}, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that is there, got {text!r}")
    return path


def write_profile(job: Job, path: Path, exit_code: int) -> int:
    """Write it, once the job has ended or was interrupted; returns the exit code."""
    profile = job.profile
    assert profile is not None, "the job was made with it"
    if not job._book.timings.lanes:
        say("--profile: nothing ran, so there is no profile")
        return exit_code
    try:
        if path.suffix == ".html":
            job.report().save(path)
        elif path.suffix == ".json":
            profile.to_speedscope(path)
        else:
            profile.to_collapsed(path)
    except OSError as error:
        say(f"--profile: {error}")
        return exit_code or Exit.FAILED
    say(f"profile: {path}")
    return exit_code
