"""The form of a rule: the figures from which it applies, its advice then, and the rules that it contradicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from mpqueue._output.words import times
from mpqueue._report.figures import Figures


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits from which on something is worth a sentence. Shares are of 1."""

    #: Of the time that a user waited for the job: below, nothing is said of it.
    worth: float = 0.10
    #: Of the workers' time in the handler: from here on there is nothing to win but in the handler.
    well_used: float = 0.85
    #: Bytes from which a handler is heavy, and an item or a result is big.
    heavy_handler: int = 1_000_000
    big_item: int = 10_000
    #: Seconds for pickling and unpickling an item or a result, from which its objects are slow: numbers take 0.1 us.
    slow_pickle: float = 10e-6
    #: Seconds below which items are short enough that they are sent together.
    short_item: float = 0.001
    #: Seconds of work in a chunk, below which a chunk that was asked for is too small: it costs 0.3 ms.
    small_chunk: float = 0.003
    #: Of the time in the handler, that it waited: above, it is one that waits.
    waits: float = 0.5
    #: Of the time in the workers' hands, that it computed or had no CPU to do so: below, more workers wait at a time.
    computes: float = 0.7
    #: Of the items a second of more workers, that fewer have to do as well.
    as_much: float = 0.9
    #: CPU seconds beyond what one thread can have had, of those in the workers' hands: above, it has threads.
    threads: float = 0.3
    #: Of the time in the workers' hands, that they were ready to run and had no CPU.
    no_cpu: float = 0.15
    #: Of the CPUs: from here on they count as all used.
    saturated: float = 0.75
    #: How many times longer an item takes while many workers are busy, or on one worker; and the items that say so.
    slowdown: float = 1.4
    evidence: int = 5
    #: How many times the median the slowest item takes, to be called an outlier.
    outlier: float = 5.0
    #: Seconds of a loop below which no pool is worth its price.
    short_loop: float = 0.1
    #: How many times as many workers are proposed, at most, for a handler that waits.
    most_workers: int = 8


LIMITS = Thresholds()


class Confidence(StrEnum):
    """The confidence with which the figures support a rule."""

    MEASURED = "measured"  #: the seconds that it is about were measured, and the remedy saves them
    INFERRED = "inferred"  #: the cause is the likeliest one, or how much the remedy saves depends on other things


MEASURED, INFERRED = Confidence


class Finding(NamedTuple):
    """A rule whose evidence is there: what is wrong, what to do, and which part of the time that saves."""

    text: str
    saved: float  #: of the time that a user waited, from 0 to 1
    anyway: bool = False  #: it is worth saying also where it saves little time: memory, or processes, for nothing


@dataclass(frozen=True, slots=True)
class Rule:
    """One cause of slowness. ``find`` gives a finding where the figures are evidence for it, else None.

    ``says`` is what it claims or asks for, by subject. Rules that say different things on a subject contradict each
    other: both are never in one report.
    """

    name: str
    confidence: Confidence
    find: Callable[[Figures], Finding | None]
    says: Mapping[str, str]


def rule(
    name: str, confidence: Confidence, *, pool: str | None = "keep", **says: str
) -> Callable[[Callable[[Figures], Finding | None]], Rule]:
    """Make a rule of a function.

    The subjects: what the ``pool`` is good for (a plain loop against everything that improves a pool), the
    ``item_size``, how many ``workers``, what the ``handler`` does with its time, when its ``pace`` is slow, why workers
    had no ``cpu``, why some were idle at the ``end``, what takes long to be sent (``sending``) or loaded (``loading``),
    and when the ``source`` of the items is slow.
    """
    claims = says if pool is None else {"pool": pool, **says}
    return lambda find: Rule(name, confidence, find, claims)


def contradict(one: Rule, other: Rule) -> bool:
    """True for two rules that must not be in one report."""
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
        """The finding as text, and its gain where it has one."""
        if self.finding.saved < LIMITS.worth:
            return self.finding.text
        about = "about" if self.rule.confidence is Confidence.MEASURED else "up to"
        return f"{self.finding.text} Gain: {about} {times(self.gain)}."
