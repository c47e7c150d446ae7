"""What the larger examples can be asked for on the command line."""

import argparse
from pathlib import Path


def make_parser(
    description: str, *, inputs: str = "pictures", given: str = "a folder of your own", output: Path | None = None
) -> argparse.ArgumentParser:
    """With the options that they share; ``inputs`` is what an item is made of, ``given`` what a user may have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(f"--{inputs}", type=Path, metavar="DIR", help=f"{given}; else some are fetched once")
    if output is not None:
        parser.add_argument("--output", type=Path, metavar="DIR", default=output, help="default: %(default)s")
    parser.add_argument("--concurrency", type=at_least_one, metavar="N", help="worker processes; default: one a core")
    parser.add_argument("--limit", type=at_least_one, metavar="N", help=f"so many {inputs}, spread over all")
    return parser


def at_least_one(text: str) -> int:
    """For argparse: a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text}")
    return number
