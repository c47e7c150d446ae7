"""The form of a rule: the figures for which it applies, its advice, and the rules that it contradicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from mpqueue._output.words import times
from mpqueue._report.figures import Figures


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits from which on a finding is reported. Shares are of 1."""

    #: The least part of the user's time for a report: below, a finding is left out.
    worth: float = 0.10
    #: The part of the workers' time in the handler from which on only the handler can be improved.
    well_used: float = 0.85
    #: Bytes from which on a handler is heavy, and an item or a result is big.
    heavy_handler: int = 1_000_000
    big_item: int = 10_000
    #: Seconds of pickling and unpickling from which on objects of an item or a result are slow: numbers take 0.1 us.
    slow_pickle: float = 10e-6
    #: Seconds below which items are short enough to be sent together.
    short_item: float = 0.001
    #: Seconds of work below which a chunk of the user's size is too small: a chunk costs 0.3 ms.
    small_chunk: float = 0.003
    #: The waiting part of the time in the handler, from which on it is a handler that waits.
    waits: float = 0.5
    #: The part of the workers' time with a chunk that they computed or lacked a CPU: below, more workers can wait at a
    #: time.
    computes: float = 0.7
    #: The part of the items per second that fewer workers must reach too.
    as_much: float = 0.9
    #: CPU seconds beyond one thread's most, as a part of the time with a chunk: above, the handler has threads.
    threads: float = 0.3
    #: The part of the time with a chunk in which workers were ready to run and had no CPU.
    no_cpu: float = 0.15
    #: The part of the CPUs from which on all count as used.
    saturated: float = 0.75
    #: The factor by which an item takes longer while many workers are busy, or on one worker; and the least number of
    #: items.
    slowdown: float = 1.4
    evidence: int = 5
    #: The factor of the median from which on the slowest item is an outlier.
    outlier: float = 5.0
    #: Seconds of a loop below which no pool is worth its cost.
    short_loop: float = 0.1
    #: The most workers that are proposed for a handler that waits, as a factor.
    most_workers: int = 8


LIMITS = Thresholds()


class Confidence(StrEnum):
    """The certainty with which the figures support a rule."""

    MEASURED = "measured"  #: its seconds were measured, and the remedy saves them
    INFERRED = "inferred"  #: it is the likeliest cause, or the saving depends on other things


MEASURED, INFERRED = Confidence


class Finding(NamedTuple):
    """A rule that the figures support: the cause, the remedy, and the part of the time that it saves."""

    text: str
    saved: float  #: of the user's time, from 0 to 1
    anyway: bool = False  #: reported even if it saves little time: memory, or processes, are wasted


@dataclass(frozen=True, slots=True)
class Rule:
    """One cause of slowness. ``find`` gives a finding if the figures support it, else None.

    ``says`` has its claims by subject. Rules with different claims on a subject contradict each other: a report never
    has both.
    """

    name: str
    confidence: Confidence
    find: Callable[[Figures], Finding | None]
    says: Mapping[str, str]


def rule(
    name: str, confidence: Confidence, *, pool: str | None = "keep", **says: str
) -> Callable[[Callable[[Figures], Finding | None]], Rule]:
    """Make a rule of a function.

    The subjects: the use of a ``pool`` (a plain loop against everything that improves a pool), the ``item_size``, the
    number of ``workers``, the ``handler``'s use of time, when its ``pace`` is slow, why workers had no ``cpu``, why
    some were idle at the ``end``, slow ``sending`` or ``loading``, and when the ``source`` of the items is slow.
    """
    claims = says if pool is None else {"pool": pool, **says}
    return lambda find: Rule(name, confidence, find, claims)


def contradict(one: Rule, other: Rule) -> bool:
    """True for two rules that must not be in the same report."""
    return any(other.says.get(subject, what) != what for subject, what in one.says.items())


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
        about = "about" if self.rule.confidence is Confidence.MEASURED else "up to"
        return f"{self.finding.text} Gain: {about} {times(self.gain)}."
