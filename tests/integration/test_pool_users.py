"""Libraries that take a pool, or its `map`: their results are those of a serial run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mpqueue import Pool

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Two workers."""
    with Pool(2) as made:
        yield made
    made.join()


def rosenbrock(point: np.ndarray) -> float:
    """A valley that is hard to walk along."""
    x, y = point
    return float((1 - x) ** 2 + 100 * (y - x * x) ** 2)


def log_probability(point: np.ndarray, scale: float) -> float:
    """Of a normal distribution."""
    return float(-0.5 * np.sum((point / scale) ** 2))


def test_scipy_minimizes_as_it_does_serially(pool: Pool) -> None:
    optimize = pytest.importorskip("scipy.optimize")

    def minimize(**options: object) -> tuple[list[float], float, int]:
        found = optimize.differential_evolution(
            rosenbrock, [(-2, 2), (-2, 2)], rng=1, maxiter=15, polish=False, updating="deferred", **options
        )
        return found.x.tolist(), found.fun, found.nfev

    assert minimize(workers=pool.map) == minimize()


def test_emcee_samples_as_it_does_serially(pool: Pool) -> None:
    emcee = pytest.importorskip("emcee")
    start = np.random.default_rng(1).normal(size=(8, 2))

    def chain(**options: object) -> np.ndarray:
        sampler = emcee.EnsembleSampler(8, 2, log_probability, args=[2.0], **options)
        sampler.random_state = np.random.RandomState(1).get_state()
        sampler.run_mcmc(start, 20)
        return np.asarray(sampler.get_chain())

    assert np.array_equal(chain(pool=pool), chain())
