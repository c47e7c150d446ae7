"""The advice of a report: the rules that apply and don't contradict each other, the largest effect first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from mpqueue._output.words import percent, times
from mpqueue._report import rules
from mpqueue._report.figures import Figures
from mpqueue._report.rules import LIMITS, Finding, Rule, contradict

#: The most pieces of advice in a report.
MAX_ADVICE = 3

RULES: tuple[Rule, ...] = tuple(one for one in vars(rules).values() if isinstance(one, Rule))


class Advice(NamedTuple):
    """A rule that applies to a job."""

    rule: Rule
    finding: Finding

    @property
    def gain(self) -> float:
        """The factor by which the job would be faster, by Amdahl's law over the measured parts."""
        return 1 / (1 - min(max(self.finding.saved, 0.0), 0.999))

    @property
    def text(self) -> str:
        """The finding as text, with its gain if it has one."""
        if self.finding.saved < LIMITS.worth:
            return self.finding.text
        return f"{self.finding.text} Gain: up to {times(self.gain)}."


def advise(figures: Figures, alone: Figures | None = None) -> Sequence[Advice]:
    """Return advice to make the job quicker, the largest effect first; at most `MAX_ADVICE`, none if nothing is known.

    Of two rules that contradict each other, it has the one with the larger effect. ``alone`` are the figures of a job
    with the same handler on one worker, to compare with.
    """
    if not figures.worker_seconds:
        return ()
    compared = replace(figures, alone=alone)
    found = [Advice(rule, finding) for rule in RULES if (finding := rule.find(compared)) is not None]
    found = [one for one in found if one.finding.saved >= LIMITS.worth or one.finding.anyway]
    chosen: list[Advice] = []
    # If another rule saves as much as using no pool at all, the other rule is chosen.
    for one in sorted(found, key=lambda one: (-one.finding.saved, one.rule.says.get("pool") == "drop")):
        if len(chosen) < MAX_ADVICE and not any(contradict(one.rule, other.rule) for other in chosen):
            chosen.append(one)
    return chosen


def conclude(figures: Figures, advice: Sequence[Advice]) -> list[str]:
    """Return the sentences of a report: the advice, or that only the handler itself can be improved."""
    if not advice and figures.worker_seconds and figures.share("handler") >= LIMITS.well_used:
        share = percent(figures.share("handler"))
        return [
            f"The workers were in your handler {share} of the time: only a quicker handler, or more CPUs, can help."
        ]
    return [one.text for one in advice]
