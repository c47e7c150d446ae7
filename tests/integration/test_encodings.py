"""Streams whose encoding does not have all characters: of files and pipes on Windows, and of old terminals everywhere.

What mpqueue itself writes never raises there. What a handler prints raises in its own item, as without mpqueue.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.length import long
from tests.support.programs import PATIENCE, run_program
from tests.support.terminals import screen, terminal

pytestmark = pytest.mark.slow

#: Not in any of them, the next ones in some.
NAMES = ["日本.txt", "\u2713 done", "ünïted", "plain"]
OWN = """
def work(name):
    if name != "plain":
        raise ValueError(f"{name} \u2026")
    return name
"""


@pytest.fixture(params=["cp1252", long("cp437"), long("ascii")], autouse=True)
def encoding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """That of the streams of all programs that the tests start."""
    monkeypatch.setenv("PYTHONIOENCODING", request.param)
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "names").write_text("".join(f"{name}\n" for name in NAMES), encoding="utf-8")
    return tmp_path


def run(folder: Path, encoding: str, *arguments: str, code: int = 0) -> tuple[str, str]:
    """What a command writes to stdout and to stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "mpqueue", *arguments], cwd=folder, capture_output=True, timeout=PATIENCE, check=False
    )
    out, told = (text.decode(encoding).replace("\r\n", "\n") for text in (done.stdout, done.stderr))
    assert done.returncode == code, told
    assert "Traceback" not in told
    return out, told


def shown(text: str, encoding: str) -> str:
    return text.encode(encoding, "backslashreplace").decode(encoding)


def test_commands_escape_what_the_encoding_does_not_have(folder: Path, encoding: str) -> None:
    options = ("--from", "lines", "names", "--journal", "run.db")
    planned, _ = run(folder, encoding, "run", "own:work", *options, "--plan")
    assert planned.splitlines() == [f"new\t{shown(name, encoding)}" for name in NAMES]
    _, told = run(folder, encoding, "run", "own:work", *options, "-j", "1", "--retries", "0", "-o", "out.csv", code=1)
    for name in NAMES[:-1]:
        assert f"failed: {shown(name, encoding)}: ValueError: {shown(name, encoding)} " in told
    failures, _ = run(folder, encoding, "failures", "run.db")
    assert [line.partition(":")[0] for line in failures.splitlines()] == [shown(name, encoding) for name in NAMES[:-1]]
    _, told = run(folder, encoding, "run", "own:work", "日本.txt", code=2)
    assert told.startswith(f"mpqueue: error: {shown('日本.txt', encoding)}: expected a file")


def test_reports_and_groups_of_failures_can_be_printed(tmp_path: Path) -> None:
    done = run_program(
        tmp_path,
        r"""
        import sys
        from mpqueue import JobQueue

        def work(name):
            if name == "plain":
                sum(range(1_000_000))
                return name
            raise ValueError(name)

        if __name__ == "__main__":
            with JobQueue(1, max_retries=0) as queue:
                job = queue.run(["\u65e5\u672c", "\u2713", "plain"], work, id="\u65e5\u672c")
            report = job.report()
            print(report)
            for group in job.failure_groups():
                print(group)
            report.save("report.txt")
            saved = open("report.txt", encoding="utf-8").read()
            assert "Job '\u65e5\u672c'" in saved
            assert "ValueError \xd7 2 at program.py:9, first: \u65e5\u672c: \u65e5\u672c" in saved
        """,
    )
    assert "ValueError x 2 at program.py:9, first: " in done.stdout
    assert r"\u65e5\u672c" in done.stdout


def test_captured_output_has_every_character(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        r"""
        import sys
        from mpqueue import JobQueue

        def talk(name):
            print(name)
            print(name, file=sys.stderr)

        if __name__ == "__main__":
            names = ["\xe9", "\u65e5\u672c"]
            with JobQueue(1, max_retries=0) as queue:
                job = queue.run(names, talk, capture_output=True)
                kept = [(item.stdout, item.stderr, item.error) for item in job.items]
                assert kept == [(f"{name}\n", f"{name}\n", None) for name in names], ascii(kept)
                # The stream writes as before again.
                shown = queue.run([0], lambda _: sys.stdout.encoding)
            assert shown.results == [sys.stdout.encoding]
        """,
    )


def test_a_bar_on_such_a_terminal_is_drawn_and_a_print_fails_its_own_item(tmp_path: Path) -> None:
    """Where the program has a stderr of its own, that does not escape by itself."""
    body = r"""
        import io, sys
        import mpqueue

        def talk(name):
            print(name, end=" ")
            return name

        sys.stderr = io.TextIOWrapper(sys.stderr.buffer, sys.stderr.encoding, line_buffering=True)
        with mpqueue.JobQueue(1, max_retries=0) as queue:
            for names in (["plain", "\u65e5", "other"], ["\u65e5"]):
                job = queue.run(names, talk, id=f"\u65e5{len(names)}\n", progress=True, chunksize=3)
                print()
                print(*(ascii(item.error_type) for item in job.items))
    """
    with terminal(tmp_path, body) as seen:
        assert seen.end() == 0, seen.text
    lines = screen(seen.text)
    assert "None 'UnicodeEncodeError' None" in lines
    assert "'UnicodeEncodeError'" in lines
    assert any(line.startswith(r"\u65e53\n") and "3/3" in line for line in lines), lines
    assert not any("Traceback" in line for line in lines), lines
