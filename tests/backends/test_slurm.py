"""On a real SLURM: a job that is longer than the lifetime of its workers, and the scripts of the documentation.

Runs where ``sinfo`` shows a node that is up, and dask-jobqueue is installed: ``apt-get install slurm-wlm munge``, a
``slurm.conf`` of one node with two CPUs, ``pip install dask-jobqueue``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import dask
import pytest

from mpqueue import JobQueue
from mpqueue.backends import DaskBackend
from tests.support.waiting import wait_until
from tests.test_docs_commands import FOLDER, blocks_of


def _has_slurm() -> bool:
    if shutil.which("sinfo") is None:
        return False
    shown = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, timeout=300, check=False)
    return shown.returncode == 0 and bool({"idle", "mix"} & set(shown.stdout.split()))


pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(not _has_slurm(), reason="no SLURM that is up: see this file's docstring"),
    pytest.mark.timeout(400),
]


def test_a_job_goes_on_through_the_lifetimes_of_its_workers(tmp_path: Path) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    with (
        # how long dask-jobqueue waits before it submits another job for one whose worker has left
        dask.config.set({"distributed.deploy.lost-worker-timeout": "2s"}),
        jobqueue.SLURMCluster(
            cores=1,
            processes=1,
            memory="1GB",
            walltime="00:02:00",
            worker_extra_args=["--lifetime", "15s", "--lifetime-stagger", "2s"],
            job_script_prologue=[f"cd {tmp_path}", f"export PYTHONPATH={Path(__file__).parents[2]}"],
            job_directives_skip=["--mem"],
            log_directory=str(tmp_path),
            local_directory=str(tmp_path),
            scheduler_options={"dashboard_address": "127.0.0.1:0"},
        ) as cluster,
    ):
        cluster.adapt(minimum=0, maximum=2, interval="500ms")
        with JobQueue(None, backend=DaskBackend(cluster)) as queue:
            job = queue.run([1.0] * 70, _nap, max_retries=0)
    assert job.completed == 70
    assert len(set(job.results)) >= 5, "two workers, two lifetimes, and those after them"
    wait_until(lambda: not _jobs_left(), what="the SLURM jobs to be gone")


def _nap(seconds: float) -> str:
    threading.Event().wait(seconds)
    return os.environ["SLURM_JOB_ID"]


def _jobs_left() -> str:
    return _said("squeue", "-h")


def test_scripts_of_the_page_run_and_a_drained_one_is_queued_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("LIMIT", "1s")
    for block in blocks_of((FOLDER / "slurm-and-kubernetes.md").read_text()):
        if block.title:
            (tmp_path / block.title).write_text(block.text)
    (tmp_path / "names.txt").write_text("".join(f"picture-{at}\n" for at in range(40)))

    _submit(tmp_path, "--wait", "array.sh")
    assert sum(len((tmp_path / f"labels-{task}.jsonl").read_text().splitlines()) for task in range(4)) == 40

    job = _submit(tmp_path, "labels.sh")
    try:
        wait_until(lambda: "Restarts=1" in _said("scontrol", "show", "job", job), what="the requeue")
        assert (tmp_path / "journal" / "run.db").exists()
    finally:
        _said("scancel", job)
    wait_until(lambda: not _jobs_left(), what="the SLURM jobs to be gone")


def _submit(folder: Path, *options: str) -> str:
    return _said("sbatch", "--parsable", "--cpus-per-task=2", *options, cwd=folder).strip()


def _said(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200, check=True).stdout
