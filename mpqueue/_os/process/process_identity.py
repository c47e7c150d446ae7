"""Who this process is, among all that there are anywhere."""

from __future__ import annotations

import os

from mpqueue._os.process.own_forks import in_each_fork


def _draw() -> str:
    return os.urandom(8).hex()


_name = _draw()


def _renew() -> None:
    global _name
    _name = _draw()  # a fork is a process of its own


in_each_fork(_renew)


def process_name() -> str:
    """The name of this process, 16 hexadecimal digits: no other has it, on any machine, at any time. For nothing."""
    return _name
