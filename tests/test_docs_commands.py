"""The pages that lead from an empty machine to a running job: their commands run, in their order, as they stand.

On each page of `PAGES`, these blocks are looked at, and nothing else:

- A block with a title is a file of that name. It is written, with what the page says.
- ```` ```sh ```` is run by bash, and has to end with 0, in one folder for the page.
- ```` ```sh title="Terminal 1" ```` is a terminal that stays open: its command runs beside the others until the page is
  over, and then gets Ctrl-C, the last terminal first. It has to end with that.
- ```` ```text output ```` after one of these is what it prints, where `...` stands for anything. Of a terminal, the
  test waits until it has printed these lines, among others and however they are indented.
- ```` ```sh no-run ```` needs what is not here.

Two things are not as on the page. Ports are others, since those of the page may be in use. And what it installs is here
already: of `pip install`, only that it names what is needed is looked at.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import metadata, requires, version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement

from tests.support import leaks
from tests.support.waiting import wait_until

FOLDER = Path(__file__).parent.parent / "docs" / "how-to"
PAGES = ("cluster-dask.md", "cluster-ray.md", "slurm-and-kubernetes.md")
#: Whose file a test of its own runs: tests/integration/test_web_application.py.
RUN_ELSEWHERE = ("web-applications.md",)
#: Seconds that a block may take, and that a cluster may take to come up, on a busy machine.
PATIENCE = 300.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_BLOCK = re.compile(
    r"^```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<text>.*?)^```[ ]*$"
    r"(?:\s*^```text output[ ]*\n(?P<output>.*?)^```[ ]*$)?",
    re.MULTILINE | re.DOTALL,
)
#: The ports of Dask's scheduler, of Ray's head node and of its dashboard.
_PORTS = re.compile(r"\b(?:8786|6379)\b")
_INSTALLED = ("python3 -m venv .venv", ". .venv/bin/activate")


class Block(NamedTuple):
    """One of a page that counts here."""

    line: int
    title: str  #: "" where it has none
    text: str
    output: str | None  #: what the page says that it prints

    @property
    def is_terminal(self) -> bool:
        """It goes on while the others run."""
        return self.title.startswith("Terminal")


def blocks_of(page: str) -> Iterator[Block]:
    """All that count, in their order."""
    for match in _BLOCK.finditer(page):
        title = re.search(r'\btitle="([^"]+)"', match["info"])
        if title or (match["language"] == "sh" and "no-run" not in match["info"].split()):
            line = page.count("\n", 0, match.start()) + 1
            yield Block(line, title[1] if title else "", match["text"], match["output"])


class Machine:
    """Where a page is followed: a folder, programs on the path, and terminals."""

    def __init__(self, folder: Path, short_folder: Path) -> None:
        self._folder = folder
        self._environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "HOME": str(short_folder),
            "TMPDIR": str(short_folder),
            "RAY_TMPDIR": str(short_folder),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._terminals: list[tuple[subprocess.Popen[bytes], Path]] = []

    def follow(self, block: Block) -> None:
        """Do what it says, and compare what comes of it."""
        if block.is_terminal:
            log = self._open_terminal(block)
            if block.output is not None:
                lines = re.compile(".*".join(map(_pattern, block.output.splitlines())), re.DOTALL)
                terminal, _ = self._terminals[-1]
                wait_until(
                    lambda: lines.search(log.read_text()) or terminal.poll() is not None,
                    timeout=PATIENCE,
                    what=f"line {block.line} in {log}",
                )
                assert lines.search(log.read_text()), f"line {block.line}: {log.read_text()}"
        elif block.title:
            (self._folder / block.title).write_text(block.text)
        else:
            commands = "".join(line for line in block.text.splitlines(keepends=True) if not _is_installation(line))
            printed = self._run(commands, block.line)
            if block.output is not None:
                is_as = re.fullmatch(_pattern(block.output), printed, re.DOTALL)
                assert is_as, f"line {block.line}: expected\n{block.output}\ngot\n{printed}"

    def _run(self, commands: str, line: int) -> str:
        with open(self._folder / f"{line}.log", "w+") as errors:
            program = self._start(commands, self._environment, stdout=subprocess.PIPE, stderr=errors)
            try:
                printed = program.communicate(timeout=PATIENCE)[0].decode()
            finally:
                _kill(program)
            errors.seek(0)
            assert program.returncode == 0, f"line {line}: {commands}{printed}{errors.read()}"
        return printed

    def _open_terminal(self, block: Block) -> Path:
        log = self._folder / f"{block.title}.log"
        # A nanny that gets Ctrl-C while it starts its worker again leaves a semaphore of Dask's.
        environment = {name: value for name, value in self._environment.items() if name != leaks.COOKIE}
        with open(log, "wb") as out:
            self._terminals.append((self._start(block.text, environment, stdout=out, stderr=subprocess.STDOUT), log))
        return log

    def _start(self, commands: str, environment: dict[str, str], **streams: Any) -> subprocess.Popen[bytes]:
        program: subprocess.Popen[bytes] = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self._folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **streams,
        )
        return program

    def end(self) -> None:
        """Press Ctrl-C in each terminal, and wait until its program has ended by that."""
        for terminal, log in reversed(self._terminals):
            assert terminal.poll() is None, log.read_text()
            os.killpg(terminal.pid, signal.SIGINT)
            terminal.wait(PATIENCE)

    def clear(self) -> None:
        """End by force what is left."""
        for terminal, _ in reversed(self._terminals):
            _kill(terminal)


def _kill(program: subprocess.Popen[bytes]) -> None:
    for pid in [program.pid, *leaks.descendants(program.pid)] if program.poll() is None else []:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    program.wait()


def _pattern(output: str) -> str:
    """As a regular expression: dots are anything, and spaces and ends of lines are any of these."""
    return re.sub(r"(?:\\\s)+", r"\\s+", re.escape(output).replace(r"\.\.\.", ".*"))


def _is_installation(line: str) -> bool:
    """Whether what it does is done. Fails where it would not install what is here."""
    words = line.split()
    if words[:2] == ["pip", "install"]:
        for word in words[2:]:
            _check_installed(Requirement(word.strip("'")))
        return True
    return line.strip() in _INSTALLED


def _check_installed(wanted: Requirement) -> None:
    known = metadata(wanted.name).get_all("Provides-Extra") or []
    assert wanted.extras <= set(known), f"{wanted}: {wanted.name} has {known}"
    for one in map(Requirement, requires(wanted.name) or ()):
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ["", *wanted.extras]):
            assert one.specifier.contains(version(one.name), prereleases=True), one


def _with_free_ports(page: str) -> str:
    """The page, where each of its ports is one that is free now."""
    with contextlib.ExitStack() as held:
        free = {}
        for port in set(_PORTS.findall(page)):
            free[port] = held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
    return _PORTS.sub(lambda port: str(free[port[0]]), page)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Nothing of it is left afterwards."""
    # There are sockets in it, whose paths have 107 characters at most: so it is not in this run's temporary folder.
    short_folder = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))
    machine = Machine(tmp_path, short_folder)
    try:
        yield machine
    finally:
        machine.clear()
        shutil.rmtree(short_folder, ignore_errors=True)


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_lead_to_a_running_job(page: str, machine: Machine) -> None:
    for block in blocks_of(_with_free_ports((FOLDER / page).read_text())):
        machine.follow(block)
    machine.end()


def test_files_are_on_pages_whose_commands_run() -> None:
    titled = re.compile(r'^```.*title="', re.MULTILINE)
    pages = {path.name for path in FOLDER.parent.rglob("*.md") if titled.search(path.read_text())}
    assert pages == {*PAGES, *RUN_ELSEWHERE}


def test_blocks_and_their_output_are_found() -> None:
    fence = "```"
    page = f"""
{fence}sh title="Terminal 1"
serve
{fence}

{fence}text output
up
{fence}

{fence}python title="a.py"
print(1)
{fence}

{fence}sh
python a.py
{fence}

{fence}sh no-run
sbatch
{fence}

{fence}python no-run
no()
{fence}
"""
    assert [(block.title, block.text, block.output) for block in blocks_of(page)] == [
        ("Terminal 1", "serve\n", "up\n"),
        ("a.py", "print(1)\n", None),
        ("", "python a.py\n", None),
    ]


def test_what_a_page_installs_is_compared_with_what_is_here() -> None:
    assert _is_installation("pip install 'mpqueue[dask]'\n")
    assert not _is_installation("python primes.py\n")
    with pytest.raises(AssertionError, match="nonesuch"):
        _is_installation("pip install 'mpqueue[nonesuch]'\n")
