"""What commands answer to other programs: exit codes, and JSON on stdout, as the page on the command line has both."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from tests.support.command_line import main
from tests.support.programs import APART, PATIENCE, press_ctrl_c
from tests.support.systems import not_on_windows
from tests.support.waiting import Gate

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parent.parent.parent / "docs" / "how-to" / "command-line.md"
#: The module prints, as users' code may: that is no part of the answer.
FUNCTIONS = """
from pathlib import Path
from tests.support import handlers as do
from tests.support.waiting import Gate
print("imported")

def inline():
    from mpqueue.testing import InlinePool
    return InlinePool()

def upper(line):
    print("called")
    if line == "bad" and not Path("healed").exists():
        raise ValueError("a bad line")
    if line == "wait":
        Gate(Path(".")).announce(line)
        return do.hang_sleep(line)
    return line.upper()
"""
INLINE = ("--backend", "own:inline", "--retries", "0")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with functions and lines, of which one is bad, as the one that this process is in."""
    (tmp_path / "own.py").write_text(FUNCTIONS)
    (tmp_path / "bad.txt").write_text("one\nbad\n")
    (tmp_path / "good.txt").write_text("one\ntwo\n")
    (tmp_path / "other.db").write_text("of another kind\n" * 1000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("own", None)


def recorded(lines: str = "bad.txt") -> None:
    """A job of these lines in ``run.db``."""
    command = ["run", "own:upper", "--from", "lines", lines, "--journal", "run.db", "-o", "out.jsonl", "-q", *INLINE]
    assert main(command) == (1 if lines == "bad.txt" else 0)


def table_of(heading: str) -> dict[str, str]:
    """A table of the page: what is in its second column, by what is in the first."""
    rows = PAGE.read_text().partition(f"\n{heading}\n")[2].partition("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("|")]
    return {row[0]: row[1] for row in cells[2:]}


# --- exit codes -------------------------------------------------------------------------------------------------------


def test_the_page_has_the_exit_codes_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    codes = capsys.readouterr().out.partition("\nexit codes:\n")[2].splitlines()
    assert [line.split()[0] for line in codes] == list(table_of("## How it ends"))


RUN = ("run", "own:upper", "--from", "lines")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((*RUN, "good.txt", *INLINE), 0),
        ((*RUN, "bad.txt", *INLINE), 1),
        ((*RUN, "none.txt"), 2),
        ((*RUN, "good.txt", "--journal", "other.db"), 1),
        ((*RUN, "bad.txt", "--journal", "run.db", "--plan"), 0),
        ((*RUN, "bad.txt", "--journal", "other.db", "--plan"), 1),
        ((*RUN, "bad.txt", "--plan"), 2),
        ((*RUN, "good.txt", "--dry-run", *INLINE), 0),
        ((*RUN, "bad.txt", "--dry-run", *INLINE), 1),
        ((*RUN, "good.txt", "--dry-run", *INLINE, "--columns", "lenght"), 2),
        (("status", "run.db"), 0),
        (("status", "other.db"), 1),
        (("status", "none.db"), 2),
        (("failures", "run.db"), 0),
        (("failures", "other.db"), 1),
        (("failures", "run.db", "no job"), 2),
        (("retry", "run.db", "-j", "1", "--retries", "0"), 1),
        (("retry", "other.db"), 1),
        (("retry", "run.db", "no job"), 2),
        (("export", "run.db"), 0),
        (("export", "other.db"), 1),
        (("export", "run.db", "no job"), 2),
        (("export", "run.db", "--columns", "lenght"), 2),
        (("prune", "run.db"), 0),
        (("prune", "other.db"), 1),
        (("prune", "run.db", "--job", "no job"), 2),
        (("dashboard", "other.db"), 1),
        (("dashboard", "none.db"), 2),
    ],
)
def test_an_exit_code_has_one_meaning_in_all_commands(
    here: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], code: int
) -> None:
    recorded()
    capfd.readouterr()
    assert main(words) == code
    told = capfd.readouterr().err
    if code == 2:
        assert told.splitlines()[-1].startswith("mpqueue: error: ")


@not_on_windows("no limit for the size of files")
def test_an_export_that_can_not_be_written_ends_with_1_and_says_what_is_kept(here: Path) -> None:
    (here / "good.txt").write_text("".join(f"{number:0>500}\n" for number in range(2000)))
    recorded("good.txt")
    command = f"ulimit -f 400; exec {sys.executable} -m mpqueue export run.db -o rows.jsonl"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1, done.stderr
    said = re.fullmatch(
        r"mpqueue: error: --output: \[Errno 27\] File too large; kept: ([\d,]+) rows in rows\.jsonl\.part",
        done.stderr.splitlines()[-1],
    )
    assert said is not None, done.stderr
    assert said[1] == f"{len((here / 'rows.jsonl.part').read_text().splitlines()):,}"
    assert not (here / "rows.jsonl").exists()


def test_ctrl_c_ends_a_retry_with_130(here: Path) -> None:
    (here / "in.txt").write_text("wait\n")
    assert main([*RUN, "in.txt", "--journal", "run.db", "-j", "1", "--deadline", "0.001", "-q"]) == 75
    (here / "announced").unlink(missing_ok=True)
    words = ["retry", "run.db", "-j", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "mpqueue", *words], cwd=here, stderr=subprocess.PIPE, **APART
    ) as program:
        Gate(here).wait_for("wait")
        press_ctrl_c(program)
        program.communicate(timeout=PATIENCE)
    assert program.returncode == 130


# --- JSON -------------------------------------------------------------------------------------------------------------


def keys_of(command: str) -> list[str]:
    """What the page says that a line of the command has."""
    return re.findall(r"`(\w+)`", table_of("## For programs")[command])


def answer(*words: str) -> list[dict[str, Any]]:
    """What is on stdout, which is JSON Lines and nothing else."""
    command = [sys.executable, "-m", "mpqueue", *words, "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode in (0, 1), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_told_of_a_job_is_the_same_in_all_commands(here: Path) -> None:
    keys = keys_of("`run -o`, `retry`, `export -o`, `status`")
    run = [*RUN, "bad.txt", "--journal", "run.db", "-o", "out.csv", *INLINE]
    for words in (run, ["status", "run.db"], ["export", "run.db", "-o", "out.csv"]):
        (line,) = answer(*words)
        assert list(line) == keys
        assert (line["job"], line["status"]) == ("own:upper", "completed_with_errors")
        assert (line["total"], line["completed"], line["failed"]) == (2, 1, 1)
        assert line["started_at"] + line["duration"] == pytest.approx(line["finished_at"], abs=0.1)
    (here / "healed").touch()
    (line,) = answer("retry", "run.db", "-j", "1")
    assert (list(line), line["status"], line["completed"]) == (keys, "completed", 2)


def test_rows_on_stdout_are_json_with_and_without_the_option(here: Path) -> None:
    rows = answer(*RUN, "bad.txt", "--journal", "run.db", *INLINE)
    assert [(list(row), row["result"]) for row in rows] == [(keys_of("`run`, `export`"), one) for one in ("ONE", None)]
    exported = answer("export", "run.db")
    assert [row["result"] for row in exported] == ["ONE", None]
    assert list(exported[0]) == keys_of("`run`, `export`")


def test_a_plan_and_a_dry_run_are_json(here: Path) -> None:
    recorded()
    (here / "bad.txt").write_text("two\nbad\n")
    lines = answer(*RUN, "bad.txt", "--journal", "run.db", "--plan")
    assert {tuple(line) for line in lines} == {tuple(keys_of("`run --plan`"))}
    assert [(line["change"], line["item"]) for line in lines] == [("new", "two"), ("gone", "one"), ("failed", "bad")]
    (here / "none.txt").touch()
    (here / "all_bad.txt").write_text("bad\n")
    for name, ran in (("bad.txt", 2), ("all_bad.txt", 1), ("none.txt", 0)):
        (line,) = answer(*RUN, name, "--dry-run", *INLINE)
        assert (list(line), line["ran"], line["total"]) == (keys_of("`run --dry-run`"), ran, ran)
        assert (line["elapsed"] is not None) == (name == "bad.txt")


def test_what_journals_hold_is_json(here: Path) -> None:
    recorded()
    (line,) = answer("failures", "run.db")
    first, last = keys_of("`failures`")
    assert list(line) == [first, *keys_of("`run`, `export`"), last]
    assert (line["payload"], line["traceback"].splitlines()[-1]) == ("bad", "ValueError: a bad line")
    (pruned,) = answer("prune", "run.db")
    assert list(pruned) == keys_of("`prune`")
    assert (pruned["jobs"], pruned["items"]) == (0, 0)  # SQLite may give back pages of its own all the same
    command = [sys.executable, "-m", "mpqueue", "dashboard", "run.db", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **APART) as program:
        assert program.stdout is not None
        (url,) = json.loads(program.stdout.readline()).items()
        assert (url[0], url[1].startswith("http://127.0.0.1:")) == (*keys_of("`dashboard`"), True)
        press_ctrl_c(program)
        program.communicate(timeout=PATIENCE)


def test_what_there_is_none_of_is_said_on_stderr(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recorded("good.txt")
    assert answer("failures", "run.db") == []
    with mpqueue.JobQueue(1, journal="run.db") as queue:
        queue.clear_job("own:upper")
    for words in (["status", "run.db"], ["status", "run.db", "--json"]):
        capfd.readouterr()
        assert main(words) == 0
        assert capfd.readouterr() == ("", "no jobs in run.db\n")
