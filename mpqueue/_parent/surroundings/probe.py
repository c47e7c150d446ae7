"""Test signals: moments that the engine announces, without effect unless a test listens.

A test sets ``probe.listener`` and waits for what it needs; in production `reached` is one comparison.
"""

from __future__ import annotations

from collections.abc import Callable

listener: Callable[[str, object], None] | None = None


def reached(moment: str, subject: object = None) -> None:
    """The engine is at this moment."""
    if listener is not None:
        listener(moment, subject)
