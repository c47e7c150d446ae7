"""``mpqueue`` where its standard streams are closed or full, as a daemon's or on a full disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import PATIENCE
from tests.support.systems import not_on_windows

pytestmark = [pytest.mark.slow, not_on_windows("a shell redirects the streams")]

FULL = pytest.param(">/dev/full", marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a module, lines, and a journal in which one item has failed and one has completed."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "own.py").write_text("def f(line):\n    return int(line)\n")
    (folder / "lines.txt").write_text("1\nx\n")
    command = ["run", "own:f", "--from", "lines", "lines.txt", "-j", "1", "--retries", "0", "--journal", "run.db"]
    subprocess.run(
        [sys.executable, "-m", "mpqueue", *command, "-o", "first.jsonl"], cwd=folder, timeout=PATIENCE, check=False
    )
    (folder / "lines.txt").write_text("1\n2\n")
    return folder


RUN = "run own:f --from lines lines.txt -j 1 --retries 0"


def shell(folder: Path, command: str, redirected: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell runs it; what is not redirected is read."""
    line = f'exec "$0" -m mpqueue {command} {redirected}'
    return subprocess.run(
        ["sh", "-c", line, sys.executable], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.long(but=["2>&-"])
@pytest.mark.parametrize("redirected", ["2>&-", "<&- 2>&-"])
def test_without_stderr_rows_go_to_stdout_and_nothing_else_does(folder: Path, redirected: str) -> None:
    done = shell(folder, RUN, redirected)
    assert done.returncode == 0, done.stdout
    assert [json.loads(line)["result"] for line in done.stdout.splitlines()] == [1, 2]


@pytest.mark.long(but=["2>&-"])
@pytest.mark.parametrize("redirected", ["2>&-", "<&- >&- 2>&-"])
def test_a_program_without_streams_writes_its_file(folder: Path, redirected: str) -> None:
    done = shell(folder, f"{RUN} -o rows.jsonl", redirected)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [json.loads(line)["result"] for line in (folder / "rows.jsonl").read_text().splitlines()] == [1, 2]


@pytest.mark.long(
    but=[
        "run own:f --from lines lines.txt -j 1 --retries 0->/dev/full",
        "failures run.db->/dev/full",
        "export run.db->&-",
    ]
)
@pytest.mark.parametrize("redirected", [">&-", FULL])
@pytest.mark.parametrize(
    "command",
    [
        RUN,
        f"{RUN} --plan --journal run.db",
        "status run.db",
        "failures run.db",
        "failures run.db --json",
        "export run.db",
    ],
)
def test_output_that_cannot_be_written_is_one_line_and_no_success(folder: Path, command: str, redirected: str) -> None:
    done = shell(folder, command, redirected)
    (line,) = done.stderr.splitlines()
    assert line.startswith("mpqueue: error: ")
    assert ("got one that is closed" if redirected == ">&-" else "No space left on device") in line
    assert done.returncode == 1


@pytest.mark.parametrize("redirected", [FULL])
def test_help_that_cannot_be_written_is_no_success(folder: Path, redirected: str) -> None:
    done = shell(folder, "--version", redirected)
    assert (done.returncode, done.stderr) == (1, "mpqueue: error: stdout: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_stderr_that_takes_nothing_does_not_change_the_exit_code(folder: Path) -> None:
    done = shell(folder, f"{RUN} -o rows.jsonl", "2>/dev/full")
    assert done.returncode == 0
