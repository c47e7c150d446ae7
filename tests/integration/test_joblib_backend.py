"""joblib and scikit-learn on mpqueue's workers: the sequential results, and faults of one call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config

from mpqueue import joblib_backend
from tests.support import handlers as do
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


@pytest.fixture(autouse=True)
def on_mpqueue() -> Iterator[None]:
    joblib_backend.register()
    with parallel_config(backend="mpqueue", n_jobs=2):
        yield
    joblib_backend.close()


# --- what comes out -------------------------------------------------------------------------------------------------


def test_grid_search_finds_what_the_sequential_one_finds() -> None:
    # Here: it is a quarter of the time in which each process collects all tests.
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV

    data, labels = load_iris(return_X_y=True)

    def search(n_jobs: int) -> Any:
        forest = RandomForestClassifier(random_state=0, n_jobs=n_jobs)
        return GridSearchCV(forest, {"n_estimators": [3, 6], "max_depth": [2, 4]}, cv=3).fit(data, labels)

    found = search(2)
    with parallel_config(backend="sequential"):
        expected = search(1)
    assert found.best_params_ == expected.best_params_
    np.testing.assert_array_equal(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])


def test_workers_are_other_processes_and_stay_warm() -> None:
    first = set(Parallel()(delayed(os.getpid)() for _ in range(20)))
    second = set(Parallel()(delayed(os.getpid)() for _ in range(20)))
    assert os.getpid() not in first | second
    assert len(first | second) <= 2


# --- how it is fed --------------------------------------------------------------------------------------------------


def test_nested_calls_run_in_their_worker() -> None:
    def outer(number: int) -> list[int]:
        return list(Parallel(n_jobs=2)(delayed(do.square)(number + more) for more in range(3)))

    assert Parallel()(delayed(outer)(number) for number in range(3)) == [[0, 1, 4], [1, 4, 9], [4, 9, 16]]


def test_nested_calls_can_ask_for_mpqueue_again() -> None:
    def outer(number: int) -> list[int]:
        with parallel_config(backend="mpqueue", n_jobs=2):
            return list(Parallel()(delayed(do.square)(number + more) for more in range(3)))

    assert Parallel()(delayed(outer)(number) for number in range(2)) == [[0, 1, 4], [1, 4, 9]]


def test_inner_threads_are_limited() -> None:
    def limit() -> str | None:
        return os.environ.get("OMP_NUM_THREADS")

    with parallel_config(backend="mpqueue", n_jobs=2, inner_max_num_threads=3):
        assert set(Parallel()(delayed(limit)() for _ in range(4))) == {"3"}


def _set_variables(variables: dict[str, str]) -> None:
    os.environ.update(variables)


def test_initializer_is_called_in_each_worker() -> None:
    def value() -> str | None:
        return os.environ.get("MPQUEUE_TEST_VALUE")

    assert Parallel()(delayed(value)() for _ in range(4)) == [None] * 4
    variables = {"MPQUEUE_TEST_VALUE": "set"}
    with parallel_config(backend="mpqueue", n_jobs=2, initializer=_set_variables, initargs=(variables,)):
        assert Parallel()(delayed(value)() for _ in range(4)) == ["set"] * 4


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("max_retires", r"^parallel_config\(\) got .*'max_retires'; did you mean max_retries\?$"),
        ("max_workers", r"^parallel_config\(\) has no option 'max_workers': did you mean n_jobs\?$"),
        ("tries", r"did you mean max_retries\?$"),
        ("args", r": functools.partial\(function, ...\) gives it"),
    ],
)
def test_options_that_the_backend_does_not_have_are_refused(option: str, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        parallel_config(backend="mpqueue", n_jobs=2, **{option: 2})
    assert Parallel()([delayed(do.succeed)("after")]) == ["after"]


def test_options_of_the_backend_that_a_call_is_given_are_refused() -> None:
    parallel = Parallel(n_jobs=2, backend="mpqueue", max_retries=1)
    said = r"^Parallel\(\) has no option 'max_retries': write parallel_config\(backend='mpqueue', max_retries=1\)$"
    with pytest.raises(TypeError, match=said):
        parallel(delayed(do.succeed)(number) for number in range(2))
    with pytest.raises(TypeError, match=r"^Parallel\(\) has no option 'num_workers': did you mean n_jobs\?$"):
        Parallel(n_jobs=2, backend="mpqueue", num_workers=3)(delayed(do.succeed)(number) for number in range(2))


# --- faults ---------------------------------------------------------------------------------------------------------


def test_failure_in_a_nested_call_is_raised_at_once(tmp_path: Path) -> None:
    def outer(number: int) -> list[Any]:
        with parallel_config(backend="mpqueue", n_jobs=2):
            return list(Parallel()(delayed(do.count_calls(tmp_path, do.fail))(number + more) for more in (0, 10)))

    with pytest.raises(ValueError, match="cannot do"):
        Parallel(batch_size=1)(delayed(do.only(0, outer))(number) for number in range(2))
    assert all(count == 1 for _, count in do.calls(tmp_path))
    assert Parallel()([delayed(do.succeed)("after")]) == ["after"]


def test_two_generators_at_a_time_have_batches_of_their_own() -> None:
    """Also under one `parallel_config`, which gives all calls the same backend."""
    parallel = Parallel(return_as="generator")
    first = parallel(delayed(do.double)(number) for number in range(300))
    second = Parallel(return_as="generator")(delayed(do.square)(number) for number in range(20))
    assert sum(second) == sum(number * number for number in range(20))
    assert [next(first) for _ in range(10)] == [2 * number for number in range(10)]
    assert Parallel()(delayed(do.double)(number) for number in range(5)) == [0, 2, 4, 6, 8]
    # joblib takes what is chained in the thread that hears of results, so with each backend these must have ended.
    wait_until(lambda: parallel.n_completed_tasks == 300)
    chained = Parallel(return_as="generator")(delayed(do.double)(number) for number in first)
    assert list(chained) == [4 * number for number in range(10, 300)]
