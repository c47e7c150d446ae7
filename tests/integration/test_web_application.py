"""The program of the page about web applications: its jobs go on when the server is started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import APART
from tests.support.systems import not_on_windows
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, not_on_windows("an item that waits reads a FIFO")]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "web-applications.md"


@contextmanager
def server(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The application in a server of its own, and its address."""
    with open(folder / "server.log", "wb") as log:
        started = log.tell()
        program = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"], cwd=folder, stdout=log, stderr=log, **APART
        )
    address = re.compile(r"running on (http://[\d.:]+)")
    try:
        wait_until(
            lambda: address.search((folder / "server.log").read_text()[started:]) or program.poll() is not None,
            timeout=300,
            what="the server",
        )
        found = address.search((folder / "server.log").read_text()[started:])
        assert found, (folder / "server.log").read_text()
        yield program, found[1]
    finally:
        program.kill()
        program.wait()


def ask(address: str, data: object = None) -> Any:
    """What the application answers."""
    body = None if data is None else json.dumps(data).encode()
    with urllib.request.urlopen(urllib.request.Request(address, body), timeout=60) as answer:
        return json.load(answer)


def test_jobs_of_the_page_s_application_go_on_after_a_stop_and_after_a_kill(tmp_path: Path) -> None:
    block = re.search(r'^```python title="app.py"\n(.*?)^```$', PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert block
    (tmp_path / "app.py").write_text(block[1])
    names = [str(tmp_path / f"{count}.txt") for count in range(4)]
    for count, name in enumerate(names):
        Path(name).write_text("word " * count)
    slow = str(tmp_path / "slow.txt")
    os.mkfifo(slow)
    with server(tmp_path) as (program, address):
        job = f"{address}/jobs/{ask(f'{address}/jobs', [*names, slow])['job']}"
        wait_until(lambda: ask(job)["completed"] == 4, what="the quick items")
        program.send_signal(signal.SIGTERM)
        program.wait(300)
    path = job.removeprefix(address)
    for end in ("kill", "write"):
        with server(tmp_path) as (program, address):
            wait_until(lambda: ask(f"{address}{path}")["completed"] == 4, what="the job")
            assert ask(f"{address}{path}") == {"total": 5, "completed": 4, "failed": 0, "results": None}
            with pytest.raises(urllib.error.HTTPError, match="404"):
                ask(f"{address}/jobs/unknown")
            if end == "kill":
                program.kill()
                program.wait()
                continue
            with open(slow, "w") as pipe:  # waits until the item reads
                pipe.write("a b c d e")
            wait_until(lambda: ask(f"{address}{path}")["results"], what="the end")
            assert ask(f"{address}{path}") == {"total": 5, "completed": 5, "failed": 0, "results": [0, 1, 2, 3, 5]}
    with server(tmp_path) as (_, address):  # nothing is left to run
        wait_until(lambda: ask(f"{address}{path}")["results"] == [0, 1, 2, 3, 5], what="the results")
