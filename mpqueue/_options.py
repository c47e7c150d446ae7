"""The options of a queue and of a job, checked once, frozen afterwards.

Every value that a user passes is judged here, in the caller's frame; the engine trusts what it gets.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import random
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from mpqueue._declared import At, Plain, ValueKind, option, options_at, read_keys
from mpqueue._os import system
from mpqueue._os.process.own_forks import in_each_fork
from mpqueue._plain import plain
from mpqueue.errors import shown
from mpqueue.retry import RetryPolicy, check_number, check_seconds

if TYPE_CHECKING:
    from mpqueue._core.state.stated_needs import Uses
    from mpqueue._keywords import PerWorker
    from mpqueue._output.progress import ShowProgress
    from mpqueue._output.row_outlet import Results
    from mpqueue._parent.lane_protocol import Backend
    from mpqueue._queue.new_job import Cost
    from mpqueue._queue.recorded.record_options import Rerun
    from mpqueue._wire.item_names import Label

#: Tries after the first, by default.
DEFAULT_MAX_RETRIES = 3
#: The highest port that there is.
MOST_PORT = 65535
#: A number of bytes as text: 2GB, 1.5 GiB, 800m.
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?))?b?\s*", re.IGNORECASE | re.ASCII)
LONGEST_SIZE = 40
#: Bytes that no worker gets along with: a number below that is of another unit.
LEAST_MEMORY = 1_000_000
#: How many workers there are: one for each core; in the place of a number.
PHYSICAL = "physical"
#: A number of workers, one for each core, or (None) for each CPU.
Concurrency = int | Literal["physical"] | None
#: What a call does with the items that failed for good: all of them after the end, or each in its place.
OnError = Literal["raise", "collect", "skip", "group"]
OnItemError = Literal["raise", "collect", "skip"]
#: A time in seconds; where it is given, also a text such as "5m" or "1h30m", see `check_seconds`.
Seconds = float
#: More than any machine can run; each has its place in the books before it is started, so that a slip of the hand (a
#: number of items, say) would take all memory instead.
MOST_WORKERS = 10_000


#: What CUDA reads once, when a process first uses it, to know which GPUs there are.
DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
#: A GPU as CUDA calls it: its number, or its id.
_DEVICE = re.compile(r"[0-9]+|(GPU|MIG)-\S+")
#: Of each resource there are at most so many: each unit has its place in the books.
MOST_UNITS = 100_000


#: Where seeds come from: the system was asked once, since each time that lets go of the interpreter.
_seeds = random.Random()
in_each_fork(_seeds.seed)


def draw_seed() -> int:
    """A seed that has not been used before."""
    return _seeds.getrandbits(128)


def named_seed(seed: int, name: str) -> int:
    """A seed for a part of what has ``seed``: it depends on these two only, and is like no other."""
    import hashlib  # which takes a program 3 ms of its first

    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:16])


# -- the options, each declared once ---------------------------------------------------------------------------------


def check_text(name: str, value: object) -> str:
    """Return the text, plain. Raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, got {shown(value)} of type {type(value).__name__}")
    text: str = plain(value)
    return text


def check_bool(name: str, value: object) -> bool:
    """Return the value. Raises TypeError unless it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {shown(value)}")
    return value


def _whole(low: int) -> ValueKind:
    def check(name: str, value: Any) -> Any:
        check_number(name, value, low=low, integer=True)
        return value

    return ValueKind(check, int, "N", f"a whole number from {low} up")


def _check_whole(name: str, value: Any) -> Any:
    if issubclass(type(value), bool) or not issubclass(type(value), int):
        raise TypeError(f"{name}: expected a whole number, got {shown(value)} of type {type(value).__name__}")
    return value


def _check_time(name: str, value: Any) -> float:
    return check_seconds(name, value, exclusive=True)


def _check_memory(name: str, value: Any) -> int:
    return memory_limit(name, value)


def _check_per_worker(name: str, value: Any) -> WorkerOptions:
    return read_keys(WorkerOptions, At.WORKER, name, value)


#: 0, 1, 2 and so on; and from 1 up.
COUNT, POSITIVE = _whole(0), _whole(1)
WHOLE = ValueKind(_check_whole, int, "N", "a whole number")
SECONDS = ValueKind(_check_time, str, "T")
MEMORY = ValueKind(_check_memory)
YES_NO = ValueKind(check_bool)
TEXT = ValueKind(check_text, str, "TEXT")

_ONE_JOB = At.JOB | At.OPEN
_JOBS = _ONE_JOB | At.STAGES
_CALLS = At.MAP | At.STREAM
_DROP_INS = _CALLS | At.STAGED_MAP
_TRIES = At.QUEUE | _ONE_JOB | At.STAGE | _DROP_INS | At.POOL


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """The options of each worker of a queue: the keys of ``per_worker``."""

    threads: int | None = option(
        None, At.WORKER, "Threads of numerical libraries (BLAS, OpenMP); None: CPUs / workers.", POSITIVE
    )
    items: int | None = option(None, At.WORKER, "It is replaced after so many items.", POSITIVE)
    memory: int | str | None = option(
        None, At.WORKER, 'It is replaced when it has more private memory: bytes, or `"2GB"`.', MEMORY
    )
    setup_timeout: Seconds | None = option(None, At.WORKER, "The time that one run of a `setup` may take.", SECONDS)


NO_LIMITS = WorkerOptions()


@dataclass(frozen=True)
class QueueOptions(Plain):
    """The options of a whole queue. ``concurrency`` is a number of workers, times are seconds."""

    concurrency: int
    retry: RetryPolicy
    timeout: float | None = None
    progress_interval: float = 0.0
    per_worker: WorkerOptions = NO_LIMITS  #: memory in bytes
    resources: Mapping[str, int] = field(
        default_factory=dict
    )  #: what items may use, beside workers: by name; memory in bytes
    gpu_env: bool = False  #: a worker sees only the GPUs that its items hold
    devices: tuple[str, ...] = ()  #: what CUDA calls each unit of "gpu", with ``gpu_env``
    may_grow: bool = False  #: no number of workers was given: all that there is room for, also later


@dataclass(frozen=True, kw_only=True)
class WhileRunning:
    """Options of a job that are looked at while it runs."""

    priority: int = option(
        0, _JOBS, "The job with the higher one goes first; of equal ones the workers are shared.", WHOLE
    )
    chunksize: int | None = option(
        None, _ONE_JOB | At.STAGE | _CALLS, "How many items are sent together; None: as many as take 45 ms.", POSITIVE
    )
    capture_output: bool = option(
        False, _ONE_JOB | At.STAGE | At.COMMAND, "Keep what items write to stdout and stderr with them.", YES_NO,
        flag="--capture-output",
    )  # fmt: skip
    max_failures: int | None = option(
        None,
        _JOBS | _DROP_INS | At.COMMAND,
        "Stop when more items than that have failed.",
        COUNT,
        flag="--max-failures",
    )
    deadline: Seconds | None = option(
        None, _JOBS | At.COMMAND, "Start no more items so long after the start; running items may finish.", SECONDS,
        flag="--deadline",
    )  # fmt: skip
    max_waiting: int | None = option(
        None, At.OPEN | At.STAGE, "How many items may wait for a worker, of an open job or in a stage.", POSITIVE
    )
    profile: bool = option(
        False, _JOBS, "Sample where handlers are, and keep each chunk's times: `Job.profile`, `Job.trace`.", YES_NO
    )


@dataclass(frozen=True, kw_only=True)
class GivenOptions(WhileRunning):
    """The options that a call was given, checked one by one by `mpqueue._declared.read`."""

    concurrency: Concurrency = option(
        None, At.QUEUE | _ONE_JOB | At.STAGE | _DROP_INS, "How many workers run its items at a time at most; None: all."
    )
    max_retries: int | None = option(None, _TRIES, "Tries after the first, by default 3.", COUNT)
    retry: RetryPolicy | None = option(None, _TRIES, "Which errors are tried again, how often and when.")
    timeout: Seconds | None = option(
        None, _TRIES | At.COMMAND, "The time that one try of one item may take.", SECONDS, flag="--timeout"
    )
    setup: Callable[[], Any] | None = option(
        None, _ONE_JOB | At.STAGE, "Called once in each worker; its value is the handler's second argument."
    )
    seed: int | None = option(
        None, _JOBS | _DROP_INS | At.POOL, "Makes `current_item().rng` give the same numbers each time.", COUNT
    )
    cost: Cost = option(None, At.JOB, "What items cost: the costliest go first.")
    uses: Uses | None = option(
        None,
        _ONE_JOB | At.STAGE,
        'What an item needs while it runs: `{"cpu": 2, "memory": "4GB", "gpu": 1}`.',
    )
    results: Results = option("keep", _JOBS, 'Where results go: `"keep"`, `"discard"`, or a sink.')
    label: Label = option(None, _JOBS, "A function of the item, or its key or attribute, that names it.")
    ordered: bool = option(False, At.STAGE, "The stage gets its items in the order of the inputs.", YES_NO)
    rerun: Rerun | None = option(
        None, _JOBS | _CALLS, "What a later run does with a job that the journal has, such as `Rerun(update=True)`."
    )
    replace: bool = option(False, _ONE_JOB, "Removes the job that has this id, if it is not running.", YES_NO)
    # -- of the queue
    progress_interval: Seconds = option(
        0.0, At.QUEUE, "At most one `job:progress` event in that time.", ValueKind(check_seconds)
    )
    per_worker: PerWorker | None = option(
        None,
        At.QUEUE,
        'Limits of each worker, such as `{"items": 1000, "memory": "2GB"}`.',
        ValueKind(_check_per_worker),
    )
    journal: str | os.PathLike[str] | None = option(
        None, At.QUEUE | _CALLS, "A file that records how items end: the same program, run again, goes on."
    )
    backend: str | Backend = option("loky", At.QUEUE | _DROP_INS | At.POOL, "The engine that the workers run on.")
    initializer: Callable[[], object] | None = option(
        None, At.QUEUE, "Called once in each new worker, before anything else."
    )
    preload: Sequence[str] | Callable[[], object] | None = option(
        None, At.QUEUE, "Modules, or a function, of the process from which workers are forked; loky on Linux."
    )
    resources: Mapping[str, int | str] | None = option(
        None, At.QUEUE, 'What items may use besides workers: `{"gpu": 2, "memory": "16GB"}`.'
    )
    gpu_env: bool = option(
        False, At.QUEUE | At.COMMAND, "A worker sees only the GPUs of its items: `CUDA_VISIBLE_DEVICES`.", YES_NO,
        flag="--gpu-env",
    )  # fmt: skip
    # -- of map and its kin
    progress: ShowProgress = option(False, _DROP_INS, "True for a bar, or a function that gets a `Progress`.")
    job_id: str | None = option(None, _CALLS, "The call's name in the journal; None: the function's.", TEXT)
    buffersize: int | None = option(
        None, At.STREAM, "How many items are read ahead; None: as many as keep the workers busy.", POSITIVE
    )


@dataclass(frozen=True)
class JobOptions(WhileRunning, Plain):
    """The options of one job, with the queue's options already folded in."""

    retry: RetryPolicy
    timeout: float | None = None
    setup_timeout: float | None = None
    max_lanes: int | None = None  #: how many workers may run its items at a time; None: all
    items_per_task: int = 1  #: how many of its items count as one of those after which a worker is replaced
    seed: int = field(default_factory=draw_seed)  #: of its items' random numbers


_WHILE_RUNNING = frozenset(options_at(WhileRunning, ~At(0)))


def check_platform(platform: str = system.NAME) -> None:
    """Raise NotImplementedError under Cygwin, whose processes are neither POSIX's nor Windows's."""
    if platform == "cygwin":
        raise NotImplementedError(
            f"mpqueue runs on Linux, macOS and Windows; this is {platform!r}. Use Python for Windows, or WSL."
        )


def check_interpreter(version: str = sys.version) -> None:
    """Raise NotImplementedError on a free-threaded build of Python, which says in its version that it is one."""
    if "free-threading build" in version:
        raise NotImplementedError(
            f"mpqueue runs on builds of Python that have the GIL; this is a free-threaded one: {version!r}. Its own "
            "threads rely on the GIL. Use the other build of the same Python: python3.14 instead of python3.14t."
        )


def queue_options(
    asked: GivenOptions, *, count_cpus: Callable[[], int], count_cores: Callable[[], int] | None = None
) -> QueueOptions:
    """Return the options of a queue; ``count_cpus`` is called only if ``concurrency`` is None.

    ``count_cores``: None where the workers are on other machines. Raises TypeError or ValueError.
    """
    workers = choose_concurrency(asked.concurrency, count_cores)
    if workers is None:
        workers = count_cpus()
        check_concurrency(workers)
    units = check_resources(asked.resources)
    if asked.gpu_env and "gpu" not in units:
        raise ValueError(
            'gpu_env: expected False, or a number of GPUs as in resources={"gpu": 2}, got True and '
            f"resources={shown(asked.resources)}"
        )
    return QueueOptions(
        concurrency=workers,
        retry=choose_policy("JobQueue", asked, RetryPolicy(max_retries=DEFAULT_MAX_RETRIES)),
        timeout=asked.timeout,
        progress_interval=asked.progress_interval,
        per_worker=asked.per_worker or NO_LIMITS,  # type: ignore[arg-type] # as its check makes it
        resources=units,
        gpu_env=asked.gpu_env,
        devices=_devices(units["gpu"]) if asked.gpu_env else (),
        may_grow=asked.concurrency is None,
    )


def job_options(
    queue: QueueOptions, asked: GivenOptions, *, where: str = "create_job", count_cores: Callable[[], int] | None = None
) -> JobOptions:
    """Return the options of a job: its own go before the queue's. Raises TypeError or ValueError."""
    return JobOptions(
        retry=choose_policy(where, asked, queue.retry),
        timeout=queue.timeout if asked.timeout is None else asked.timeout,
        setup_timeout=queue.per_worker.setup_timeout,
        max_lanes=choose_concurrency(asked.concurrency, count_cores),
        seed=draw_seed() if asked.seed is None else asked.seed,
        **while_running(asked),
    )


def while_running(asked: GivenOptions) -> dict[str, Any]:
    """Return the given options that `JobOptions` has too, by name."""
    given = vars(asked)
    return {name: given[name] for name in _WHILE_RUNNING & given.keys()}


def memory_limit(name: str, value: int | str, platform: str = system.NAME) -> int:
    """A worker's limit in bytes. Raises NotImplementedError where the system does not tell what is used."""
    if platform != "linux":
        raise NotImplementedError(
            f"{name}: the memory of workers is known on Linux only, this is {platform!r}; leave it out"
        )
    from mpqueue._os.memory import memory_use  # most programs have no limit

    if platform == system.NAME and (why := memory_use.why_not_told()) is not None:
        raise NotImplementedError(f"{name}: the memory of workers is not known, since {why}, or leave it out")
    size = size_in_bytes(name, value)
    if size < LEAST_MEMORY and not isinstance(value, str):
        raise ValueError(
            f'{name}: expected the bytes that a worker may have, got {shown(value)}; did you mean "{size}GB"?'
        )
    return size


def size_in_bytes(name: str, value: int | str, low: int = 1) -> int:
    """A number of bytes, also given as text. Raises TypeError or ValueError."""
    if not isinstance(value, str):
        check_number(name, value, low=low, integer=True)
        return int.__index__(value)
    found = _SIZE.fullmatch(value) if len(value) <= LONGEST_SIZE else None
    if found is None:
        raise ValueError(
            f'{name}: expected a number of bytes or a text such as "2GB", "1.5 GiB" or "800MB", got {value!r:.60}'
        )
    number, unit, binary = found.groups()
    size = int(float(number) * (1024 if binary else 1000) ** " kmgt".index((unit or " ").lower()))
    if size < low:
        raise ValueError(f"{name}: expected at least {low} byte, got {value!r}")
    return size


def check_resources(resources: Mapping[str, int | str] | None) -> Mapping[str, int]:
    """Return the resources, memory in bytes. Raises TypeError or ValueError for names or numbers that make no sense."""
    if resources is None:
        return {}
    if not isinstance(resources, Mapping):
        raise TypeError(f"resources: expected a mapping of names to numbers, got {shown(resources)}")
    checked = {}
    for given, count in resources.items():
        name = plain(given)
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"resources: expected names such as 'gpu' or 'license', got {shown(given)}")
        if name in ("cpu", "cpus"):
            raise ValueError(f"resources: expected no {name!r}, which concurrency= sets, got {shown(resources)}")
        if name == "memory":
            checked[name] = size_in_bytes("resources['memory']", count)
            continue
        if isinstance(count, str):
            raise TypeError(f"resources[{name!r}]: expected a whole number, got {shown(count)}")
        check_number(f"resources[{name!r}]", count, low=0, integer=True)
        if count > MOST_UNITS:
            raise ValueError(f"resources[{name!r}]: expected at most {MOST_UNITS:,}, got {count}")
        checked[name] = plain(count)
    return checked


def _devices(units: int) -> tuple[str, ...]:
    """Return CUDA's names for so many GPUs. Raises ValueError if this process may see fewer."""
    given = os.environ.get(DEVICES_VARIABLE)
    if given is None:
        return tuple(map(str, range(units)))
    # CUDA reads up to the first that is none; one that is named twice is one GPU.
    named = itertools.takewhile(_DEVICE.fullmatch, map(str.strip, given.split(",")))
    devices = tuple(dict.fromkeys(named))
    if len(devices) < units:
        raise ValueError(
            f"gpu_env: expected {DEVICES_VARIABLE} to name at least as many GPUs as resources has units, {units}, got "
            f'{given!r}, which names {len(devices)}; pass resources={{"gpu": {len(devices)}}}, or change the variable '
            "before you start the program"
        )
    return devices[:units]


def check_preload(preload: object) -> tuple[str, ...] | Callable[[], object] | None:
    """Names of modules that there are, or a function. Raises TypeError or ValueError for anything else."""
    if preload is None or callable(preload):
        return preload
    names = (preload,) if isinstance(preload, str) else preload
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"preload: expected a list of names of modules, or a function, got {shown(preload)} of type "
            f"{type(preload).__name__}"
        )
    for name in names:
        top = name.partition(".")[0]
        try:
            found = top in sys.modules or importlib.util.find_spec(top) is not None
        except (ImportError, ValueError):
            found = False
        if not found:
            raise ValueError(f"preload: expected names of modules, got {shown(name)}, which can't be found here")
    return tuple(map(plain, names))


def choose_policy(where: str, asked: GivenOptions, above: RetryPolicy) -> RetryPolicy:
    """The policy that was asked for, or the one ``above``; a bare ``max_retries`` keeps the delays of that."""
    max_retries, retry = asked.max_retries, asked.retry
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise TypeError(f"retry: expected a RetryPolicy, got {shown(retry)} of type {type(retry).__name__}")
    if max_retries is None:
        return retry or above
    if retry is not None:
        raise ValueError(
            f"{where}: expected max_retries or retry, got both (max_retries={shown(max_retries)}, retry={shown(retry)})"
        )
    return replace(above, max_retries=max_retries)


def check_address(host: object, port: object, hosts: object) -> tuple[str, int, tuple[str, ...]]:
    """Return the arguments of `serve`, checked. Raises TypeError or ValueError."""
    if not isinstance(host, str) or not host:
        raise TypeError(f"host: expected a name or an address, got {shown(host)} of type {type(host).__name__}")
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port: expected a whole number, got {shown(port)} of type {type(port).__name__}")
    if not 0 <= port <= MOST_PORT:
        raise ValueError(f"port: expected 0 (any free one) to {MOST_PORT}, got {shown(port)}")
    names: tuple[Any, ...] = (None,)
    if isinstance(hosts, Iterable) and not isinstance(hosts, str):
        with contextlib.suppress(TypeError):
            names = tuple(name for name in hosts)  # counted as they come, whatever length they claim to have
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"hosts: expected a list of names, got {shown(hosts)} of type {type(hosts).__name__}")
    return host, port, names


def choose_concurrency(
    value: Concurrency, count_cores: Callable[[], int] | None, name: str = "concurrency"
) -> int | None:
    """The number of workers; None: as many as there is room for.

    Raises TypeError or ValueError, in which the argument has this ``name``, for anything else.
    """
    if isinstance(value, str):
        if value != PHYSICAL:
            raise TypeError(
                f"{name}: expected a number of workers, {PHYSICAL!r} or None, got {shown(value)} of type str"
            )
        if count_cores is None:
            raise ValueError(
                f"{name}: expected a number of workers, or None for all that the engine has, got {PHYSICAL!r}, "
                "which counts the cores of this machine"
            )
        return count_cores()
    if value is not None:
        check_concurrency(value, name)
    return value


def check_concurrency(value: int, name: str = "concurrency") -> None:
    """Raise TypeError or ValueError unless it is a number of workers."""
    check_number(name, value, low=1, integer=True)
    if value > MOST_WORKERS:
        raise ValueError(f"{name}: expected at most {MOST_WORKERS:,} workers, got {shown(value)}")


def check_on_error(value: object, known: tuple[str, ...]) -> None:
    """Raise ValueError for a mode that there is not."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"on_error: expected one of {', '.join(map(repr, known))}, got {shown(value)}")


def check_prune(job_id: object, gone: object) -> None:
    """Raise TypeError or ValueError for what `JobQueue.prune` does not take."""
    if job_id is not None:
        check_text("job_id", job_id)
    check_bool("gone", gone)
