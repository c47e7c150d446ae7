"""What a program does to the files of a folder, noted by ``strace``: whatever library it is that writes them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from tests.support.power import Note
from tests.support.programs import PATIENCE

CALLS = "openat,mkdir,pwrite64,write,ftruncate,fsync,fdatasync,rename,unlink"
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (\d+)(?:<.*)?")
#: Text as ``-xx`` writes it, and the file of a descriptor as ``-y`` does.
_TEXT, _FILE = re.compile(r'"((?:\\x[0-9a-f]{2})*)"'), re.compile(r"\d+<((?:\\x[0-9a-f]{2})*)>")


@cache
def can_trace() -> bool:
    """Whether there is strace, and it is allowed."""
    strace = shutil.which("strace")
    return strace is not None and subprocess.run([strace, "true"], capture_output=True, check=False).returncode == 0


def trace(command: Sequence[str], folder: Path, log: Path) -> list[Note]:
    """Run the command to its end; what it did to the files of ``folder``, which is empty before, in order.

    Each line that it writes to the file "told" there is a note of its own.
    """
    strace = ["strace", "-f", "-y", "-xx", "-s", str(1 << 24), "-e", f"trace={CALLS}", "-e", "signal=none"]
    subprocess.run([*strace, "-o", str(log), *command], check=True, timeout=PATIENCE)
    noting = _Noting(folder)
    for name, arguments in _calls(log):
        noting.hear(name, arguments)
    return noting.notes


def _calls(log: Path) -> Iterator[tuple[str, str]]:
    """The calls that succeeded, each when it returned."""
    begun: dict[str, str] = {}
    with open(log, encoding="ascii") as lines:
        for line in lines:
            thread, _, text = line.strip().partition(" ")
            text = text.strip()
            if text.endswith("<unfinished ...>"):
                begun[thread] = text.removesuffix("<unfinished ...>").strip()
                continue
            if text.startswith("<..."):
                text = begun.pop(thread) + text.partition("resumed>")[2]
            if (call := _CALL.fullmatch(text)) is not None:
                yield call[1], call[2]


class _Noting:
    """Makes notes of the calls, and knows meanwhile which files there are, and how long."""

    def __init__(self, folder: Path) -> None:
        self.notes: list[Note] = []
        self._folder = folder
        self._sizes: dict[str, int] = {}

    def hear(self, name: str, arguments: str) -> None:
        """A call succeeded."""
        texts = [_decoded(text) for text in _TEXT.findall(arguments)]
        if name in ("openat", "mkdir", "rename", "unlink"):
            paths = [self._within(text) for text in texts]
            if paths[0] is not None:
                self._in_folder(name, arguments, paths[0], paths[-1] or "")
            return
        opened = _FILE.match(arguments)
        file = None if opened is None else self._within(_decoded(opened[1]))
        if file is not None:
            self._in_file(name, file, texts[0] if texts else b"", int(arguments.rpartition(", ")[2].partition("<")[0]))

    def _in_folder(self, name: str, arguments: str, file: str, new: str) -> None:
        if name == "rename":
            self._sizes[new] = self._sizes.pop(file, 0)
            self._note("rename", file, 0, new.encode())
        elif name == "unlink":
            self._sizes.pop(file, None)
            self._note("delete", file)
        elif name == "mkdir" or ("O_CREAT" in arguments and file not in self._sizes):
            self._sizes[file] = 0
            self._note("create", file, 0, b"folder" if name == "mkdir" else b"")

    def _in_file(self, name: str, file: str, data: bytes, number: int) -> None:
        if file == "told":
            self.notes += [Note("told", line) for line in data.decode().split()]
        elif name == "write":
            self._note("write", file, self._sizes[file], data)
            self._sizes[file] += len(data)
        elif name == "pwrite64":
            self._note("write", file, number, data)
        elif name == "ftruncate":
            self._note("truncate", file, number)
        else:
            self._note("sync", file)

    def _note(self, kind: str, file: str, offset: int = 0, data: bytes = b"") -> None:
        if not file.endswith(("-shm", ".lock", "told")):  # made anew by whoever opens the journal; or not part of it
            self.notes.append(Note(kind, file, offset, data))

    def _within(self, path: bytes) -> str | None:
        found = Path(path.decode(errors="replace"))
        return str(found.relative_to(self._folder)) if found.is_relative_to(self._folder) else None


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
