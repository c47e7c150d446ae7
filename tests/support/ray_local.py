"""A Ray of this process, for all tests that need one."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ray

from tests.support import leaks
from tests.support.programs import is_running
from tests.support.waiting import wait_until

#: What keeps Ray from talking: to the terminal, to its makers, and to this user's home.
QUIET = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_agent_register_timeout_ms": "300000",  # after 30 s a node would end by itself, which a busy machine needs
    "RAY_worker_niceness": "0",  # as everything else here: with Ray's 15, its workers hardly run on a busy machine
}
#: Bytes of its object store.
STORE = 100 << 20
#: Seconds that a node may take to come up, on a busy machine, and that it has to end by itself.
PATIENCE, GRACE = 300.0, 10.0


#: Where the Ray has its files that this process has started last.
_folders = [""]


@contextlib.contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """A node in processes of its own, to which this process is connected; nothing of it is left."""
    os.environ.update(QUIET)
    folder = tempfile.mkdtemp(prefix="r-")  # short: there are sockets in it
    _folders.append(folder)
    before = set(leaks.descendants(os.getpid()))
    ours: set[int] = set()
    try:
        try:
            _start(cpus, folder)
        except Exception:  # it gives itself half a minute, which is not enough where much else is going on
            ray.shutdown()
            _start(cpus, folder)
        finally:
            ours = set(leaks.descendants(os.getpid())) - before
        leaks.not_ours.update(ours)
        leaks.kept_by_engines.add("socket:")  # connections to workers that are gone close some time later
        yield
    finally:
        leaks.kept_by_engines.discard("socket:")
        here = ours.intersection(leaks.descendants(os.getpid()))  # numbers of what has ended may be others' by now
        family = {*here, *(pid for root in here for pid in leaks.descendants(root))}
        ray.shutdown()
        leaks.end(family)
        leaks.not_ours.difference_update(ours)
        shutil.rmtree(folder, ignore_errors=True)


def _start(cpus: int, folder: str) -> None:
    ray.init(
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        object_store_memory=STORE,
        _temp_dir=folder,
    )


def actors_here() -> list[str]:
    """The processes in which an actor of mpqueue's lives, of the Ray of this process: others may run beside it."""
    return [
        f"{path.parent.name} {title}"
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if re.match(r"ray::RayAgent", title := _title(path)) and _folders[-1] in _title(_parent_of(path))
    ]


def _parent_of(path: Path) -> Path:
    """The command line of the node that has started that process."""
    try:
        found = re.search(r"^PPid:\s*(\d+)", path.with_name("status").read_text(), re.MULTILINE)
    except OSError:
        return path
    return path if found is None else path.parent.with_name(found[1]) / "cmdline"


def _title(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


class OtherNode:
    """A second node of the Ray of this process, on the same machine."""

    def __init__(self, resources: dict[str, float]) -> None:
        self._before = _living_nodes()
        self._resources = resources
        self._raylet = 0
        self._is_second = False
        self._workers: set[int] = set()
        self._start()

    def _start(self) -> None:
        address, resources = ray.get_runtime_context().gcs_address, self._resources
        command = ["start", "--address", address, "--block", "--num-cpus", "1", "--resources", json.dumps(resources)]
        command += ["--object-store-memory", str(STORE)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        leaks.not_ours.add(self._process.pid)

    def wait_until_up(self) -> None:
        """Until Ray knows it."""
        wait_until(self._is_up, timeout=PATIENCE, what="the node to be there")
        self._raylet = next(pid for pid in leaks.descendants(self._process.pid) if "raylet" in _name(pid))

    def _is_up(self) -> bool:
        if self._process.poll() is not None and not self._is_second:
            # It ends if Ray does not list it within half a minute, which a busy machine needs.
            leaks.not_ours.discard(self._process.pid)
            self._is_second, self._before = True, _living_nodes()
            self._start()
        return bool(_living_nodes() - self._before)

    def kill_raylet(self) -> None:
        """Kill the process that stands for the node; what it has started then ends by itself."""
        self._workers = set(leaks.descendants(self._raylet))
        os.kill(self._raylet, signal.SIGKILL)

    def has_workers(self) -> bool:
        """Whether one of those that its raylet had started lives."""
        return any(is_running(pid) for pid in self._workers)

    def close(self) -> None:
        """End what is left of it, however far it has come."""
        left = {self._process.pid, *leaks.descendants(self._process.pid), *self._workers}
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        leaks.end(left | set(leaks.descendants(self._process.pid)))
        self._process.wait()
        leaks.not_ours.discard(self._process.pid)


def _living_nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _name(pid: int) -> str:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


@contextlib.contextmanager
def other_node(resources: dict[str, float]) -> Iterator[OtherNode]:
    """A node with one CPU and these resources, that is up."""
    node = OtherNode(resources)
    try:
        node.wait_until_up()
        yield node
    finally:
        node.close()
