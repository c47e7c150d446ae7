"""The options of a queue and of a job, checked once, frozen afterwards.

Every value that a user passes is checked here, in the caller's frame; the engine trusts its options.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import math
import os
import random
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mpqueue._declared import At, ValueKind, option, options_at, read_keys
from mpqueue._os import system
from mpqueue._os.process_handle import in_each_fork
from mpqueue._plain import plain
from mpqueue.errors import shown
from mpqueue.retry import RetryPolicy, check_number, check_seconds

if TYPE_CHECKING:
    from mpqueue._core.state.resources import Uses
    from mpqueue._keywords import PerWorker
    from mpqueue._output.progress import ShowProgress
    from mpqueue._output.row_outlet import Results
    from mpqueue._parent.lane_protocol import Backend
    from mpqueue._queue.arguments import Cost
    from mpqueue._queue.recorded.record_options import Rerun
    from mpqueue._wire.item_names import Label

#: The highest port number.
MOST_PORT = 65535
#: A number of bytes as text: 2GB, 1.5 GiB, 800m.
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?))?b?\s*", re.IGNORECASE | re.ASCII)
LONGEST_SIZE = 40
#: The least memory of a worker, in bytes: a lower number was meant in another unit.
LEAST_MEMORY = 1_000_000
#: In place of a number of workers: one for each core.
PHYSICAL = "physical"
#: A number of workers, one for each core, or (None) for each CPU.
Concurrency = int | Literal["physical"] | None
#: How a call treats items that failed for good: all of them after the end, or each in its place.
OnError = Literal["raise", "collect", "skip", "group"]
OnItemError = Literal["raise", "collect", "skip"]
#: A time in seconds; users may also give a text such as "5m" or "1h30m", see `check_seconds`.
Seconds = float
#: More workers than any machine can run. Each takes room in the books before it starts, so a wrong number (that of the
#: items, say) would otherwise use up the memory.
MOST_WORKERS = 10_000


#: The variable by which CUDA knows the GPUs that a process may use; it is read once, at first use.
DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
#: CUDA's name of a GPU: its number, or its id.
_DEVICE = re.compile(r"[0-9]+|(GPU|MIG)-\S+")
#: The most units of one resource: each unit takes room in the books.
MOST_UNITS = 100_000


#: The source of seeds. The system is asked once: each such call releases the interpreter's lock.
_seeds = random.Random()
in_each_fork(_seeds.seed)


def draw_seed() -> int:
    """Return a seed that has not been used before."""
    return _seeds.getrandbits(128)


def named_seed(seed: int, name: str) -> int:
    """Return the seed of a named part; it depends on ``seed`` and ``name`` only, and differs from all others."""
    import hashlib  # the first import takes 3 ms

    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:16])


# -- the options, each declared once -----------------------------------------------------------------------------------


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


def check_progress(name: str, value: Any) -> Any:
    """Return the value. Raises TypeError unless it is True, False or a callable."""
    if not isinstance(value, bool) and not callable(value):
        raise TypeError(
            f"{name}: expected True, False or a callable, got {shown(value)} of type {type(value).__name__}"
        )
    return value


def memory_limit(name: str, value: int | str, platform: str = system.NAME) -> int:
    """A worker's limit in bytes. Raises NotImplementedError if the system does not report the memory of a process."""
    if platform != "linux":
        raise NotImplementedError(
            f"{name}: the memory of workers is known on Linux only, this is {platform!r}; leave it out"
        )
    from mpqueue._os import process_facts

    if platform == system.NAME and (why := process_facts.why_not_told()) is not None:
        raise NotImplementedError(f"{name}: the memory of workers is not known, since {why}, or leave it out")
    size = size_in_bytes(name, value)
    if size < LEAST_MEMORY and not isinstance(value, str):
        raise ValueError(
            f'{name}: expected the bytes that a worker may have, got {shown(value)}; did you mean "{size}GB"?'
        )
    return size


def size_in_bytes(name: str, value: int | str, low: int = 1) -> int:
    """Return a number of bytes, which may be given as text. Raises TypeError or ValueError."""
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


def _whole(low: float, word: str) -> ValueKind:
    return ValueKind(partial(check_number, low=low, integer=True), int, "N", word)


COUNT, POSITIVE = _whole(0, "a whole number from 0 up"), _whole(1, "a whole number from 1 up")
WHOLE = _whole(-math.inf, "a whole number")
SECONDS = ValueKind(partial(check_seconds, exclusive=True), str, "T")
MEMORY = ValueKind(memory_limit)
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
    items: int | None = option(None, At.WORKER, "A worker is replaced after this many items.", POSITIVE)
    memory: int | str | None = option(
        None, At.WORKER, 'A worker with more private memory is replaced: bytes, or `"2GB"`.', MEMORY
    )
    setup_timeout: Seconds | None = option(None, At.WORKER, "The time that one run of a `setup` may take.", SECONDS)


NO_LIMITS = WorkerOptions()


@dataclass(frozen=True)
class QueueOptions:
    """The options of a whole queue. ``concurrency`` is a number of workers, times are seconds."""

    concurrency: int
    retry: RetryPolicy
    timeout: float | None = None
    progress_interval: float = 0.0
    per_worker: WorkerOptions = NO_LIMITS  #: memory in bytes
    resources: Mapping[str, int] = field(
        default_factory=dict
    )  #: by name: how much of it items may use at a time; memory in bytes
    gpu_env: bool = False  #: a worker sees only the GPUs that its items hold
    devices: tuple[str, ...] = ()  #: what CUDA calls each unit of "gpu", with ``gpu_env``
    may_grow: bool = False  #: no number of workers was given: as many as there is room for, also later


@dataclass(frozen=True, kw_only=True)
class WhileRunning:
    """Options of a job that are read while it runs."""

    priority: int = option(0, _JOBS, "Jobs with a higher priority go first; equal ones share the workers.", WHOLE)
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
        "Stop if more items than this have failed.",
        COUNT,
        flag="--max-failures",
    )
    deadline: Seconds | None = option(
        None, _JOBS | At.COMMAND, "Start no more items after this time; running items may finish.", SECONDS,
        flag="--deadline",
    )  # fmt: skip
    max_waiting: int | None = option(
        None, At.OPEN | At.STAGE, "How many items of an open job, or in a stage, may wait for a worker.", POSITIVE
    )
    profile: bool = option(False, _JOBS, "Sample where handlers are: `Job.profile`.", YES_NO)


@dataclass(frozen=True, kw_only=True)
class GivenOptions(WhileRunning):
    """The options that a call was given, checked one by one by `mpqueue._declared.read`."""

    concurrency: Concurrency = option(
        None,
        At.QUEUE | _ONE_JOB | At.STAGE | _DROP_INS,
        "At most this many workers run its items at a time; None: all.",
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
        0.0, At.QUEUE, "The least time between two `job:progress` events.", ValueKind(check_seconds)
    )
    per_worker: PerWorker | None = option(
        None,
        At.QUEUE,
        'Limits of each worker, such as `{"items": 1000, "memory": "2GB"}`.',
        ValueKind(partial(read_keys, WorkerOptions, At.WORKER)),
    )
    journal: str | os.PathLike[str] | None = option(
        None, At.QUEUE | _CALLS, "A file that records how items end: the same program, run again, goes on."
    )
    backend: str | Backend = option("loky", At.QUEUE | _DROP_INS | At.POOL, "The engine that the workers run on.")
    initializer: Callable[[], object] | None = option(
        None, At.QUEUE, "Called once in each new worker, before anything else."
    )
    preload: Sequence[str] | Callable[[], object] | None = option(
        None,
        At.QUEUE,
        "Modules to import, or a function to call, in the process that forks the workers; loky on Linux.",
    )
    resources: Mapping[str, int | str] | None = option(
        None, At.QUEUE, 'What items may use besides workers: `{"gpu": 2, "memory": "16GB"}`.'
    )
    gpu_env: bool = option(
        False, At.QUEUE | At.COMMAND, "A worker sees only the GPUs of its items: `CUDA_VISIBLE_DEVICES`.", YES_NO,
        flag="--gpu-env",
    )  # fmt: skip
    # -- of map and its kin
    progress: ShowProgress = option(
        False, _DROP_INS | At.POOL, "True for a bar, or a function that gets a `Progress`.", ValueKind(check_progress)
    )
    job_id: str | None = option(None, _CALLS, "The call's name in the journal; None: the function's.", TEXT)
    buffersize: int | None = option(
        None, At.STREAM, "How many items are read ahead; None: as many as keep the workers busy.", POSITIVE
    )


@dataclass(frozen=True)
class JobOptions(WhileRunning):
    """The options of one job, with the queue's options already folded in."""

    retry: RetryPolicy
    timeout: float | None = None
    setup_timeout: float | None = None
    max_lanes: int | None = None  #: how many workers may run its items at a time; None: all
    items_per_task: int = 1  #: by how many one of its items adds to the count after which a worker is replaced
    seed: int = field(default_factory=draw_seed)  #: the seed of its items' random numbers
    stops_at_once: bool = False  #: if it stops early, running items are ended too


_WHILE_RUNNING = frozenset(options_at(WhileRunning, ~At(0)))


def check_platform(platform: str = system.NAME) -> None:
    """Raise NotImplementedError under Cygwin, whose processes are neither POSIX's nor Windows's."""
    if platform == "cygwin":
        raise NotImplementedError(
            f"mpqueue runs on Linux, macOS and Windows; this is {platform!r}. Use Python for Windows, or WSL."
        )


def check_interpreter(version: str = sys.version) -> None:
    """Raise NotImplementedError on a free-threaded build of Python, known by its version text."""
    if "free-threading build" in version:
        raise NotImplementedError(
            f"mpqueue runs on builds of Python that have the GIL; this is a free-threaded one: {version!r}. Its own "
            "threads rely on the GIL. Use the other build of the same Python: python3.14 instead of python3.14t."
        )


def queue_options(
    asked: GivenOptions, *, count_cpus: Callable[[], int], count_cores: Callable[[], int] | None = None
) -> QueueOptions:
    """Return the options of a queue; ``count_cpus`` is called only if ``concurrency`` is None.

    ``count_cores`` is None if the workers are on other machines. Raises TypeError or ValueError.
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
        retry=choose_policy("JobQueue", asked, RetryPolicy()),
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
    """Return the options of a job; its own override the queue's. Raises TypeError or ValueError."""
    given = vars(asked)
    return JobOptions(
        retry=choose_policy(where, asked, queue.retry),
        timeout=queue.timeout if asked.timeout is None else asked.timeout,
        setup_timeout=queue.per_worker.setup_timeout,
        max_lanes=choose_concurrency(asked.concurrency, count_cores),
        seed=draw_seed() if asked.seed is None else asked.seed,
        **{name: given[name] for name in _WHILE_RUNNING & given.keys()},
    )


def check_resources(resources: Mapping[str, int | str] | None) -> Mapping[str, int]:
    """Return the resources, memory in bytes. Raises TypeError or ValueError for invalid names or numbers."""
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
    """Return CUDA's names of that many GPUs. Raises ValueError if this process may see fewer."""
    given = os.environ.get(DEVICES_VARIABLE)
    if given is None:
        return tuple(map(str, range(units)))
    # CUDA stops reading at the first invalid name; a name that occurs twice is one GPU.
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
    """Return the names of existing modules, or the function. Raises TypeError or ValueError for anything else."""
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
    """Return the given policy, or the one ``above``; ``max_retries`` alone keeps the delays of the one ``above``."""
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
            names = tuple(name for name in hosts)  # counted one by one: an object's own length may be wrong
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"hosts: expected a list of names, got {shown(hosts)} of type {type(hosts).__name__}")
    return host, port, names


def choose_concurrency(
    value: Concurrency, count_cores: Callable[[], int] | None, name: str = "concurrency"
) -> int | None:
    """Return the number of workers; None: as many as there is room for."""
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
    """Raise TypeError or ValueError unless the value is a number of workers."""
    check_number(name, value, low=1, integer=True)
    if value > MOST_WORKERS:
        raise ValueError(f"{name}: expected at most {MOST_WORKERS:,} workers, got {shown(value)}")


def check_on_error(value: object, known: tuple[str, ...]) -> None:
    """Raise ValueError for an unknown mode."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"on_error: expected one of {', '.join(map(repr, known))}, got {shown(value)}")
