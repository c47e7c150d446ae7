"""What a test may leave behind: nothing. A snapshot of all that could stay, and the difference of two.

Ours is what carries this run's cookie in its environment, or descends from this process; so it is found also when it
made itself a session of its own or lost its parent. Other programs on the machine are not seen, with one exception:
a semaphore's name in /dev/shm does not tell whose it is, so one that only a stranger has mapped is taken for his, and
one that has no name of its own yet for nobody's.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Set for the whole run, so that every process that a test starts carries it, and its children, however far.
COOKIE = "MPQUEUE_TEST_RUN"

_SHM = Path("/dev/shm")
#: What glibc calls a semaphore until it has its name, for some microseconds: stays where a process is killed in them.
_UNNAMED = re.compile(r"/dev/shm/sem\.\w{6}")

#: Processes that a fixture of a wider scope owns, with all that they start: an engine's cluster.
not_ours: set[int] = set()
#: What an engine opens and closes in this process as it likes: how the names of these descriptors begin.
kept_by_engines: set[str] = set()


@dataclass
class Snapshot:
    """All that is ours at one moment, each thing under a key that tells it apart, with words for people."""

    processes: dict[str, str] = field(default_factory=dict)
    threads: dict[str, threading.Thread] = field(default_factory=dict)
    shared_memory: dict[str, str] = field(default_factory=dict)
    temporary_files: dict[str, str] = field(default_factory=dict)
    descriptors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def take(cls) -> Snapshot:
        """Look at everything. Takes about two milliseconds."""
        trackers = _trackers()
        return cls(
            processes=_processes(set(trackers)),
            threads={f"{thread.ident}@{id(thread)}": thread for thread in threading.enumerate()},
            shared_memory={name: f"/dev/shm/{name}" for name in _listing(_SHM)},
            temporary_files=_temporary_files(),
            descriptors=_descriptors(set(trackers.values())),
        )

    def since(self, before: Snapshot) -> dict[str, list[str]]:
        """What is here and was not ``before``: kind -> descriptions, only kinds that have any."""
        found: dict[str, list[str]] = {}
        for kind in ("processes", "threads", "shared_memory", "temporary_files", "descriptors"):
            now, then = getattr(self, kind), getattr(before, kind)
            new = [now[key] for key in now if key not in then]
            if new:
                found[kind] = [_stack(thing) if isinstance(thing, threading.Thread) else thing for thing in new]
        return found


def report(left: dict[str, list[str]]) -> str:
    """``left`` as text for a failing test, with the stacks of threads."""
    lines = ["the test left something behind:"]
    for kind, things in left.items():
        lines.append(f"  {kind.replace('_', ' ')}:")
        lines += [f"    {line}" for thing in things for line in thing.splitlines()]
    return "\n".join(lines)


def without_strangers(left: dict[str, list[str]]) -> dict[str, list[str]]:
    """``left`` less the shared memory that may be somebody else's. Slower: reads what each has mapped."""
    if "shared_memory" not in left:
        return left
    names = [name for name in left["shared_memory"] if not _UNNAMED.fullmatch(name)]
    ours = {int(key.split("@")[0]) for key in _processes(set())} | {os.getpid(), *_trackers()}
    strangers = "".join(_text(f"/proc/{pid}/maps") + _open_files(pid) for pid in _pids() if pid not in ours)
    kept = [name for name in names if name not in strangers and not _names_a_living_stranger(name, ours)]
    rest = {kind: things for kind, things in left.items() if kind != "shared_memory"}
    return rest | ({"shared_memory": kept} if kept else {})


def _names_a_living_stranger(path: str, ours: set[int]) -> bool:
    """Whether ``path`` is named after a process (``sem.loky-123-...``) that lives and is not ours."""
    pids = {int(number) for number in re.findall(r"[-_](\d+)(?=[-_])", path)}
    return any(pid not in ours and os.path.exists(f"/proc/{pid}") for pid in pids)


def kill(left: dict[str, list[str]]) -> None:
    """Kill the processes in ``left``, so that the tests after this one start clean."""
    for description in left.get("processes", []):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(description.split()[1].rstrip(",")), signal.SIGKILL)


def _trackers() -> dict[int, int]:
    """Process id -> pipe of the resource trackers, multiprocessing's and loky's, which serve until this process ends.

    Looked up, never imported: a test that needs neither starts neither.
    """
    found = {}
    for module in ("multiprocessing.resource_tracker", "loky.backend.resource_tracker"):
        tracker: Any = getattr(sys.modules.get(module), "_resource_tracker", None)
        if tracker is not None and tracker._pid is not None:
            found[tracker._pid] = tracker._fd
    return found


def _processes(allowed: set[int]) -> dict[str, str]:
    """Our processes. One without any environment counts too: most likely it is in the middle of an exec, and the next
    look tells; or it threw our cookie away."""
    me = os.getpid()
    cookie = re.compile(rf"{COOKIE}={os.environ.get(COOKIE)}\0|MPQUEUE_LANE={me}(?!\d)".encode())
    households = {*not_ours, *(pid for root in not_ours for pid in descendants(root))}
    pids = set(descendants(me))
    for pid in _pids():
        environment = _bytes(f"/proc/{pid}/environ")
        if cookie.search(environment) or (not environment and _is_program(pid)):
            pids.add(pid)
    return {f"{pid}@{_started(pid)}": _describe(pid) for pid in sorted(pids - allowed - households - {me})}


def _is_program(pid: int) -> bool:
    """Whether it lives and is no thread of the kernel's: these have no executable, nor have the dead."""
    try:
        os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
    return True


def descendants(pid: int) -> Iterator[int]:
    """The children of a process, and theirs."""
    for task in _listing(Path(f"/proc/{pid}/task")):
        for child in _text(f"/proc/{pid}/task/{task}/children").split():
            yield int(child)
            yield from descendants(int(child))


def _describe(pid: int) -> str:
    command = _text(f"/proc/{pid}/cmdline").replace("\0", " ").strip() or "(no command line)"
    state = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()[:2]
    return f"process {pid}, state and parent {' '.join(state) or 'gone'}: {command[:200]}"


def _started(pid: int) -> str:
    """When the process started: with its id, a name that is not given twice."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else "?"


def _stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    lines = traceback.format_stack(frame)[-6:] if frame is not None and thread is not threading.current_thread() else []
    return f"thread {thread.name!r}{' (daemon)' if thread.daemon else ''}\n{''.join(lines)}"


def _temporary_files() -> dict[str, str]:
    # multiprocessing keeps one folder a process, until that ends
    process: Any = sys.modules.get("multiprocessing.process")
    kept = process.current_process()._config.get("tempdir") if process else None
    folder = Path(tempfile.gettempdir())
    paths = [folder / name for name in _listing(folder)]
    return {str(path): str(path) for path in paths if str(path) != kept}


def _open_files(pid: int) -> str:
    found = []
    for name in _listing(Path(f"/proc/{pid}/fd")):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return "\n".join(found)


def _descriptors(allowed: set[int]) -> dict[str, str]:
    found = {}
    for name in _listing(Path("/proc/self/fd")):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the one that the listing itself used
            continue
        if int(name) not in allowed and not target.startswith(tuple(kept_by_engines)):
            found[f"{name} {target}"] = f"descriptor {name}: {target}"
    return found


def _pids() -> Iterable[int]:
    return (int(name) for name in _listing(Path("/proc")) if name.isdigit())


def _listing(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _text(path: str) -> str:
    return _bytes(path).decode(errors="replace")


def _bytes(path: str) -> bytes:
    """A file of /proc, empty where its process has gone or is somebody else's."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
