"""Which code made the results that a journal has of a job, compared with the code of today.

A job has a list of all code that its results were made with, the one of its handler last. A row has a number that
stands for one of these. Version 2 of the journal had a hash for the whole job, so nothing is known of results of that
time.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mpqueue._parent.journal.code.code_parts import PYTHON, Code, CodeNow
from mpqueue._parent.journal.sealed import Unsealed, prepare
from mpqueue.status import COMPLETED, FAILED

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob


def written_codes(codes: Iterable[Code]) -> Unsealed:
    """Codes as they stand in the line of their job."""
    return prepare([(code.python, dict(code.parts), dict(code.packages)) for code in codes])


class MadeBy:
    """What is known of the results of one job. ``changed`` are the indices of those that other code has made."""

    def __init__(self, reader: Reader, recorded: RecordedJob, now: CodeNow) -> None:
        self._now = now
        self._codes = {code.number: code for code in (Code(*each) for each in reader.codes(recorded))}
        self._is_older = recorded.code_hash is not None
        self._last = next(reversed(self._codes), None)
        self.changed: array[int] = array("Q")
        self._numbers: Counter[int] = Counter()  #: of ended items, by the code that made them

    @property
    def is_new(self) -> bool:
        """True if the job's handler is of other code than that of today."""
        return self._last != self._now.code.number

    @property
    def may_differ(self) -> bool:
        """False if all of its results are known to be made with the code of today: then no row has to be read."""
        return self._is_older or [*self._codes] != [self._now.code.number]

    def written(self) -> Unsealed:
        """All codes, that of today last."""
        number = self._now.code.number
        return written_codes([*(code for one, code in self._codes.items() if one != number), self._now.code])

    def look(self, status: Sequence[int], numbers: Sequence[int]) -> None:
        """Items with these statuses were made by the codes of these numbers."""
        for index, (code, number) in enumerate(zip(status, numbers, strict=True)):
            if code in (COMPLETED, FAILED):
                self._numbers[number] += 1
                if self.is_other(number):
                    self.changed.append(index)

    def is_other(self, number: int) -> bool:
        """True if that code is known, and differs from that of today."""
        code = self._codes.get(number)
        return code is not None and code.python == PYTHON and number != self._now.code.number

    def is_unknown(self, number: int) -> bool:
        """True if that code can't be compared with that of today."""
        return number != self._now.code.number and not self.is_other(number)

    def describe_change(self) -> str:
        """What has changed since the results were made that other code has made, for people; empty without any."""
        others = [number for number in self._numbers if self.is_other(number)]
        return self.describe_others(others, f"{len(self.changed):,}") if others else ""

    def describe_codes(self) -> str:
        """The same without a look at the results; empty where all of them may be of today's code."""
        others = [number for number in self._codes if self.is_other(number)]
        return self.describe_others(others, "some") if others else ""

    def describe_others(self, numbers: Sequence[int], count: str) -> str:
        """What has changed since results were made by the code of these numbers, for people."""
        text = self._now.describe([self._codes[number] for number in numbers])
        return f"{text} since {count} of these results {'was' if count == '1' else 'were'} made"

    def describe_unknown(self) -> str:
        """Of which results it can't be known whether the code has changed, for people; empty without any."""
        unknown = [number for number in self._numbers if self.is_unknown(number)]
        count = sum(self._numbers[number] for number in unknown)
        return self.describe_incomparable(unknown, f"{count:,}") if unknown else ""

    def describe_incomparable(self, numbers: Sequence[int], count: str) -> str:
        """That code of these numbers can't be compared, for people."""
        pythons = {self._codes[each].python.partition("/")[0] for each in numbers if each in self._codes}
        why = f"Python {', '.join(sorted(pythons))} made them" if pythons else "what made them is not recorded"
        was = "was" if count == "1" else "were"
        return (
            f"whether the code has changed since {count} of these results {was} made can't be known: {why}; "
            "what is done is not done again; redo='all' runs everything again"
        )
