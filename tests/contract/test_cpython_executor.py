"""CPython's own tests of process pools, with `mpqueue.Executor` in place; those that can't apply, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import cpython_tests
from tests.support.cpython_tests import LACKING
from tests.support.length import long

SETUP = "tests.support.process_pool_executor:take_its_place"

INTERNALS = "looks at _processes, _executor_manager_thread or _mp_context, which are the standard library's own"
OWN_ERROR = "what can't be unpickled in the worker fails its own call with its own error; nothing is broken by it"
NEVER_BROKEN = "the executor is never broken: a killed worker costs its call one try"

#: Test class less its ``ProcessPoolSpawn``, and method: why it can't apply.
INAPPLICABLE = {
    "ProcessPoolExecutorTest.test_killed_child": NEVER_BROKEN,
    "ProcessPoolExecutorTest.test_saturation": INTERNALS,
    "ProcessPoolExecutorTest.test_idle_process_reuse_one": INTERNALS,
    "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": INTERNALS,
    "ProcessPoolExecutorTest.test_max_tasks_per_child": INTERNALS,
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": INTERNALS,
    "ProcessPoolExecutorTest.test_python_finalization_error": "replaces the functions that start its threads",
    "ProcessPoolShutdownTest.test_processes_terminate": INTERNALS,
    "ProcessPoolShutdownTest.test_context_manager_shutdown": INTERNALS,
    "ProcessPoolShutdownTest.test_del_shutdown": INTERNALS,
    "ProcessPoolShutdownTest.test_shutdown_no_wait": INTERNALS,
    "ProcessPoolShutdownTest.test_cancel_futures": (
        "wants a call to have run that was cancelled before any worker stood: all of them are cancelled then"
    ),
    "FailingInitializerTest.test_initializer": "gives the initializer a Queue, which only children may inherit",
    "ExecutorDeadlockTest.test_error_at_task_unpickle": OWN_ERROR,
    "ExecutorDeadlockTest.test_exit_at_task_unpickle": OWN_ERROR,
    "ExecutorDeadlockTest.test_exit_during_result_pickle_on_worker": (
        "a result that can't be pickled is one kind of error, whatever its own code raises"
    ),
    "ExecutorDeadlockTest.test_shutdown_deadlock_pickle": INTERNALS,
    "ExecutorDeadlockTest.test_gh105829_should_not_deadlock_if_wakeup_pipe_full": "replaces the pipe of its thread",
    # Python 3.14's
    "ProcessPoolExecutorTest.test_force_shutdown_workers": INTERNALS,
    "ProcessPoolExecutorTest.test_force_shutdown_workers_dead_workers": INTERNALS,
    "ProcessPoolExecutorTest.test_force_shutdown_workers_not_started_yet": INTERNALS,
    "ProcessPoolExecutorTest.test_force_shutdown_workers_stops_pool": INTERNALS,
    "ProcessPoolExecutorTest.test_force_shutdown_workers_invalid_op": INTERNALS,
}

#: What waits for futures is the standard library's own code, and the futures are of its class: in the long form only.
MODULES = [
    "test_process_pool",
    "test_shutdown",
    "test_init",
    "test_deadlock",
    long("test_wait"),
    long("test_as_completed"),
]


@pytest.mark.long(but=["test_init"])
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("module", MODULES)
def test_what_cpython_asks_of_process_pools_holds(module: str, tmp_path: Path) -> None:
    folder = cpython_tests.find(f"test_concurrent_futures/{module}.py")
    if folder is None:
        pytest.skip(LACKING)
    excluded = [f"ProcessPoolSpawn{name}" for name in INAPPLICABLE]
    name = f"test.test_concurrent_futures.{module}"
    outcomes = cpython_tests.run(folder, tmp_path, SETUP, name, "ProcessPoolSpawn", excluded)
    assert outcomes
    wrong = {name: told for name, told in outcomes.items() if told != "ok" and not told.startswith("skipped")}
    assert not wrong, "\n".join(f"{name}:\n{told}" for name, told in wrong.items())
