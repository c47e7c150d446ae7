"""What does a report say of programs that are slow for one reason, and how much does its advice help?"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bad_programs.all_programs import PROGRAMS, problems, try_program
from benchmarks.bad_programs.program import Program
from benchmarks.case import Case, Measures, Sizes
from benchmarks.contenders import Contender

QUESTION = "Does a report name what is wrong with a bad program, and does its advice help?"
ROUNDS = 1


def cases(sizes: Sizes) -> list[Case]:
    programs = list(PROGRAMS.values())
    return [
        Case(
            program.name,
            program.name.replace("_", " "),
            measure=_measure(program),
            started=False,
            contenders=("mpqueue",),
            repeats=1,
        )
        for program in sizes.pick(programs, programs, programs[:2])
    ]


def _measure(program: Program) -> Callable[[Contender, Case, int], Measures]:
    def measure(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
        outcome = try_program(program)
        return {
            "seconds": outcome.bad,
            "ratio": outcome.ratio,
            "cause": program.cause,
            "problem": problems(program, outcome.advice),
            "advice": [one.text for one in outcome.advice],
            "gain": outcome.advice[0].gain if outcome.advice else None,
        }

    return measure
