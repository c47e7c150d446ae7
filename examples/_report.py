"""Owns what the alt-text job prints at its end."""

from pathlib import Path

from _one_process import OneProcess

from mpqueue import ItemStatus, Job, JobItem

#: How many of the results are shown.
SHOWN = 6
#: How many failures are shown with their message.
FAILURES_SHOWN = 10
#: Seconds of work; below this, starting the workers and waiting for retries takes most of the time.
TOO_SHORT = 2.0


def print_report(job: Job, seconds: float, workers: int, one_process: OneProcess | None) -> None:
    """Print some results, then the table. ``seconds`` is the job's time from outside, all included."""
    completed = [item for item in job.items if item.status == ItemStatus.COMPLETED]
    _print_some(completed)
    print()
    _print_row("items", job.total, "")
    _print_row("completed", job.completed, "")
    _print_row("retries", sum(max(item.attempts - 1, 0) for item in job.items), "")
    for item in completed:
        if item.payload["kills_worker"]:
            _print_row("worker killed", item.attempts - 1, f"by {_name(item)}, which went well on its next attempt")
    failed = [item for item in job.items if item.status == ItemStatus.FAILED]
    _print_row("failed", len(failed), "")
    for item in failed[:FAILURES_SHOWN]:
        print(f"  - {item.error} ({item.attempts} attempts)")
    if len(failed) > FAILURES_SHOWN:
        print(f"  - and {len(failed) - FAILURES_SHOWN} more; see the result files")
    if one_process is None:
        _print_row("not finished", job.total - job.completed - job.failed, "interrupted")
    _print_row("time", f"{seconds:.1f} s", f"{workers} workers; starting and stopping them included")
    if one_process is not None:
        _print_speed_up(one_process, len(completed), seconds)


def _print_speed_up(one_process: OneProcess, pictures: int, seconds: float) -> None:
    alone = one_process.seconds_for(pictures)
    how = f"a plain loop, {one_process.working / one_process.pictures * 1000:.0f} ms a picture"
    if one_process.pictures < pictures:
        how += f" (measured on {one_process.pictures} of them)"
    _print_row("one process", f"{alone:.1f} s", how)
    remark = "too short a job to gain: starting workers, and waits for retries, count" if alone < TOO_SHORT else ""
    _print_row("speed-up", f"{alone / seconds:.1f} x", remark)


def _print_row(name: str, value: object, remark: str) -> None:
    print(f"{name:<14}{value!s:>8}   {remark}".rstrip())


def _print_some(completed: list[JobItem]) -> None:
    """A few results, spread over all; where the picture came with a description, that too."""
    if not completed:
        return
    print("\nSome of the results (a classifier's labels, made into a sentence):")
    count = min(SHOWN, len(completed))
    for item in (completed[i * len(completed) // count] for i in range(count)):
        print(f"  {_name(item)}: {item.proposed_alt}{_true_description(Path(item.payload['path']))}")


def _name(item: JobItem) -> str:
    return Path(item.payload["file"]).name


def _true_description(picture: Path) -> str:
    description = picture.with_suffix(".txt")
    if not description.is_file():
        return ""
    lines = description.read_text(errors="replace").splitlines()
    return f"  [It is: {lines[0].strip()}]" if lines else ""
