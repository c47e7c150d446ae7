"""What an agent on a node of Dask or Ray says of its workers, and how workers introduce themselves."""

from __future__ import annotations

from mpqueue._core.messages import LaneStartFailed
from mpqueue._engines.agent.notices import dump_notice, load_notice
from mpqueue._worker.elsewhere import hello
from mpqueue.errors import WorkerStartError


def test_an_error_that_can_t_be_sent_is_sent_as_its_text() -> None:
    class LocalError(Exception):
        pass

    sent = load_notice(dump_notice(LaneStartFailed(1, 0, LocalError("why"), lasting=True), 0.0), 0.0)
    assert isinstance(sent, LaneStartFailed)
    assert (type(sent.error), str(sent.error), sent.lasting) == (WorkerStartError, "LocalError: why", True)


def test_workers_must_have_the_versions_of_the_program() -> None:
    here = hello.introduce()
    assert hello.find_difference(here, {**here, "host": "elsewhere", "pid": 7}) is None
    different = hello.find_difference(here, {**here, "host": "elsewhere", "pid": 7, "python": "3.2"})
    assert different is not None
    assert "as here on the worker 7 on elsewhere, got python 3.2 there and" in different
