"""What a program has its signals do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.programs import run_program

pytestmark = pytest.mark.slow

# --- SIGPIPE ends the program -----------------------------------------------------------------------------------------

BROKEN_PIPES = """
    import os, signal
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    import mpqueue

    def die_at_each_fifth(item):
        number, _ = item
        if number % 5 == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    if __name__ == "__main__":
        with mpqueue.JobQueue(2, {options}) as queue:
            # So long that something is often being written when a worker dies.
            items = [(number, bytes(100_000)) for number in range(40)]
            job = queue.run(items, die_at_each_fifth, chunksize=1, max_retries=0)
            print(job.completed, job.failed)
"""


@pytest.mark.parametrize("options", ["", "preload=['json']"], ids=["started", "forked"])
def test_where_sigpipe_ends_programs_a_worker_s_death_does_not(options: str, tmp_path: Path) -> None:
    done = run_program(tmp_path, BROKEN_PIPES.format(options=options))
    assert (done.stdout, done.stderr) == ("32 8\n", "")


def test_where_sigpipe_ends_programs_a_worker_that_never_stands_does_not(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "sitecustomize.py").write_text("import os; os._exit(3)")
    body = """
        import os, signal
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        import mpqueue

        os.environ["PYTHONPATH"] = f"{os.getcwd()}/workers:{os.environ.get('PYTHONPATH', '')}"
        try:
            with mpqueue.JobQueue(1) as queue:
                queue.run([1], abs)
        except mpqueue.WorkerStartError:
            print("no worker")
    """
    assert run_program(tmp_path, body).stdout == "no worker\n"
