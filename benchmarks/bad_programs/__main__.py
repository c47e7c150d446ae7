"""`python -m benchmarks.bad_programs`: run them, or those that are named, and record their figures for the tests.

Without ``--record`` it only says what comes of them.
"""

from __future__ import annotations

import argparse

from benchmarks.bad_programs.all_programs import BUSY, PROGRAMS, problems, try_program
from benchmarks.bad_programs.recordings import save


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bad_programs", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PROGRAMS))
    parser.add_argument(
        "--record",
        action="store_true",
        help="keep the figures of those whose advice is right, on a machine that is quiet",
    )
    args = parser.parse_args()
    for name in args.names or PROGRAMS:
        program = PROGRAMS[name]
        outcome = try_program(program)
        wrong = problems(program, outcome.advice)
        gain = "" if outcome.ratio is None else f", repaired {outcome.ratio:.1f}x as fast"
        print(f"{name}: {outcome.bad:.2f} s{gain}{f'  WRONG: {wrong}' if wrong else ''}")
        for one in outcome.advice:
            print(f"    {one.rule.name}: {one.text}")
        if args.record and not wrong and not any(one.rule.name == BUSY for one in outcome.advice):
            save(name, outcome.figures, outcome.alone)


if __name__ == "__main__":
    main()
