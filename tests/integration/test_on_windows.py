"""What Windows has instead of signals, sessions and inherited descriptors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from mpqueue import ItemTimeoutError, JobQueue, JournalError, Rerun, WorkerCrashedError
from tests.support import handlers as do
from tests.support.command_line import main
from tests.support.programs import APART, PATIENCE, is_running, run_program, start_program, write_program
from tests.support.this_system import IS_WINDOWS
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not IS_WINDOWS, reason="of Windows")]

#: Prints its process id, and sleeps.
_SLEEPER = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"


def start_sleeper_and_hang(gate: Gate) -> Any:
    """A handler that starts a program, announces its process id and the worker's, and sleeps."""

    def handle(item: Any) -> Any:
        child = subprocess.Popen([sys.executable, "-c", _SLEEPER], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        gate.announce(int(child.stdout.readline()))
        return do.announce_pid(gate)(item)

    return handle


def test_workers_and_what_they_have_started_end_with_a_program_that_is_killed(tmp_path: Path) -> None:
    """And what is in the temporary folder, in which the big item was."""
    gate = Gate(tmp_path / "gate")
    program = start_program(
        tmp_path,
        """
        import sys
        from pathlib import Path
        from mpqueue import JobQueue
        from tests.integration.test_on_windows import start_sleeper_and_hang
        from tests.support.waiting import Gate
        with JobQueue(1) as queue:
            queue.run([bytes(3_000_000)], start_sleeper_and_hang(Gate(Path(sys.argv[1]))))
        """,
        gate.folder,
    )
    with program:
        pids = {int(pid) for pid in gate.wait_for_count(2)}
        assert all(map(is_running, pids))
        program.kill()
        wait_until(lambda: not any(map(is_running, pids)), what="worker and its program to end")


@pytest.mark.holds("error: ItemTimeoutError", "fault: the function hangs, with timeout=")
def test_what_a_worker_has_started_ends_with_it_and_it_is_told_where_that_hung(gate: Gate) -> None:
    with JobQueue(1, timeout=3.0, max_retries=0) as queue:
        handler = do.only("culprit", start_sleeper_and_hang(gate))
        job = queue.run(["left", "culprit", "right"], handler, chunksize=3)
    assert job.results == ["left", None, "right"]
    error = job.items[1].exception
    assert isinstance(error, ItemTimeoutError)
    assert "_announce_pid" in (error.stack or "")
    assert not any(is_running(int(pid)) for pid in gate.arrived())


@pytest.mark.holds("fault: the worker dies: segfault, os._exit, SIGKILL, out of memory")
def test_a_crash_is_told_by_the_name_of_the_exception() -> None:
    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(["left", "culprit", "right"], do.only("culprit", do.segfault), chunksize=3)
    assert job.results == ["left", None, "right"]
    error = job.items[1].exception
    assert isinstance(error, WorkerCrashedError)
    assert (error.signal, error.exitcode) == ("ACCESS_VIOLATION", 0xC0000005)


def test_big_items_and_results_come_through_and_nobody_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    items = [bytes([number]) * 3_000_000 for number in range(3)]
    with JobQueue(1) as queue:
        assert queue.run(items, do.succeed).results == items
    assert not caplog.records


def test_output_is_kept_where_the_program_has_a_console(tmp_path: Path) -> None:
    program = write_program(
        tmp_path,
        """
        import json, os, subprocess, sys
        from pathlib import Path
        import mpqueue

        def talk(item):
            print(item)
            os.write(1, b"bytes\\n")
            print("wrong", file=sys.stderr)
            subprocess.run([sys.executable, "-c", "print('child')"], check=True)
            return sys.stdout.isatty()

        if __name__ == "__main__":
            with mpqueue.JobQueue(1, max_retries=0) as queue:
                shown = queue.run(["\u2713"], talk)
                kept = queue.run(["\u2713"], talk, capture_output=True)
                again = queue.run(["\u2713"], talk)
            items = [job.items[0] for job in (shown, kept, again)]
            told = [(item.result, item.stdout, item.stderr, item.error) for item in items]
            Path("told").write_text(json.dumps(told))
        """,
    )
    # Without streams of its own, it has those of its console.
    done = subprocess.run([sys.executable, str(program)], cwd=tmp_path, timeout=PATIENCE, check=False, **APART)
    assert done.returncode == 0
    shown = [True, None, None, None]
    kept = [False, "\u2713\nbytes\nchild\n", "wrong\n", None]
    assert json.loads((tmp_path / "told").read_text()) == [shown, kept, shown]


def test_programs_of_pythonw_have_workers_and_their_output_can_be_kept(tmp_path: Path) -> None:
    """Neither has standard streams."""
    program = write_program(
        tmp_path,
        """
        import json, os, sys, traceback
        from pathlib import Path
        import mpqueue

        sys.excepthook = lambda *error: Path("told").write_text("".join(traceback.format_exception(*error)))

        def talk(item):
            print(item)
            os.write(1, b"bytes\\n")
            print("wrong", file=sys.stderr)
            return item

        with mpqueue.JobQueue(1, max_retries=0) as queue:
            jobs = [queue.run(["\u2713"], talk, capture_output=kept) for kept in (False, True, False)]
        items = [job.items[0] for job in jobs]
        told = [(item.result, item.stdout, item.stderr, item.error) for item in items]
        Path("told").write_text(json.dumps([sys.stderr, *told]))
        """,
    )
    pythonw = Path(sys.executable).with_name("pythonw.exe")
    windows: Any = subprocess
    startup = windows.STARTUPINFO(dwFlags=windows.STARTF_USESTDHANDLES)  # none of pytest's
    done = subprocess.run([pythonw, str(program)], cwd=tmp_path, startupinfo=startup, timeout=PATIENCE, check=False)
    assert done.returncode == 0, (tmp_path / "told").read_text()
    shown = ["\u2713", None, None, None]
    kept = ["\u2713", "\u2713\nbytes\n", "wrong\n", None]
    assert json.loads((tmp_path / "told").read_text()) == [None, shown, kept, shown]


#: What a person sees of the console that the program has: its lines, down to the cursor's.
_SCREEN = """
    import ctypes
    from ctypes import wintypes

    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)

    class Place(ctypes.Structure):
        _fields_ = (("x", ctypes.c_short), ("y", ctypes.c_short))

    class Buffer(ctypes.Structure):
        _fields_ = (("size", Place), ("cursor", Place), ("rest", ctypes.c_short * 7))

    def read_screen():
        kernel32.CreateFileW.restype = wintypes.HANDLE
        console = wintypes.HANDLE(kernel32.CreateFileW("CONOUT$", 0xC0000000, 3, None, 3, 0, None))
        found, lines, count = Buffer(), [], wintypes.DWORD()
        assert kernel32.GetConsoleScreenBufferInfo(console, ctypes.byref(found)), ctypes.get_last_error()
        for row in range(found.cursor.y + 1):
            line = ctypes.create_unicode_buffer(found.size.x + 1)
            where = found.size.x, Place(0, row), ctypes.byref(count)
            assert kernel32.ReadConsoleOutputCharacterW(console, line, *where), ctypes.get_last_error()
            lines.append(line[: count.value].rstrip())
        return lines
"""


def test_a_bar_and_text_in_any_script_are_seen_on_a_console(tmp_path: Path) -> None:
    """Wine's console shows codes that move the cursor as text: it is seen that it is asked to take them, no more."""
    program = write_program(
        tmp_path,
        textwrap.dedent(_SCREEN)
        + textwrap.dedent(
            """
            import json, sys
            from pathlib import Path
            import mpqueue
            from tests.support.command_line import main

            def talk(number):
                print("said", number, "\u2713")
                return number

            if __name__ == "__main__":
                with mpqueue.JobQueue(1) as queue:
                    queue.run(range(3), talk, id="\u65e5\u672c", progress=True, chunksize=1)
                assert main(["run", "builtins:len", "\u65e5.txt"]) == 2
                mode = wintypes.DWORD()
                assert kernel32.GetConsoleMode(wintypes.HANDLE(kernel32.GetStdHandle(-12)), ctypes.byref(mode))
                Path("seen").write_text(json.dumps([mode.value, read_screen()]))
            """
        ),
    )
    done = subprocess.run([sys.executable, str(program)], cwd=tmp_path, timeout=PATIENCE, check=False, **APART)
    assert done.returncode == 0
    mode, lines = json.loads((tmp_path / "seen").read_text())
    assert mode & 0x4
    text = "\n".join(re.sub(r"\x1b\[[0-9]*[A-Za-z]", "", line) for line in lines)
    assert [f"said {number} \u2713" in text for number in range(3)] == [True] * 3, lines
    assert re.search("^\u65e5\u672c: .*3/3", text, re.MULTILINE), lines
    assert "mpqueue: error: \u65e5.txt: expected a file" in text


def test_ctrl_break_drains_a_run(tmp_path: Path) -> None:
    """The signal of the C library that Ctrl-Break becomes: wine ends a program at the key itself."""
    (tmp_path / "words.py").write_text(
        textwrap.dedent(
            """
            from pathlib import Path
            from tests.support.waiting import wait_until

            def count(line):
                if line == "wait":
                    Path("here").touch()
                    wait_until(Path("open").exists)
                return len(line)
            """
        )
    )
    (tmp_path / "lines").write_text("one\nwait\nthree\n")
    done = run_program(
        tmp_path,
        """
        import signal, sys, threading
        from pathlib import Path
        from tests.support.command_line import main
        from tests.support.waiting import wait_until

        def press():
            wait_until(Path("here").exists)
            signal.raise_signal(signal.SIGBREAK)
            wait_until(Path("open").exists)

        if __name__ == "__main__":
            threading.Thread(target=press, daemon=True).start()
            sys.exit(main(sys.argv[1:]))
        """,
        *("run", "words:count", "--from", "lines", "lines", "-j", "1", "--drain", "0"),
        check=False,
    )
    assert done.returncode == 75, done.stderr
    assert "draining: no new items start" in done.stderr
    assert "2 not run" in done.stderr


def test_an_output_that_can_t_be_replaced_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one that is open in a spreadsheet."""
    (tmp_path / "own.py").write_text("from pathlib import Path\ndef f(line):\n    Path(line).touch()\n")
    (tmp_path / "lines").write_text(str(tmp_path / "ran"))
    output = tmp_path / "rows.csv"
    output.write_text("before")
    command = ["run", f"{tmp_path / 'own.py'}:f", "-j1", "--from", "lines", str(tmp_path / "lines"), "-o", str(output)]

    def refused() -> str:
        assert main(command) == 2
        assert not (tmp_path / "ran").exists()
        assert output.read_text() == "before"
        return capsys.readouterr().err

    output.chmod(0o444)
    assert "rows.csv', which is read-only" in refused()
    output.chmod(0o666)
    with output.open():
        assert "rows.csv', which a program has open: close it there" in refused()
    assert main(command) == 0
    assert (tmp_path / "ran").exists()
    assert output.read_text().startswith("id,")


def test_a_command_that_is_printed_can_be_given_to_cmd(tmp_path: Path) -> None:
    names = ["my file.txt", "a&b.txt", "^.txt", "it's.txt", "(x).txt", "100%.txt", "x;y,z=1.txt"]
    for name in names:
        (tmp_path / name).write_text(name)
    python = [sys.executable, "-m", "mpqueue"]
    command = [*python, "run", "builtins:len", *names, "-j", "1", "--journal", "my run.db"]

    def said_by(command: str | list[str], code: int = 0) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == code, done.stderr
        assert code or {json.loads(row)["payload"] for row in done.stdout.splitlines()} == {*names}
        return done.stderr

    early = ["--deadline", "0.001"]
    _, _, again = said_by([*command, *early], 75).partition("run the same command to go on: mpqueue ")
    line = f"{subprocess.list2cmdline(python)} {again.splitlines()[0].removesuffix(' '.join(early))}"
    assert "7 items: 7 completed, in " in said_by(f"cmd /s /c {chr(34)}{line}{chr(34)}")


def test_a_journal_with_a_literal_path_is_the_same_as_without(path: Path) -> None:
    with JobQueue(1, journal=f"\\\\?\\{path}") as queue:
        queue.run([1, 2], do.succeed, id="job")
    for name in (f"\\\\?\\{path}", path):
        with JobQueue(1, journal=name) as queue:
            assert queue.run([1, 2], do.fail, id="job", rerun=Rerun(update=True)).results == [1, 2]


@pytest.mark.parametrize("path", [r"\\server\share\run.db", r"\\?\UNC\server\share\run.db"])
def test_a_journal_on_a_network_drive_is_refused(path: str) -> None:
    with pytest.raises(JournalError) as error:
        JobQueue(1, journal=path)
    assert r"got network drive (\\server\share at \\server\share)" in str(error.value)


def test_what_windows_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match=r"per_worker\['memory'\]"):
        JobQueue(1, per_worker={"memory": "1GB"})
    with pytest.raises(ValueError, match="preload"):
        JobQueue(1, preload=["json"])
