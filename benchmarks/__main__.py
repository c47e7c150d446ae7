"""`python -m benchmarks`: ask the questions, write the answers down. See README.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from benchmarks import answers, contenders, machine, pictures, processes, questions, session
from benchmarks.busy import calibrate
from benchmarks.case import Sizes
from benchmarks.sections import SECTIONS
from benchmarks.tables import summary

RESULTS = Path(__file__).parent / "results"
#: (rounds, seconds after which nobody is waited for) of each size.
SIZES: dict[str, tuple[int, float | None]] = {"full": (5, None), "quick": (1, 3.0), "smoke": (1, 10.0)}
#: A load above this many processes makes figures doubtful.
QUIET = 0.5


def main() -> None:
    args = _arguments()
    names = [name for name in args.contender or contenders.BY_NAME if contenders.is_here(name)]
    left_out = [name for name in args.contender or contenders.BY_NAME if name not in names]
    if left_out:
        print(f"not here, so left out: {', '.join(left_out)}")
    if machine.load() > QUIET:
        print(f"warning: {machine.load()} processes want a CPU besides this one; the figures will be doubtful")
    if args.pictures:
        os.environ[pictures.FOLDER] = str(args.pictures.resolve())
    processes.end_on_signals()
    rounds, limit = SIZES[args.size]
    run = session.Session(
        sizes=Sizes(args.size, args.workers, calibrate(args.workers)),
        rounds=args.rounds or rounds,
        limit=args.limit or limit,
        names=names,
    )
    path = args.into or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}-{args.size}.json"
    for question in args.only or questions.of_size(args.size):
        started = time.monotonic()
        record = run.ask(question)
        found = answers.load(path, {"version": 1, "questions": {}})
        found["questions"][question] = record
        answers.save(path, found)
        print(f"\n{record['question']}  ({time.monotonic() - started:.0f} s, load {record['load']})")
        print(summary(question, record), flush=True)
    everything = answers.load(path, {"questions": {}})["questions"]
    for table in (section.table(everything) for section in SECTIONS if args.size == "full"):
        if table.rows:
            print(f"\n{table.title}\n{table.text()}")
    print(f"\nwritten to {path}")


def _arguments() -> argparse.Namespace:
    used = "\n".join(f"  {name}: {contender.configuration}" for name, contender in contenders.BY_NAME.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"how each is used:\n{used}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_const", const="quick", dest="size", help="five minutes, one round")
    parser.add_argument("--size", choices=SIZES, help="smoke: only whether it runs at all")
    parser.set_defaults(size="full")
    parser.add_argument("--only", action="append", choices=questions.NAMES, metavar="QUESTION", help="can be repeated")
    parser.add_argument("--contender", action="append", choices=contenders.BY_NAME, help="can be repeated")
    parser.add_argument("--rounds", type=int, help="how often everybody is measured (5; quick: 1)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="(one for each usable CPU)")
    parser.add_argument("--limit", type=float, help="seconds after which nobody is waited for (60; quick: 3)")
    parser.add_argument("--pictures", type=Path, help="a folder of JPEGs for the image batch")
    parser.add_argument("--into", type=Path, help="a file whose answers to these questions are replaced")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
