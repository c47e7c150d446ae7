"""joblib and scikit-learn on mpqueue's workers: the sequential results, joblib's own tests, faults of one call."""

from __future__ import annotations

import importlib.util
import itertools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

from mpqueue import joblib_backend
from tests.support import handlers as do
from tests.support.waiting import Gate

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def on_mpqueue() -> Iterator[None]:
    joblib_backend.register()
    with parallel_config(backend="mpqueue", n_jobs=2, max_retries=0):
        yield
    joblib_backend.close()


# --- what comes out -------------------------------------------------------------------------------------------------


def test_cross_validation_gives_the_sequential_scores() -> None:
    data, labels = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=200)
    scores = cross_val_score(model, data, labels, cv=5)
    with parallel_config(backend="sequential"):
        np.testing.assert_array_equal(scores, cross_val_score(model, data, labels, cv=5))


def test_grid_search_finds_what_the_sequential_one_finds() -> None:
    data, labels = load_iris(return_X_y=True)

    def search(n_jobs: int) -> Any:
        forest = RandomForestClassifier(random_state=0, n_jobs=n_jobs)
        return GridSearchCV(forest, {"n_estimators": [3, 6], "max_depth": [2, 4]}, cv=3).fit(data, labels)

    found = search(2)
    with parallel_config(backend="sequential"):
        expected = search(1)
    assert found.best_params_ == expected.best_params_
    np.testing.assert_array_equal(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])


@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_results_come_in_each_way(return_as: str) -> None:
    offset = 1
    results = Parallel(return_as=return_as)(delayed(lambda number: number + offset)(number) for number in range(200))
    assert sorted(results) == list(range(1, 201))


def test_workers_are_other_processes_and_stay_warm() -> None:
    first = set(Parallel()(delayed(os.getpid)() for _ in range(20)))
    second = set(Parallel()(delayed(os.getpid)() for _ in range(20)))
    assert os.getpid() not in first | second
    assert len(first | second) <= 2


def test_large_arrays_go_there_and_back() -> None:
    array = np.arange(1_000_000.0)
    (result,) = Parallel()([delayed(np.negative)(array)])
    np.testing.assert_array_equal(result, -array)


# --- how it is fed --------------------------------------------------------------------------------------------------


def test_input_is_read_no_further_than_pre_dispatch_allows() -> None:
    read: list[int] = []

    def calls() -> Iterator[Any]:
        for number in range(1000):
            read.append(number)
            yield delayed(do.succeed)(number)

    results = Parallel(return_as="generator", pre_dispatch=4, batch_size=1)(itertools.islice(calls(), 4))
    assert len(read) == 4
    assert list(results) == [0, 1, 2, 3]


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


# --- faults ---------------------------------------------------------------------------------------------------------


def test_error_comes_as_itself_and_the_next_call_works() -> None:
    with pytest.raises(ValueError, match="cannot do 3"):
        Parallel()(delayed(do.only(3, do.fail))(number) for number in range(10))
    assert Parallel()(delayed(do.succeed)(number) for number in range(10)) == list(range(10))


def test_call_that_takes_too_long_ends_the_whole() -> None:
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(timeout=0.3)(delayed(do.hang_sleep)(number) for number in range(4))
    assert Parallel()([delayed(do.succeed)("after")]) == ["after"]


def test_crash_is_tried_again_or_comes_as_joblibs_own_error() -> None:
    with parallel_config(backend="mpqueue", n_jobs=2, max_retries=1):
        assert Parallel()(delayed(do.only(2, do.at_first(do.kill_self)))(number) for number in range(6)) == list(
            range(6)
        )
    with pytest.raises(BrokenProcessPool, match="SIGKILL"):
        Parallel()(delayed(do.only(2, do.kill_self))(number) for number in range(6))


def test_closing_the_generator_ends_what_runs(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    results = Parallel(return_as="generator")(
        delayed(do.only(1, do.hang_sleep, do.block_until_told(gate)))(number) for number in range(4)
    )
    gate.wait_for(0)
    gate.open()
    assert next(results) == 0
    with pytest.warns(UserWarning, match="have been cancelled"):
        results.close()
    assert Parallel()([delayed(do.succeed)("after")]) == ["after"]


# --- joblib's own tests ---------------------------------------------------------------------------------------------

#: Why some of them can't apply; by what their names begin with, less the parameters.
INAPPLICABLE = {
    "test_nested_parallel_warnings[loky-multiprocessing": "a pool may be made in our workers, so nothing warns of it",
    "test_nested_parallel_warnings[threading-loky": "ours may be used on any thread, so nothing warns of it",
    "test_backend_context_manager": "asks whether the backend's class is LokyBackend",
    "test_auto_memmap_on_arrays_from_generator": "wants a memmap: large arrays are in shared memory here, plain to see",
    "test_memmapping_leaks": "looks for joblib's own memory mapped files",
    "test_multiple_generator_call_separated_gc": (
        "wants the second of two calls to fail: each has a stream of its own here"
    ),
}


@pytest.mark.timeout(600)
def test_joblibs_own_tests_of_process_backends_pass(tmp_path: Path) -> None:
    plugin = "tests.support.joblib_in_loky_place"
    spec = importlib.util.find_spec("joblib.test.test_parallel")
    if spec is None or spec.origin is None:
        pytest.skip("this joblib comes without its tests")
    wanted = "loky" + "".join(f" and not ({_expression(name)})" for name in INAPPLICABLE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-c", "pytest.ini", "--rootdir", ".", "-p", "no:cacheprovider", "--disable-plugin-autoload"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, "-p", plugin, "-k", wanted, spec.origin],
        cwd=tmp_path,
        env={**os.environ, "JOBLIB_TEMP_FOLDER": str(tmp_path)},  # its own workers, in ours, don't tidy up when killed
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    _remove_semaphores_of_the_dead()
    assert done.returncode == 0, done.stdout[-10000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def _expression(name: str) -> str:
    return " and ".join(part for part in name.replace("[", "-").split("-"))


def _remove_semaphores_of_the_dead() -> None:
    """Some of these tests start joblib's own workers in ours; killed together, they can't take their names away."""
    for path in Path("/dev/shm").glob("sem.loky-*"):
        if not Path("/proc", path.name.split("-")[1]).exists():
            path.unlink(missing_ok=True)
