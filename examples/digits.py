"""Reading handwritten digits in plain Python: many short items, and a ``setup`` that loads what they are compared with.

It needs nothing but mpqueue. The digits, 8 x 8 grey values each, are fetched once, out of scikit-learn's wheel.
"""

import argparse
import csv
import gzip
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from _downloads import NotToBeHad, fetch_digits
from _options import at_least_one
from _pictures import CACHE

from mpqueue import JobQueue

#: So many digits are known; the others are to be read.
KNOWN = 1200
#: So many of the most similar known digits vote.
VOTES = 3


class Digit(NamedTuple):
    """64 grey values from 0 to 16, row by row, and which digit a person saw in them."""

    pixels: tuple[int, ...]
    digit: int


def digits_in(file: Path) -> list[Digit]:
    with gzip.open(file, "rt", newline="") as lines:
        rows = [[round(float(value)) for value in row] for row in csv.reader(lines)]
    return [Digit(tuple(row[:-1]), row[-1]) for row in rows]


def read_digit(digit: Digit, known: list[Digit]) -> int:
    """The digit that most of the nearest known ones are. Takes about 3 ms."""

    def distance(other: Digit) -> int:
        return sum((a - b) ** 2 for a, b in zip(digit.pixels, other.pixels, strict=True))

    nearest = sorted(known, key=distance)[:VOTES]
    return Counter(other.digit for other in nearest).most_common(1)[0][0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Read handwritten digits, on all cores.")
    parser.add_argument("--limit", type=at_least_one, metavar="N", help="so many digits; default: all")
    limit = parser.parse_args().limit
    try:
        file = fetch_digits(CACHE, print)
    except NotToBeHad as reason:
        sys.exit(f"digits.py: the digits are not to be had here ({reason})")
    unread = digits_in(file)[KNOWN:][:limit]

    started = time.monotonic()
    with JobQueue(concurrency=None) as queue:
        job = queue.run(unread, read_digit, setup=lambda: digits_in(file)[:KNOWN])
    seconds = time.monotonic() - started

    right = sum(read == digit.digit for read, digit in zip(job.results, unread, strict=True))
    print(f"{right} of {job.total} digits read right ({right / job.total:.1%}), in {seconds:.1f} s")
    for digit, read in zip(unread, job.results, strict=True):
        if read != digit.digit:
            print(f"\nThis {digit.digit} was taken for a {read}:")
            for row in range(0, 64, 8):
                print("  " + "".join(" .:-=+*#@"[value // 2] for value in digit.pixels[row : row + 8]))
            break


if __name__ == "__main__":
    main()
