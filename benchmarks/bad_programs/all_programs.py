"""All bad programs, and what comes of running one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.bad_programs import handling, sending, workers
from benchmarks.bad_programs.program import Program, Ran
from mpqueue._report.figures import Figures
from mpqueue._report.rules import Advice, advise

PROGRAMS: dict[str, Program] = {
    program.name: program for program in (*sending.PROGRAMS, *workers.PROGRAMS, *handling.PROGRAMS)
}


#: What is true of the machine, not of the program. No recording has it.
BUSY = "busy machine"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was said of a program, and how many times as fast the repaired one was."""

    figures: Figures
    alone: Figures | None
    advice: Sequence[Advice]
    bad: float
    good: float | None

    @property
    def ratio(self) -> float | None:
        """None where the repaired one can't be measured."""
        return None if self.good is None else self.bad / self.good


def try_program(program: Program) -> Outcome:
    """Run it, ask for advice, and run the repaired one."""
    ran = program.bad()
    figures, alone = figures_of(program, ran)
    good = None if program.good is None else program.good().seconds
    return Outcome(figures, alone, advise(figures, alone), ran.seconds, good)


def figures_of(program: Program, ran: Ran) -> tuple[Figures, Figures | None]:
    """The figures that the advice is made of."""
    figures = ran.job.report().figures
    if program.supply is not None and figures.memory is not None:
        figures = dataclasses.replace(figures, memory=figures.memory._replace(supply=program.supply))
    return figures, None if ran.alone is None else ran.alone.report().figures


def problems(program: Program, advice: Sequence[Advice]) -> str:
    """Why the advice is not the right one; empty where it is."""
    if not advice or advice[0].rule.name != program.cause:
        return f"expected {program.cause!r} first, got {[one.rule.name for one in advice]}"
    if program.fix not in advice[0].text:
        return f"expected {json.dumps(program.fix)} in it"
    wrong = {one.rule.name for one in advice[1:]} - {*program.also, BUSY}
    if wrong:
        return f"expected nothing wrong beside it, got {sorted(wrong)}"
    return ""
