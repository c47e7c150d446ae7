"""The command line, as `python -m mpqueue` runs it: in this process, or as a program."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest

from tests.support.programs import PATIENCE


def main(arguments: Sequence[str]) -> int:
    """Run a command; returns its exit code."""
    with mock.patch.object(sys, "argv", ["mpqueue", *arguments]), pytest.raises(SystemExit) as ended:
        runpy.run_module("mpqueue", run_name="__main__")
    return int(ended.value.code or 0)


def run_command(
    folder: Path, *arguments: str, stdin: str = "", code: int | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in that folder to its end; with ``code`` it has to end with that."""
    done = subprocess.run(
        [sys.executable, "-m", "mpqueue", *arguments],
        cwd=folder,
        env=os.environ | environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done
