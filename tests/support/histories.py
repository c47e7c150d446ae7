"""Random histories: a model and the real thing, step by step, until both differ."""

from __future__ import annotations

from typing import Protocol


class Goes(Protocol):
    """A history that can be gone on with."""

    def go_on(self) -> None:
        """The next step, and a look whether the model says the same."""
        ...


def play(history: Goes, name: str, runs: int) -> None:
    """Go on so often. An error says in which history, and at which step, it was."""
    for run in range(runs):
        try:
            history.go_on()
        except BaseException as error:
            error.add_note(f"history {name}, run {run}")
            raise
