"""A magnet on a grid (the Ising model), simulated with random numbers that are the same on any number of workers.

Each item is one run of the simulation at one temperature. ``current_item().rng`` gives it random numbers of its own,
which depend on ``seed=`` and on the item's place alone: so the same seed gives the same figures, bit for bit, on one
worker or on twenty, in any order, and also where a try failed and was made again. The energies are compared with the
exact ones, which Onsager found in 1944.
"""

import argparse
import math
import random
import time
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from _options import at_least_one

from mpqueue import JobQueue, RetryPolicy, current_item

TEMPERATURES = (1.5, 2.0, 2.2, 2.4, 2.7, 3.5)
#: Of the sweeps over the grid, this part comes first and is not measured: the magnet settles.
SETTLING = 0.25


class Run(NamedTuple):
    """One run of the simulation. One that ``fails_first`` raises half-way at its first try."""

    id: str
    temperature: float
    size: int
    sweeps: int
    fails_first: bool = False


def simulate(run: Run) -> float:
    """The mean energy of a spin. Metropolis' way: a spin turns if that lowers the energy, else with some chance."""
    me = current_item()
    rng = me.rng
    spins = np.ones((run.size, run.size), dtype=np.int8)
    rows, columns = np.indices(spins.shape)
    black = (rows + columns) % 2 == 0  # no two of these are neighbours, so all can turn at once
    energies = []
    for sweep in range(run.sweeps):
        for half in (black, ~black):
            rise = 2.0 * spins * neighbours(spins)
            turns = half & (rng.random(spins.shape) < np.exp(-rise / run.temperature))
            spins[turns] *= -1
        if run.fails_first and me.attempt == 1 and sweep == run.sweeps // 2:
            raise ConnectionError("made up: half of the random numbers are used by now")
        if sweep >= SETTLING * run.sweeps:
            energies.append(-0.5 * float((spins * neighbours(spins)).mean()))
    return fmean(energies)


def neighbours(spins: np.ndarray) -> np.ndarray:
    """The sum of each spin's four neighbours; the grid's edges meet."""
    total: np.ndarray = np.roll(spins, 1, 0) + np.roll(spins, -1, 0) + np.roll(spins, 1, 1) + np.roll(spins, -1, 1)
    return total


def exact_energy(temperature: float) -> float:
    """Onsager's, for an endless grid."""
    beta = 1 / temperature
    modulus = 2 * math.sinh(2 * beta) / math.cosh(2 * beta) ** 2
    return -(1 + 2 / math.pi * (2 * math.tanh(2 * beta) ** 2 - 1) * complete_elliptic(modulus)) / math.tanh(2 * beta)


def complete_elliptic(modulus: float) -> float:
    """The complete elliptic integral of the first kind, by the arithmetic-geometric mean."""
    a, b = 1.0, math.sqrt(1 - modulus**2)
    for _ in range(40):
        a, b = (a + b) / 2, math.sqrt(a * b)
    return math.pi / (2 * a)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate a magnet, reproducibly, on all cores.")
    parser.add_argument("--seed", type=int, default=1944, help="of all random numbers; default: 1944")
    parser.add_argument("--runs", type=at_least_one, default=8, metavar="N", help="runs a temperature; default: 8")
    parser.add_argument("--size", type=at_least_one, default=64, metavar="N", help="side of the grid; default: 64")
    parser.add_argument("--sweeps", type=at_least_one, default=400, metavar="N", help="sweeps a run; default: 400")
    given = parser.parse_args()
    runs = [
        Run(f"T={temperature} run {number}", temperature, given.size, given.sweeps)
        for temperature in TEMPERATURES
        for number in range(given.runs)
    ]

    with JobQueue(concurrency=1) as queue:
        started = time.monotonic()
        alone = queue.run(runs, simulate, seed=given.seed)
        print(f"{len(runs)} runs on one worker: {time.monotonic() - started:.1f} s")

    flaky = [run._replace(fails_first=random.random() < 0.3) for run in runs]
    with JobQueue(concurrency=None, retry=RetryPolicy(1, base_delay=0)) as queue:
        started = time.monotonic()
        job = queue.run(flaky, simulate, seed=given.seed)
        seconds = time.monotonic() - started
        print(f"again on {queue.concurrency}: {seconds:.1f} s, {job.retries} runs failed half-way and were made again")
    job.raise_for_failures()
    same = sum(a == b for a, b in zip(alone.results, job.results, strict=True))
    print(f"{same} of {len(runs)} results are the same, bit for bit\n")

    print("temperature   energy a spin     exact")
    for at, temperature in enumerate(TEMPERATURES):
        found = [one for one in job.results[at * given.runs : (at + 1) * given.runs] if one is not None]
        error = stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan
        print(f"{temperature:11}   {fmean(found):.4f} ± {error:.4f}   {exact_energy(temperature):.4f}")


if __name__ == "__main__":
    main()
