"""``mpqueue run --journal``, and the commands that look into a journal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import ANY

import pytest

from tests.support.command_line import main
from tests.support.command_line import run_command as mpqueue
from tests.support.journals import lines_of
from tests.support.programs import APART, PATIENCE, press_ctrl_c
from tests.support.systems import not_on_windows
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

ASKED_BY_A_SIGNAL = not_on_windows("it is asked by Ctrl-Break, see test_on_windows.py")

WORDS = """
from pathlib import Path

def count(line):
    with Path("calls").open("a") as file:
        file.write(line + "\\n")
    if line == "bad" and not Path("healed").exists():
        raise ValueError("a bad word")
    if line == "wait" and not Path("open").exists():
        Path("here").touch()
        import threading
        threading.Event().wait(300)
    return {"length": len(line)}

def no_model():
    open("model.bin")

def with_model(line, model):
    return line

def inline():
    from mpqueue.testing import InlinePool
    return InlinePool()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "words.py").write_text(WORDS)
    (tmp_path / "in.txt").write_text("one\nbad\nwait\nthree\n")
    (tmp_path / "open").touch()
    return tmp_path


Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ask(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """Run a command in this process, in that folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        code = main(words)
        return subprocess.CompletedProcess(words, code, *capfd.readouterr())

    yield ask
    sys.modules.pop("words", None)


RUN = ("run", "words:count", "--from", "lines", "in.txt", "--journal", "run.db", "--retries", "0", "-j", "1")


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().split()


def failed_so_far(folder: Path) -> int:
    job = lines_of(folder / "run.db").get("words:count")
    return 0 if job is None else job.failed


def test_the_same_command_goes_on_after_an_interruption_and_says_so(folder: Path) -> None:
    (folder / "open").unlink()
    command = [sys.executable, "-m", "mpqueue", *RUN, "-o", "out.jsonl", "--progress"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, **APART) as program:
        wait_until((folder / "here").exists, timeout=PATIENCE)
        wait_until(lambda: failed_so_far(folder) == 1, timeout=PATIENCE)
        press_ctrl_c(program)
        _, told = program.communicate(timeout=PATIENCE)
    assert program.returncode == 130
    assert told.splitlines()[-1] == f"to go on: mpqueue {' '.join(RUN)} -o out.jsonl --progress"
    done = calls(folder)
    assert done[:3] == ["one", "bad", "wait"]
    (folder / "open").touch()
    assert "cancelled" in mpqueue(folder, "status", "run.db").stdout
    after = mpqueue(folder, *RUN, "-o", "out.jsonl")
    assert after.returncode == 1
    assert "4 items: 3 completed (1 in earlier runs), 1 failed (1 in earlier runs), in " in after.stderr
    assert calls(folder)[3:] == ["wait", "three"]
    *_, counts, left = mpqueue(folder, *RUN, "-o", "out.jsonl").stderr.splitlines()
    assert counts == "4 items: 3 completed (3 in earlier runs), 1 failed (1 in earlier runs)"
    said = "nothing left to do: all items had ended in earlier runs; "
    assert left == said + "--redo failed runs the failed items again"
    assert calls(folder)[5:] == []
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["payload"] for row in rows] == ["one", "bad", "wait", "three"]


@pytest.mark.long(but=["SIGTERM"])
@pytest.mark.parametrize(
    "how",
    [
        pytest.param("SIGTERM", marks=ASKED_BY_A_SIGNAL),
        pytest.param("SIGTERM without a journal", marks=ASKED_BY_A_SIGNAL),
        pytest.param("retry", marks=ASKED_BY_A_SIGNAL),
    ],
)
def test_a_drained_run_says_how_to_go_on_and_the_same_command_does(how: str, folder: Path) -> None:
    (folder / "open").unlink()
    words = [word for word in RUN if "without" not in how or word not in ("--journal", "run.db")]
    if how == "retry":
        assert mpqueue(folder, *RUN, "--deadline", "0.001").returncode == 75
        words = ["retry", "run.db", "-j", "1"]
    words += ["--drain", "0"]
    command = [sys.executable, "-m", "mpqueue", *words]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, **APART) as program:
        wait_until((folder / "here").exists, timeout=PATIENCE)
        if how == "SIGTERM":
            wait_until(lambda: failed_so_far(folder) == 1, timeout=PATIENCE)
        program.send_signal(signal.SIGTERM)
        _, told = program.communicate(timeout=PATIENCE)
    assert program.returncode == 75, told
    assert "draining: no new items start, those that run have 0 s" in told
    go_on = "to run it again" if "without" in how else "run the same command to go on"
    assert told.splitlines()[-1] == f"{go_on}: mpqueue {' '.join(words)}"
    assert "4 items: " in told
    assert " not run" in told
    (folder / "open").touch()
    (folder / "healed").touch()
    assert mpqueue(folder, *words).returncode == (1 if how == "SIGTERM" else 0), "a failed item is not run again"


def test_the_time_limit_drains_a_run_and_the_same_command_goes_on(folder: Path) -> None:
    (folder / "open").unlink()
    limit, told = 1, ""
    while "draining: no new items start, those that run have 0 s" not in told and limit < PATIENCE:
        limit *= 2  # that long the start may take
        done = mpqueue(folder, *RUN, "--drain", "0", "--time-limit", str(limit))
        told = done.stderr
        assert done.returncode == 75, told
    assert f"run the same command to go on: mpqueue {' '.join(RUN)} --drain 0 --time-limit {limit}" in told
    assert " not run" in told
    (folder / "open").touch()
    assert mpqueue(folder, *RUN).returncode == 1


@pytest.mark.long(but=["True"])
@pytest.mark.parametrize(
    "reads", [False, pytest.param(True, marks=not_on_windows("nothing ends a read of stdin there"))]
)
def test_the_time_limit_counts_while_the_module_is_imported_and_stdin_is_read(folder: Path, reads: bool) -> None:
    (folder / "slow.py").write_text("import time\nwhile True:\n    time.sleep(0.01)\n")
    words = ["run", "words:count" if reads else "slow:same", "-", "--time-limit", "1"]
    command = [sys.executable, "-m", "mpqueue", *words]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        assert program.stderr is not None
        program.wait(PATIENCE)  # with a stdin that stays open
        assert program.returncode == 75
        assert program.stderr.read().splitlines() == [f"to run it again: mpqueue {' '.join(words)}"]


@ASKED_BY_A_SIGNAL
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_drain_is_cut_short_by_a_second_signal(number: int, code: int, folder: Path) -> None:
    (folder / "open").unlink()
    command = [sys.executable, "-m", "mpqueue", *RUN, "--drain", "10m"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, **APART) as program:
        wait_until((folder / "here").exists, timeout=PATIENCE)
        program.send_signal(signal.SIGTERM)
        assert program.stderr is not None
        assert "those that run have 600 s" in program.stderr.readline()
        program.send_signal(number)
        program.communicate(timeout=PATIENCE)
    assert program.returncode == code


@pytest.mark.long(but=["journal0"])
@ASKED_BY_A_SIGNAL
@pytest.mark.parametrize("journal", [[], ["--journal", "run.db"]])
def test_a_signal_before_the_first_item_says_how_to_go_on_too(journal: list[str], folder: Path) -> None:
    (folder / "slow.py").write_text(
        "import pathlib, time\n"
        "pathlib.Path('importing').touch()\n"
        "while not pathlib.Path('open').exists():\n"
        "    time.sleep(0.01)\n"
        "def same(item):\n"
        "    return item\n"
    )
    (folder / "open").unlink()
    (folder / "out.jsonl").write_text("of before")
    words = ["run", "slow:same", "--from", "lines", "in.txt", *journal, "-o", "out.jsonl"]
    command = [sys.executable, "-m", "mpqueue", *words]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, **APART) as program:
        wait_until((folder / "importing").exists, timeout=PATIENCE)
        program.send_signal(signal.SIGTERM)
        _, told = program.communicate(timeout=PATIENCE)
    assert program.returncode == 75, told
    go_on = "run the same command to go on" if journal else "to run it again"
    assert told.splitlines() == [f"{go_on}: mpqueue {' '.join(words)}"]
    assert (folder / "out.jsonl").read_text() == "of before"
    assert not list(folder.glob("*.part"))
    (folder / "open").touch()
    assert mpqueue(folder, *words).returncode == 0


def test_a_journal_tells_its_jobs_and_failures_and_runs_them_again(folder: Path, ask: Ask) -> None:
    assert ask(*RUN, "-o", "out.jsonl").returncode == 1
    status = ask("status", "run.db")
    assert [line.split() for line in status.stdout.splitlines()] == [
        ["STATUS", "COMPLETED", "FAILED", "TOTAL", "TOOK", "JOB"],
        ["completed_with_errors", "3", "1", "4", ANY, "s", "words:count"],
    ]
    failures = ask("failures", "run.db", "--traceback")
    assert failures.stdout.startswith("bad: ValueError: a bad word (after 1 try)\n    Traceback")
    as_json = json.loads(ask("failures", "run.db", "--json").stdout)
    assert (as_json["job"], as_json["payload"], as_json["error"]) == ("words:count", "bad", "ValueError: a bad word")
    still = ask("retry", "run.db", "--retries", "0", "-j", "1")
    assert still.returncode == 1
    assert "a bad word" in still.stderr
    (folder / "healed").touch()
    retried = ask("retry", "run.db", "-j", "1", "words:count")
    assert (retried.returncode, retried.stderr.startswith("4 items: 4 completed")) == (0, True)
    again = ask("retry", "run.db", "-j", "1")
    assert (again.returncode, again.stderr.splitlines()[0]) == (
        0,
        "nothing to retry: no item of job 'words:count' has failed",
    )
    assert calls(folder) == ["one", "bad", "wait", "three", "bad", "bad"]
    none = ask("failures", "run.db")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "no failed items in run.db\n")
    exported = ask("export", "run.db", "--columns", "id,result.length,status")
    rows = [json.loads(line) for line in exported.stdout.splitlines()]
    assert [row["result.length"] for row in rows] == [3, 3, 4, 5]
    assert {row["status"] for row in rows} == {"completed"}
    refused = ask("export", "run.db", "--columns", "id,lenght", "-o", "none.csv")
    assert (refused.returncode, (folder / "none.csv").exists()) == (2, False)
    assert "got 'lenght', which no item has; did you mean length?" in refused.stderr
    assert ask("export", "run.db", "-o", "all.csv").returncode == 0
    assert (folder / "all.csv").read_text().splitlines()[0].startswith("id,payload,")


def test_the_traceback_of_a_failed_setup_is_that_of_its_cause(folder: Path, ask: Ask) -> None:
    failed = ask("run", "words:with_model", "--setup", "words:no_model", *RUN[2:])
    assert failed.returncode == 1
    (line, *trace) = ask("failures", "run.db", "--traceback").stdout.splitlines()[:5]
    assert line.startswith("one: SetupError: setup failed in every worker; the last one raised FileNotFoundError")
    assert trace[0] == "    Traceback (most recent call last):"
    assert "in no_model" in trace[1]


def test_an_output_that_is_the_journal_is_refused_before_anything_is_done(folder: Path, ask: Ask) -> None:
    journal = folder / "run.jsonl"
    run = [journal.name if word == "run.db" else word for word in RUN]
    why = "expected a file that is not the journal's, got 'run.jsonl', which rows would replace"
    line = f"mpqueue: error: --output: {why}\n"
    for more in ((), ("--dry-run",)):
        refused = ask(*run, *more, "-o", journal.name)
        assert (refused.returncode, refused.stderr) == (2, line)
    assert not journal.exists()
    assert not (folder / "calls").exists()
    assert ask(*run, "-o", "out.jsonl").returncode == 1
    refused = ask("export", journal.name, "-o", journal.name)
    assert (refused.returncode, refused.stderr) == (2, line)
    assert ask("status", journal.name).returncode == 0


def test_a_plan_is_printed_and_what_is_named_runs_again(folder: Path, ask: Ask) -> None:
    run = [*RUN[:-2], "--backend", "words:inline"]

    def ran(*words: str, code: int = 0) -> list[str]:
        (folder / "calls").write_text("")
        assert ask(*run, *words).returncode == code
        return sorted(calls(folder))

    assert ask(*run, "--plan").stdout == "new\tone\nnew\tbad\nnew\twait\nnew\tthree\n"
    assert not (folder / "run.db").exists()
    assert len(ran(code=1)) == 4
    (folder / "in.txt").write_text("bad\none\nfour\nwait\n")
    planned = ask(*run, "--plan")
    assert planned.stdout == "new\tfour\ngone\tthree\nfailed\tbad\n"
    assert planned.stderr == "3 same, 0 changed, 1 new, 1 gone, 1 failed; 1 to run\n"
    (folder / "healed").touch()
    assert ran("--redo", "failed") == ["bad", "four"]
    assert ran("--redo", "one", "--redo", "wait") == ["one", "wait"]
    assert ran("--redo", "five", code=2) == []
    for words in (["--redo", "all"], ["--handler-version", "2"]):
        assert ran(*words) == ["bad", "four", "one", "wait"]
    run = ["run", run[1], "in.txt", "--journal", "files.db", *run[-2:], "--key"]
    assert ran("content") == ["in.txt"]
    os.utime(folder / "in.txt", ns=(1000, 1000))
    assert (ran("content"), ran("file")) == ([], ["in.txt"])
