"""The command line in this process, as `python -m mpqueue` runs it."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from unittest import mock

import pytest


def main(arguments: Sequence[str]) -> int:
    """Run a command; returns its exit code."""
    with mock.patch.object(sys, "argv", ["mpqueue", *arguments]), pytest.raises(SystemExit) as ended:
        runpy.run_module("mpqueue", run_name="__main__")
    return int(ended.value.code or 0)
