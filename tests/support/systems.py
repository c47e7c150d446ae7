"""Which tests are of one system only."""

from __future__ import annotations

import pytest

from mpqueue._os import system

#: For what only Linux has: left out with the portable forms, where a bare system is played (`make test-portable`).
LINUX_ONLY = pytest.mark.skipif(not system.IS_LINUX, reason="only Linux has it")

IS_WINDOWS = system.IS_WINDOWS


def not_on_windows(reason: str) -> pytest.MarkDecorator:
    """For what Windows does not have (`make test-windows`)."""
    return pytest.mark.skipif(IS_WINDOWS, reason=f"Windows: {reason}")
