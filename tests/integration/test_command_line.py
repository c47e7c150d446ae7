"""``mpqueue`` on the command line: what comes out, how it ends, and what people are told."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import main, run_command
from tests.support.pages import visit
from tests.support.programs import PATIENCE
from tests.support.systems import not_on_windows
from tests.support.terminals import screen, terminal_with
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.slow

#: Where the command is found, as after an installation.
WITH_COMMAND = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

FUNCTIONS = """
import logging, os, sys, threading
from pathlib import Path
import mpqueue
from tests.support import handlers as do
from tests.support.waiting import Gate, wait_until

def count(path):
    return {"words": len(Path(path).read_text().split())}

def upper(line):
    if line == "bad":
        raise ValueError("a bad line")
    return line.upper()

def read(path):
    return Path(path).read_text()

def split(text):
    yield from text.split()

def once_more(line):
    if mpqueue.current_item().attempt == 1:
        raise OSError("busy")
    return line

def add(row):
    return {"sum": int(row["a"]) + int(row["b"])}

def talk(line):
    print("saying", line)
    logging.getLogger("mine").info("logging %s", line)
    return line

def load():
    return {"prefix": "> "}

def inline():
    from mpqueue.testing import InlinePool
    return InlinePool()

def where(line):
    return os.getpid()

def quote(line, state):
    return state["prefix"] + line

def wait_first(line):
    if line == "first":
        Gate(Path(".")).pass_through(line)
    else:
        Gate(Path(".")).announce(line)
    return line

def open_gate(line):
    if line == "last":
        Gate(Path(".")).open()
    return wait_first(line)

def slow(line):
    threading.Event().wait(0.01)
    return line

def hang(line):
    if line != "quick":
        Gate(Path(".")).announce(line)
        return do.hang_sleep(line)
    return line

class Tools:
    @staticmethod
    def twice(line):
        return line * 2

not_callable = 3
unpicklable = threading.Lock().acquire
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(FUNCTIONS)
    for name, text in (("b.txt", "one two"), ("a.txt", "three")):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, as the folder that this process is in: for what needs no process of its own."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    sys.modules.pop("own", None)


run = partial(run_command, code=0)


def rows_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- inputs -----------------------------------------------------------------------------------------------------------


def items_of(*arguments: str) -> list[Any]:
    """What the function gets, in this process."""
    assert main(["run", "copy:copy", *arguments, "--backend", "own:inline", "-o", "out.jsonl"]) == 0
    return [json.loads(line)["result"] for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]


def test_inputs_stand_before_and_after_options_and_after_two_dashes(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "--wide").write_text("one two three")
    for words in (
        ["a.txt", "--backend", "own:inline", "b.txt", "--", "--wide"],
        ["--backend", "own:inline", "--", "a.txt", "b.txt", "--wide"],
        ["a.txt", "b.txt", "--backend", "own:inline", "--", "--wide"],
    ):
        assert main(["run", "own:count", "-o", "out.jsonl", *words]) == 0, words
        rows = [json.loads(line) for line in (here / "out.jsonl").read_text().splitlines()]
        assert [row["payload"] for row in rows] == ["a.txt", "b.txt", "--wide"]
    assert main(["run", "own:count", "--backend", "own:inline", "--wide", "--", "a.txt"]) == 2
    assert "unrecognized arguments: --wide;" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["lines", "jsonl"])
def test_lines_end_at_line_feeds_only_from_files_and_stdin(
    here: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    data = b"\xef\xbb\xbf[1,\r2]\n\r\n[3]\r\n[4]"
    (here / "in.txt").write_bytes(data)
    expected = ["[1,\r2]", "[3]", "[4]"] if kind == "lines" else [[1, 2], [3], [4]]
    assert items_of("--from", kind, "in.txt") == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    assert items_of("--from", kind, "-") == expected


def test_stdin_that_begins_with_a_mark_is_utf_8_whatever_the_locale_has(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data, expected in ((b"\xef\xbb\xbf\xc3\xa4\r\nb", ["\xe4", "b"]), (b"\xe4\n", ["\xe4"]), (b"", [])):
        stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)), encoding="cp1252")
        monkeypatch.setattr(sys, "stdin", stdin)
        assert items_of("--from", "lines", "-") == expected


def test_a_csv_may_have_a_mark_long_cells_and_empty_lines(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b'\xef\xbb\xbfid,text\r\n7,"two\rlines\r\n"\r\n8,' + b"x" * 200_000 + b"\r\n"
    (here / "in.csv").write_bytes(data)
    expected = [{"id": "7", "text": "two\rlines\r\n"}, {"id": "8", "text": "x" * 200_000}]
    limit = csv.field_size_limit()
    assert items_of("--from", "csv", "in.csv") == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    assert items_of("--from", "csv") == expected
    assert csv.field_size_limit() == limit
    (here / "in.csv").write_text("\n\na,b\r\n1,2\n\n,\n\r\n\n")
    (here / "none.csv").write_text("\n")
    assert items_of("--from", "csv", "in.csv", "none.csv") == [{"a": "1", "b": "2"}, {"a": "", "b": ""}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,a\n1,2\n", "line 1: expected another name for each column, got two called 'a'"),
        ("a,b\n1,2\n1,2,3\n", "line 3: expected 2 cells, one for each column, got 3"),
        ("\na,b\n\n'1\n", "line 4: expected 2 cells, one for each column, got 1"),
        ('a,b\n1,"2\n\n3"\n4', "line 5: expected 2 cells, one for each column, got 1"),
        ('a,b\n"1" x,2\n', "line 2: ',' expected after"),
        ('a,b\n1,2\n"1\n', "line 3: unexpected end of data"),
    ],
)
def test_rows_of_csv_lose_nothing_without_a_word(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (here / "in.csv").write_text(text)
    assert main(["run", "own:add", "--from", "csv", "in.csv", "-o", "out.jsonl"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mpqueue: error: in.csv: expected csv, got {said}")
    assert not list(here.glob("out*"))


def test_an_input_that_can_not_be_read_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "in.jsonl").write_text("1\n" + "[" * 100_000)
    assert main(["run", "own:upper", "--from", "jsonl", "in.jsonl"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("in.jsonl: expected jsonl, got line 2: lists or objects that are nested too deeply")
    if sys.platform != "linux":
        return
    for kind in ("lines", "jsonl", "csv"):
        assert main(["run", "own:upper", "--from", kind, "/proc/self/mem"]) == 2  # its first page is none
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("/proc/self/mem: Input/output error")


def test_words_of_redo_go_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "own:count", "a.txt", "--journal", "run.db", "--plan"]
    assert main([*command, "--redo", "all", "--redo", "failed"]) == 2
    assert "--redo: expected all alone, or only names and ids of items, got all with another" in capsys.readouterr().err
    assert main([*command, "--redo", "a.txt", "--redo", "failed"]) == 2
    assert "--redo: expected failed alone" in capsys.readouterr().err
    assert main([*command, "--redo", "all", "--redo", "all"]) == 0


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (({"v": 0}, {"id": 2, "v": 1}, {"v": 2}), {"1": [1], "0": [0], "2": None, "{'v': 2}": [2], "3": None}),
        (({"id": 1}, {"id": 0, "name": "b"}, {"id": "1"}), {"0": [1], "b": [1], "1": None}),
        (({"id": "a", "name": "x"}, {"id": "b", "name": "x"}), {"a": [0], "x": None}),
        (("2", "a", "b", "a"), {"2": [0], "a": [1, 3], "3": None}),
        ((10, 2, 30), {"30": [2], "1": [1], "2": None}),
    ],
)
def test_the_item_that_is_named_runs_again_and_no_other(
    here: Path, capsys: pytest.CaptureFixture[str], rows: tuple[Any, ...], named: dict[str, list[int] | None]
) -> None:
    (here / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["run", "builtins:repr", "--from", "jsonl", "in.jsonl", "--journal", "run.db"]
    assert main([*command, "--backend", "own:inline"]) == 0
    for name, indices in named.items():
        capsys.readouterr()
        code = main([*command, "--plan", "--redo", name])
        out, err = capsys.readouterr()
        if indices is None:
            assert (code, out) == (2, ""), name
            assert "--redo: expected" in err
        else:
            assert (code, f"; {len(indices)} to run" in err) == (0, True), (name, err)
            has_ids = isinstance(rows[0], dict) and "id" in rows[0]
            shown = [row["id"] if has_ids else row for row in rows]
            assert out == "".join(f"changed\t{shown[at]}\n" for at in indices), name


def made(folder: Path, **files: str) -> None:
    """Files of Python, each by its path without the ending, in which `__` stands for a slash."""
    for name, text in files.items():
        file = folder / f"{name.replace('__', '/', 1)}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)


@pytest.mark.long(but=["mine/json.py"])
@pytest.mark.parametrize("name", ["mine/json.py", "mine/w.v2.py", "mine/__main__.py", "mine/a b:c.py", "wave"])
def test_a_file_may_be_called_like_a_module_or_like_none(folder: Path, name: str) -> None:
    (folder / "mine").mkdir()
    file = folder / (name if name.endswith(".py") else f"{name}.py")
    file.write_text(
        "import own\nclass Text(str): pass\nprefix = None\n"
        "def load():\n    global prefix\n    prefix = '> '\n"
        "def loads(x, _):\n    own.once_more(x)\n    return prefix + x\n"
    )
    words = ("run", f"{name}:loads", "--setup", f"{name}:load", "--from", "lines", "b.txt", "--journal", "r.db")
    done = run(folder, *words, "-j", "1", "--retries", "0", code=1)
    assert "OSError: busy" in done.stderr
    run(folder, "retry", "r.db", "-j", "1", "--retry-delay", "0")
    assert [row["result"] for row in rows_of(run(folder, "export", "r.db"))] == ["> one two"]


def test_a_file_that_hides_itself_from_workers_is_refused(folder: Path) -> None:
    made(folder, sub__work="import sys\nsys.path.insert(0, 'other')\ndef run(x): return 'sub'")
    made(folder, other__work="def run(x): return 'other'")
    done = run(folder, "run", "sub/work.py:run", "-", "-j", "1", stdin="x\n", code=2)
    assert f"expected workers to find {folder / 'sub' / 'work.py'}, but its code has changed sys.path" in done.stderr


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_unordered_rows_come_as_the_items_end(folder: Path) -> None:
    done = run(folder, "run", "own:open_gate", "-", "-j", "2", "--unordered", stdin="first\nsecond\nlast\n")
    assert rows_of(done)[-1]["payload"] != "second"
    assert sorted(row["payload"] for row in rows_of(done)) == ["first", "last", "second"]
    assert rows_of(done)[0]["payload"] == "second"


def test_a_syntax_error_of_the_user_s_file_is_shown_without_our_frames(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "broken.py").write_text("def work(item)\n    return item\n")
    (here / "importer.py").write_text("import broken\nwork = broken.work\n")
    for name in ("broken.py:work", "importer:work"):
        assert main(["run", name, "a.txt"]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) <= 5
        assert lines[0].endswith('broken.py", line 1')
        assert lines[-1] == "SyntaxError: expected ':'"


def test_what_the_user_s_file_raises_is_shown_without_our_frames(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for at, (line, said) in enumerate(
        [
            ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("from own import coun", f"ImportError: cannot import name 'coun' from 'own' ({here / 'own.py'})"),
        ]
    ):
        (here / f"broken{at}.py").write_text(f"{line}\n")
        assert main(["run", f"broken{at}:work", "a.txt"]) == 1
        place = f'  File "{here / f"broken{at}.py"}", line 1, in <module>'
        assert [one for one in capsys.readouterr().err.splitlines() if "^" not in one] == [
            "Traceback (most recent call last):",
            place,
            f"    {line}",
            said,
        ]


@pytest.mark.long(but=["csv"])
@not_on_windows("no limit for the size of files")
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_an_output_that_can_t_grow_stops_the_run_and_keeps_what_it_has(folder: Path, form: str) -> None:
    lines = "".join(f"{number:0>500}\n" for number in range(20_000))
    (folder / "in.txt").write_text(lines)
    command = f"ulimit -f 5000; {sys.executable} -m mpqueue run own:upper --from lines in.txt -j 1 -o out.{form}"
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1, done.stderr
    said = re.fullmatch(
        r"mpqueue: error: job 'own:upper': its results can't be written: OSError: \[Errno 27\] File too large; "
        rf"kept: (?:([\d,]+) rows in out\.{form}\.part|nothing)\n",
        "".join(line for line in done.stderr.splitlines(True) if not line.startswith("WARNING")),  # of memory files
    )
    assert said is not None, done.stderr
    part = folder / f"out.{form}.part"
    if form == "jsonl":
        assert said[1] == f"{len(part.read_text().splitlines()):,}"
    assert not (folder / f"out.{form}").exists()


def test_captured_output_is_in_the_rows(folder: Path) -> None:
    done = run(folder, "run", "own:talk", "-", "-j", "1", "--capture-output", stdin="one\n")
    assert rows_of(done)[0]["stdout"] == "saying one\n"
    assert "saying" not in done.stderr


@pytest.mark.long
def test_where_the_function_was_is_written_as_the_name_of_the_file_says(folder: Path) -> None:
    done = run(folder, "run", "own:talk", "-", "-j", "1", "--profile", "profile.JSON", stdin="one\n")
    assert rows_of(done)[0]["status"] == "completed"
    assert done.stderr.endswith("profile: profile.JSON\n")
    assert json.loads((folder / "profile.JSON").read_text())["name"] == "own:talk"
    for wrong in ("profile.csv", "nowhere/profile.json"):
        done = run(folder, "run", "own:talk", "-", "--profile", wrong, stdin="one\n", code=2)
        assert done.stdout == ""
        assert "argument --profile: expected a file" in done.stderr


def test_a_reader_that_goes_ends_the_run_quietly(folder: Path) -> None:
    lines = "".join(f"{number}\n" for number in range(20_000))
    (folder / "in.txt").write_text(lines)
    command = ("run", "own:upper", "--from", "lines", "in.txt", "-j", "1", "--no-progress")
    with subprocess.Popen(
        [sys.executable, "-m", "mpqueue", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert json.loads(program.stdout.readline())["result"] == "0"
        program.stdout.close()
        said = program.stderr.read()
        assert program.wait(PATIENCE) == 141
    assert said == ""


# --- how it ends ------------------------------------------------------------------------------------------------------

#: The words of a run, what is on stdin, the exit code, the results in the rows, and what is said, from its beginning.
RUNS = {
    "files and patterns": (
        ["own:count", "*.txt", "a.txt"], "", 0, [{"words": 1}, {"words": 2}, {"words": 1}], r"3 items: 3 completed",
    ),
    "no items": (["own:upper", "-"], "", 0, [], r"0 items: 0 completed\n$"),
    "an attribute": (["own:Tools.twice", "-"], "ab\n", 0, ["abab"], r"1 item: 1 completed"),
    "a setup": (["own:quote", "--setup", "own:load", "-"], "ab\n", 0, ["> ab"], r"1 item: 1 completed"),
    "several functions": (
        ["own:read", "own.py:split", "own:upper", "bad", "b.txt", "--progress"],
        "", 1, [None, ["ONE", "TWO"]],
        r"(?s).*upper: .*/4.*failed: bad: StageError: in stage 'upper': ValueError: a bad line \(after 1 try\)",
    ),
    "several functions with a journal": (
        ["own.py:read", "own:split", "a.txt", "--progress", "--journal", "run.db"],
        "", 0, None, r"(?sm)(?=.*^read: \[)(?=.*^split: \[)(?=.*^\[)",
    ),
    "a failure": (
        ["own:upper", "-"], "one\nbad\ntwo\n", 1, ["ONE", None, "TWO"],
        r"failed: bad: ValueError: a bad line \(after 1 try\)\n3 items: 2 completed, 1 failed, in ",
    ),
    "many failures": (
        ["own:upper", "-"], "bad\n" * 12, 1, [None] * 12,
        r"(failed: bad.*\n){10}\.\.\. and 2 more; together:\n    ValueError × 12 at own.py:",
    ),
    "failures skipped": (
        ["own:upper", "-", "--on-error", "skip"], "one\nbad\ntwo\n", 1, ["ONE", "TWO"], r"failed: bad: ",
    ),
    "the first failure stops": (
        ["own:upper", "-", "--on-error", "stop"], "one\nbad\n" + "more\n" * 50_000, 1, None, r"(?s).*, [\d,]+ not run",
    ),
    "too many failures": (
        ["own:upper", "-", "--max-failures", "2"], "bad\n" * 2000, 1, None,
        r"(?s).*items failed, more than max_failures=2",
    ),
    "a column that no row has": (
        ["own:count", "a.txt", "--columns", "wrods"], "", 1, [{"words": 1}],
        r"(?s).*got 'wrods', which no item has; did you mean words\?",
    ),
    "progress for a log": (["own:upper", "-", "--progress"], "one\n", 0, ["ONE"], r"(?s).*\[#{20}\] 1/1"),
    "a file of rows that is taken for an item": (
        ["own:count", "rows.jsonl"], "", 0, [{"words": 4}],
        r"mpqueue: the one item is the file rows.jsonl itself; --from jsonl makes an item of each",
    ),
    "quiet": (["own:count", "a.txt", "-q", "--progress"], "", 0, [{"words": 1}], r"$"),
}  # fmt: skip


@pytest.mark.parametrize("which", RUNS)
def test_a_run_writes_its_rows_and_says_how_it_went(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    which: str,
) -> None:
    words, stdin, code, results, said = RUNS[which]
    (here / "bad").write_text("bad six")
    (here / "rows.jsonl").write_text('{"a": 1, "b": 2}\n')
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    assert main(["run", *words, "--backend", "own:inline", "--retries", "0"]) == code
    out, told = capfd.readouterr()
    assert results is None or [json.loads(line)["result"] for line in out.splitlines()] == results
    assert re.match(said, told + caplog.text), told


def test_it_stops_at_its_deadline_and_says_why(folder: Path) -> None:
    arguments = ("run", "own:slow", "-", "-j", "1", "--retries", "0", "--deadline", "0.5")
    done = run(folder, *arguments, stdin="bad\n" * 2000, code=75)
    assert "not run" in done.stderr
    assert "it was not over after deadline=0.5 seconds" in done.stderr


@pytest.mark.long
def test_items_get_what_they_need_and_a_dry_run_counts_it(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "in.txt").write_text("".join(f"{number}\n" for number in range(20)))
    run = ["run", "own:slow", "--from", "lines", "in.txt", "--resources", "gpu=1"]
    for words, at_a_time in (
        (["-j", "4", "--uses", "cpu=2"], "4 workers, 2 at a time"),
        (["-j", "2", "--uses", "gpu=1,memory=1MB", "--gpu-env"], "2 workers, 1 at a time"),
    ):
        assert main([*run, *words, "--dry-run"]) == 0
        assert f" for 20 on {at_a_time}; " in capfd.readouterr().err
        assert main([*run, *words]) == 0
        assert len(capfd.readouterr().out.splitlines()) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required: COMMAND"),
        (
            ("stauts",),
            "retry, export, prune, dashboard, got 'stauts'; did you mean status?",
        ),
        (("run", "own:upper", "--from", "json"), "expected files, lines, jsonl, csv, got 'json'; did you mean jsonl?"),
        (("run",), "required: module:handler"),
        (
            ("run", "own:upper", "--from", "lines", "a.txt", "--fly", "b"),
            "arguments: --fly; `mpqueue run --help` lists",
        ),
        (
            ("run", "own:upper", "a.txt", "--time-out", "3"),
            "arguments: --time-out; did you mean --timeout?; `mpqueue run",
        ),
        (("run", "own:upper", "a.txt", "--retry", "2"), "arguments: --retry; did you mean --retries?; `mpqueue run"),
        (
            ("run", "own:upper", "a.txt", "--max-workers=2"),
            "arguments: --max-workers=2; did you mean --concurrency?; `mpqueue",
        ),
        (("run", "own:upper", "a.txt", "--ret", "2"), "did you mean --retries?; `mpqueue run"),
        (("run", "own:upper", "a.txt", "--tries", "2"), "did you mean --max-retries?; `mpqueue run"),
        (
            ("run", "own:uper", "a.txt"),
            "expected a function in own, got 'own:uper': module 'own' has no attribute 'uper'; did you mean own:upper?",
        ),
        (
            ("run", "own:add", "--from", "jsonl", "rows.jsonl", "--columns", "id,payload.sise"),
            "got 'payload.sise', which no item has; did you mean payload.size?",
        ),
        (
            ("run", "own:add", "own:upper", "--from", "jsonl", "rows.jsonl", "--columns", "payload.sise"),
            "which no item has; did you mean payload.size?",
        ),
        (("run", "owm:upper", "a.txt"), "got 'owm': No module named 'owm'; did you mean own?"),
        (("status", "run.db", "more"), "arguments: more; `mpqueue status --help` lists"),
        (("run", "own", "a.txt"), "expected module:function or file.py:function, got 'own'"),
        (("run", "own:nothing", "a.txt"), "expected a function in own"),
        (("run", "sub/own.py:upper", "own:upper", "a.txt"), "expected functions in files of one folder, got "),
        (("run", "sub/own.py:quote", "--setup", "own:load", "a.txt"), "expected functions in files of one folder"),
        (("run", "own:not_callable", "a.txt"), "expected a function, got 'own:not_callable', which is 3"),
        (("run", "nowhere:f", "a.txt"), "expected a module that can be imported, got 'nowhere'"),
        (("run", "nowhere.py:f", "a.txt"), "expected a Python file"),
        (("run", "own:unpicklable", "a.txt"), "expected a callable that can be serialized"),
        (("run", "own:upper"), "expected files, patterns, or - for the lines of stdin, got none"),
        (("run", "own:upper", "no.txt"), "no.txt: expected a file, got a name that is not there"),
        (("run", "own:upper", "*.png"), "*.png: expected a pattern of files, got one that matches no file"),
        (("run", "own:upper", "."), "expected a file, got a folder"),
        (("run", "own:upper", "a.txt", "-j", "0"), "expected a whole number from 1 up, auto or physical, got '0'"),
        (("run", "own:upper", "a.txt", "--retries", "x"), "expected a whole number from 0 up, got 'x'"),
        (("run", "own:upper", "a.txt", "--timeout", "-1"), "expected a time such as 90"),
        (("run", "own:upper", "a.txt", "--log-level", "loud"), "expected a level of logging, got 'loud'"),
        (("run", "own:upper", "a.txt", "-o", "x.doc"), "--output: expected a file named .jsonl"),
        (("run", "own:upper", "a.txt", "-o", "no/x.csv"), "--output: expected a file in a folder that is there"),
        (
            ("run", "own:upper", "a.txt", "-"),
            "-: expected it alone, for the lines of stdin, got it among files",
        ),
        (("run", "own:upper", "--from", "files", "-"), "-: expected it alone, for the lines of stdin, got it among"),
        (("run", "own:upper", "-", "-"), "-: expected stdin once, got it 2 times"),
        (("run", "own:upper", "--from", "lines", "-", "a.txt", "-"), "-: expected stdin once, got it 2 times"),
        (("run", "own:upper", "a.txt", "--setup", "own:nothing"), "--setup: expected a function in own"),
        (("run", "own:add", "--from", "jsonl", "a.txt"), "a.txt: expected jsonl, got line 1"),
        (
            ("run", "own:upper", "a.txt", "--backend", "tcp://a:1"),
            "--backend tcp://a:1: backend: expected 'loky' or a B",
        ),
        (("run", "own:upper", "a.txt", "--backend", "dask://"), "--backend dask://: backend: expected 'loky' or a B"),
        (("run", "own:upper", "a.txt", "--backend", "own:load"), "--backend own:load: backend: expected 'loky' or a B"),
        (("run", "own:upper", "a.txt", "--backend", "own:nothing"), "--backend: expected a function in own"),
        (("run", "own:upper", "a.txt", "--backend", "own:inline", "--timeout", "3"), "timeout: expected None, since"),
        (
            ("run", "own:upper", "a.txt", "--backend", "own:inline", "--uses", "cpu=1"),
            "uses['cpu']: expected none, since",
        ),
        (("run", "own:upper", "a.txt", "--cpus", "1"), "arguments: --cpus; did you mean --uses?; `mpqueue run"),
        (
            ("run", "own:count", "--backend=own:inline", "--", "own:upper"),
            "own:upper: expected a file, got a name that",
        ),
        (("run", "..own:upper", "a.txt"), "expected a module's name, or a path that ends in .py, got '..own'"),
        (("run", "json.given:run", "a.txt"), "expected 'json.given' in the current folder ("),
        (("run", "own:read", "own:split", "a.txt", "--setup", "own:load"), "--setup: expected one function, got 2"),
        (("run", "own:read", "own:split", "a.txt", "--cost", "size"), "--cost: expected one function, got 2"),
        (("run", "own:read", "own:split", "a.txt", "--capture-output"), "--capture-output: expected one function"),
        (("run", "own:upper", "a.txt", "--uses", "gpu"), "expected NAME=N, such as gpu=1"),
        (("run", "own:upper", "a.txt", "--dry-run", "--plan"), "--dry-run: expected no --plan"),
        (("run", "own:upper", "a.txt", "--dry-run", "-o", "out.xyz"), "--output: "),
    ],
)
def test_wrong_usage_is_explained_and_ends_with_2(
    here: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    (here / "rows.jsonl").write_text('{"size": 1}\n')
    made(here, json__given="def run(x): return x", json____init__="")
    try:
        code: Any = main(arguments)
    except SystemExit as end:
        code = end.code
    out, told = capfd.readouterr()
    assert (code, out) == (2, "")
    assert told.startswith("mpqueue: error: ")
    assert told.count("\n") == 1
    assert message in told
    assert "Traceback" not in told


def test_ctrl_c_keeps_the_rows_and_tells_how_to_go_on(folder: Path) -> None:
    (folder / "in.txt").write_text("quick\nslow\n")
    arguments = ("run", "own:hang", "--from", "lines", "in.txt", "-j", "1", "-o", "out.csv")
    with terminal_with(folder, "-m", "mpqueue", *arguments) as shown:
        Gate(folder).wait_for("slow")
        shown.press_ctrl_c()
        assert shown.end() == 130
        lines = screen(shown.text)
    assert any("interrupted: 1 of 2 items had ended" in re.sub(r"\x1b\[\d+m", "", line) for line in lines)
    assert "to run it again: mpqueue run own:hang --from lines in.txt -j 1 -o out.csv" in lines
    assert not any("Traceback" in line for line in lines)
    assert "kept: 1 row in out.csv.part" in lines
    assert not (folder / "out.csv").exists()
    with (folder / "out.csv.part").open(newline="") as file:
        assert [row["payload"] for row in csv.DictReader(file)] == ["quick"]


# --- a dry run --------------------------------------------------------------------------------------------------------


def test_a_dry_run_runs_three_items_and_writes_nothing(folder: Path) -> None:
    lines = "".join(f"{number}\n" for number in range(100))
    arguments = ("run", "own:slow", "--from", "lines", "-", "-j", "8", "-o", "out.csv", "--journal", "run.db")
    before = set(folder.iterdir())
    done = run(folder, *arguments, "--dry-run", stdin=lines)
    said = done.stderr.splitlines()
    assert done.stdout == ""
    assert [line.partition(":")[0] for line in said[:3]] == ["0", "50", "99"]
    assert re.fullmatch(r".* an item.*, about .* for 100 on 8 workers; the result of one is \d+ B", said[3])
    assert said[4] == "dry run: 3 of 100 items ran, nothing was written"
    assert {path for path in folder.iterdir() if path.name != "__pycache__"} == before


@pytest.mark.long(but=["words0"])
@pytest.mark.parametrize(
    "words",
    [
        ["--from", "jsonl", "twice.jsonl"],
        ["--from", "lines", "own.py", "--cost", "size"],
        ["a.txt", "--cost", "recorded"],
        ["a.txt", "-j", "2", "--uses", "cpu=3"],
        ["a.txt", "--uses", "gpu=1"],
        ["a.txt", "--retries", "1", "--redo", "failed"],
    ],
)
def test_a_dry_run_refuses_what_a_run_refuses(here: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    (here / "twice.jsonl").write_text("".join(f'{{"id": {at}}}\n' for at in (0, 1, 1, 2, 3, 4, 5)))
    said = []
    for dry in ([], ["--dry-run"]):
        assert main(["run", "own:upper", *words, *dry]) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert main(["run", "own:count", "a.txt", "--cost", "recorded", "--journal", "run.db", "--dry-run"]) == 0
    assert not (here / "run.db").exists()


# --- what people see --------------------------------------------------------------------------------------------------


def test_a_terminal_shows_a_bar_and_colours_and_no_torn_row(folder: Path) -> None:
    (folder / "in.txt").write_text("one\nbad\ntwo\n")
    arguments = ("run", "own:upper", "--from", "lines", "in.txt", "-j", "1", "--retries", "0")
    with terminal_with(folder, "-m", "mpqueue", *arguments) as shown:
        assert shown.end() == 1
        text = shown.text
    lines = screen(text)
    assert [json.loads(line)["payload"] for line in lines if line.startswith("{")] == ["one", "bad", "two"]
    assert any(line.startswith("own:upper: 100%") and "3/3" in line and "1 failed" in line for line in lines)
    assert "\x1b[31mfailed:\x1b[0m" in text


COMMANDS = ("run", "status", "failures", "retry", "export", "prune", "dashboard")


def help_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """On a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_with_examples_of_the_command_and_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_of(capsys, monkeypatch, command)
    assert max(map(len, text.splitlines())) <= 80
    _, _, after = text.partition("\nexamples:\n")
    examples, _, codes = after.partition("\n\nexit codes:\n")
    lines = examples.partition("\n\n")[0].splitlines()
    assert len(lines) >= 2
    assert all(f"mpqueue {command} " in line for line in lines)
    assert [line.split()[0] for line in codes.splitlines()] == ["0", "1", "2", "75", "130", "141"]


def test_options_have_the_names_of_the_api_too(here: Path) -> None:
    words = ["run", "own:once_more", "own.py", "--backend", "own:inline", "--concurrency", "1"]
    assert main([*words, "--max-retries", "0", "--results", "one.jsonl"]) == 1
    assert main([*words, "--max-retries", "1", "--base-delay", "0", "--results", "two.jsonl"]) == 0
    rows = [json.loads((here / f"{name}.jsonl").read_text()) for name in ("one", "two")]
    assert [(row["status"], row["attempts"]) for row in rows] == [("failed", 1), ("completed", 2)]


@not_on_windows("the tests run it from its folder there")
def test_the_command_is_installed() -> None:
    command = Path(sys.executable).parent / "mpqueue"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.startswith("mpqueue ")


#: What is typed, with Tab at its end, and what is there then.
TYPED = [
    ("mpqueue sta", "mpqueue status"),
    ("mpqueue run --on", "mpqueue run --on-error"),
    ("mpqueue run --on-error sk", "mpqueue run --on-error skip"),
    ("mpqueue run own:count a.txt b.t", "mpqueue run own:count a.txt b.txt"),
    ("mpqueue run own:count -o a.t", "mpqueue run own:count -o a.txt"),
]


@not_on_windows("there is no bash with a terminal")
def test_a_person_s_bash_completes_commands_options_choices_and_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line becomes what a command prints, since the cursor goes to its beginning once it is completed."""
    pytest.importorskip("argcomplete")
    monkeypatch.setenv("PATH", WITH_COMMAND["PATH"])
    bash = "import os; os.execvp('bash', ['bash', '--norc', '-i'])"
    with terminal_with(folder, "-c", bash) as shown:
        lines = "".join(f"{words}\t\x01echo \x05 >> typed\n" for words, _ in TYPED)
        register = 'eval "$(register-python-argcomplete mpqueue)"'
        os.write(shown.master, f"{register}\n{lines}touch done\n".encode())
        wait_until((folder / "done").exists, timeout=PATIENCE)
        os.write(shown.master, b"exit\n")
        shown.end()
    assert [line.rstrip() for line in (folder / "typed").read_text().splitlines()] == [whole for _, whole in TYPED]


@pytest.mark.long
def test_a_run_with_a_dashboard_prints_its_address_and_is_watched_there(folder: Path) -> None:
    arguments = ["run", "own:wait_first", "--from", "lines", "-", "--dashboard", "-j", "2"]
    with subprocess.Popen(
        [sys.executable, "-m", "mpqueue", *arguments],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stderr is not None
        program.stdin.write("first\nsecond\n")
        program.stdin.close()
        url = program.stderr.readline().partition("live page, as long as this runs: ")[2].strip()
        Gate(folder).wait_for("first")
        with visit(url).stream() as stream:
            stream.listen_until(lambda: stream.statuses("own:wait_first") == ["processing", "completed"])
            Gate(folder).open()
            while not stream.ended:
                stream.next()
        assert stream.states["own:wait_first"]["counts"]["completed"] == 2  # items can't be asked for any more
        assert program.wait(PATIENCE) == 0
