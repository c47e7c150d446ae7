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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal

from mpqueue._os import system
from mpqueue._os.process.own_forks import in_each_fork
from mpqueue._plain import PLAIN, plain
from mpqueue.errors import shown
from mpqueue.retry import RetryPolicy, check_number

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
#: More than any machine can run; each has its place in the books before it is started, so that a slip of the hand (a
#: number of items, say) would take all memory instead.
MOST_WORKERS = 10_000


#: What CUDA reads once, when a process first uses it, to know which GPUs there are.
DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
#: A GPU as CUDA calls it: its number, or its id.
_DEVICE = re.compile(r"[0-9]+|(GPU|MIG)-\S+")
#: Of each resource there are at most so many: each unit has its place in the books.
MOST_UNITS = 100_000


def check_text(name: str, value: object) -> str:
    """The same text, plain. Raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, got {shown(value)} of type {type(value).__name__}")
    text: str = plain(value)
    return text


class _Plain:
    """A dataclass whose numbers and texts are plain."""

    __slots__: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in zip(self.__slots__, attrgetter(*self.__slots__)(self), strict=True):
            if type(value) not in PLAIN:
                object.__setattr__(self, name, plain(value))


@dataclass(frozen=True, slots=True)
class QueueOptions(_Plain):
    """What holds for a whole queue. ``concurrency`` is a number of workers, times are seconds."""

    concurrency: int
    retry: RetryPolicy
    timeout: float | None = None
    progress_interval: float = 0.0
    threads_per_worker: int | None = None
    max_items_per_worker: int | None = None
    max_memory_per_worker: int | None = None  #: bytes
    setup_timeout: float | None = None
    resources: Mapping[str, int] = field(
        default_factory=dict
    )  #: what items may use, beside workers: by name; memory in bytes
    gpu_env: bool = False  #: a worker sees only the GPUs that its items hold
    devices: tuple[str, ...] = ()  #: what CUDA calls each unit of "gpu", with ``gpu_env``
    may_grow: bool = False  #: no number of workers was given: all that there is room for, also later


#: Where seeds come from: the system was asked once, since each time that lets go of the interpreter.
_seeds = random.Random()
in_each_fork(_seeds.seed)


def draw_seed() -> int:
    """A seed that has not been used before."""
    return _seeds.getrandbits(128)


def choose_seed(seed: int | None) -> int:
    """The seed that was given, checked; None: a new one."""
    if seed is None:
        return draw_seed()
    check_number("seed", seed, low=0, integer=True)
    return int.__index__(seed)


def named_seed(seed: int, name: str) -> int:
    """A seed for a part of what has ``seed``: it depends on these two only, and is like no other."""
    import hashlib  # which takes a program 3 ms of its first

    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:16])


@dataclass(frozen=True, slots=True)
class JobOptions(_Plain):
    """What holds for one job, the queue's options already folded in."""

    retry: RetryPolicy
    timeout: float | None = None
    setup_timeout: float | None = None
    priority: int = 0
    chunksize: int | None = None
    max_lanes: int | None = None  #: how many workers may run its items at a time; None: all
    items_per_task: int = 1  #: how many of its items count as one of ``max_items_per_worker``
    capture_output: bool = False  #: what its items write to stdout and stderr is kept with them
    seed: int = field(default_factory=draw_seed)  #: of its items' random numbers
    max_failures: int | None = None  #: with more failed items than that it is cancelled
    deadline: float | None = None  #: seconds from its start after which it is cancelled
    max_waiting: int | None = None  #: of an open job: how many items may wait before `add_items` does
    trace: bool = False  #: each report is kept for `Job.trace`, however many there are
    profile: bool = False  #: where its handler is, is sampled for `Job.profile`


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
    concurrency: Concurrency,
    max_retries: int | None,
    *,
    retry: RetryPolicy | None,
    timeout: float | None,
    progress_interval: float,
    threads_per_worker: int | None,
    max_items_per_worker: int | None,
    max_memory_per_worker: int | str | None,
    setup_timeout: float | None,
    resources: Mapping[str, int | str] | None = None,
    gpu_env: bool = False,
    count_cpus: Callable[[], int],
    count_cores: Callable[[], int] | None = None,
) -> QueueOptions:
    """Check what `JobQueue` was given; ``count_cpus`` is asked only where ``concurrency`` is None.

    ``count_cores``: None where the workers are on other machines.
    """
    may_grow = concurrency is None
    workers = choose_concurrency(concurrency, count_cores)
    if workers is None:
        workers = count_cpus()
        check_concurrency(workers)
    check_number("progress_interval", progress_interval, low=0)
    check_timeout(timeout)
    _check_optional("setup_timeout", setup_timeout)
    if threads_per_worker is not None:
        check_number("threads_per_worker", threads_per_worker, low=1, integer=True)
    if max_items_per_worker is not None:
        check_number("max_items_per_worker", max_items_per_worker, low=1, integer=True)
    units = check_resources(resources)
    sees_its_own = _check_gpu_env(gpu_env, resources)
    return QueueOptions(
        concurrency=workers,
        retry=choose_policy("JobQueue", max_retries, retry) or RetryPolicy(max_retries=DEFAULT_MAX_RETRIES),
        timeout=timeout,
        progress_interval=float(progress_interval),
        threads_per_worker=threads_per_worker,
        max_items_per_worker=max_items_per_worker,
        max_memory_per_worker=memory_limit(max_memory_per_worker),
        setup_timeout=setup_timeout,
        resources=units,
        gpu_env=sees_its_own,
        devices=_devices(units["gpu"]) if sees_its_own else (),
        may_grow=may_grow,
    )


def job_options(
    queue: QueueOptions,
    *,
    max_retries: int | None,
    retry: RetryPolicy | None,
    timeout: float | None,
    priority: int,
    chunksize: int | None,
    capture_output: bool = False,
    seed: int | None = None,
    trace: bool = False,
    profile: bool = False,
    max_waiting: int | None = None,
    is_open: bool = False,
    max_failures: int | None = None,
    deadline: float | None = None,
    concurrency: int | None = None,
) -> JobOptions:
    """Check what `create_job` was given and fold the queue's options in: what is given nearer wins."""
    check_timeout(timeout)
    if issubclass(type(priority), bool) or not issubclass(type(priority), int):
        raise TypeError(f"priority: expected a whole number, got {shown(priority)} of type {type(priority).__name__}")
    if chunksize is not None:
        check_number("chunksize", chunksize, low=1, integer=True)
    check_bool("capture_output", capture_output)
    check_bool("trace", trace)
    check_bool("profile", profile)
    check_bool("open", is_open)
    if max_failures is not None:
        check_number("max_failures", max_failures, low=0, integer=True)
    _check_optional("deadline", deadline)
    if max_waiting is not None:
        check_number("max_waiting", max_waiting, low=1, integer=True)
        if not is_open:
            raise ValueError(
                f"max_waiting: expected None for a job that is not open, got {max_waiting}; pass open=True"
            )
    if concurrency is not None:
        check_concurrency(concurrency)
    policy = choose_policy("create_job", max_retries, retry, delays=queue.retry)
    return JobOptions(
        retry=policy or queue.retry,
        timeout=queue.timeout if timeout is None else timeout,
        setup_timeout=queue.setup_timeout,
        priority=priority,
        chunksize=chunksize,
        max_lanes=concurrency,
        capture_output=capture_output,
        seed=choose_seed(seed),
        trace=trace,
        profile=profile,
        max_waiting=max_waiting,
        max_failures=max_failures,
        deadline=deadline,
    )


def memory_limit(value: int | str | None, platform: str = system.NAME) -> int | None:
    """``max_memory_per_worker`` in bytes. Raises NotImplementedError where the system does not tell what is used."""
    if value is None:
        return None
    if platform != "linux":
        raise NotImplementedError(
            f"max_memory_per_worker={shown(value)}: the memory of workers is known on Linux only, this is "
            f"{platform!r}; leave it out"
        )
    from mpqueue._os.memory import memory_use  # most programs have no limit

    if platform == system.NAME and (why := memory_use.why_not_told()) is not None:
        raise NotImplementedError(
            f"max_memory_per_worker={shown(value)}: the memory of workers is not known, since {why}, or leave it out"
        )
    size = size_in_bytes("max_memory_per_worker", value)
    if size < LEAST_MEMORY and not isinstance(value, str):
        raise ValueError(
            f'max_memory_per_worker: expected the bytes that a worker may have, got {shown(value)}; did you mean "'
            f'{size}GB"?'
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
    """The same, memory in bytes. Raises TypeError or ValueError for names or numbers that make no sense."""
    if resources is None:
        return {}
    if not isinstance(resources, Mapping):
        raise TypeError(f"resources: expected a mapping of names to numbers, got {shown(resources)}")
    checked = {}
    for given, count in resources.items():
        name = plain(given)
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"resources: expected names such as 'gpu' or 'license', got {shown(given)}")
        if name == "cpus":
            raise ValueError(f"resources: expected no 'cpus', which concurrency= sets, got {shown(resources)}")
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


def _check_gpu_env(value: bool, resources: Mapping[str, int | str] | None) -> bool:
    check_bool("gpu_env", value)
    if value and "gpu" not in (resources or {}):
        raise ValueError(
            'gpu_env: expected False, or a number of GPUs as in resources={"gpu": 2}, got True and '
            f"resources={shown(resources)}"
        )
    return value


def _devices(units: int) -> tuple[str, ...]:
    """What CUDA calls so many GPUs. Raises ValueError where this process may see fewer."""
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


def choose_policy(
    where: str, max_retries: int | None, retry: RetryPolicy | None, delays: RetryPolicy | None = None
) -> RetryPolicy | None:
    """The policy given at one level, or None; a bare ``max_retries`` keeps the delays of the level above."""
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise TypeError(f"retry: expected a RetryPolicy, got {shown(retry)} of type {type(retry).__name__}")
    if max_retries is None:
        return retry
    check_number("max_retries", max_retries, low=0, integer=True)
    if retry is not None:
        raise ValueError(
            f"{where}: expected max_retries or retry, got both (max_retries={shown(max_retries)}, retry={shown(retry)})"
        )
    above = delays or RetryPolicy()
    return RetryPolicy(
        max_retries, above.base_delay, above.factor, above.max_delay, above.jitter, above.retry_on, above.give_up_on
    )


def check_address(host: object, port: object, hosts: object) -> tuple[str, int, tuple[str, ...]]:
    """What `serve` was given, checked."""
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


def check_bool(name: str, value: object) -> bool:
    """The same value. Raises TypeError unless it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {shown(value)}")
    return value


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


def check_timeout(value: float | None) -> None:
    """Raise TypeError or ValueError unless it is a number of seconds, or None."""
    _check_optional("timeout", value)


def check_prune(job_id: object, gone: object, older_than: float | None) -> None:
    """Raise TypeError or ValueError for what `JobQueue.prune` does not take."""
    if job_id is not None:
        check_text("job_id", job_id)
    if not isinstance(gone, bool):
        raise TypeError(f"gone: expected True or False, got {shown(gone)}")
    if older_than is not None:
        check_number("older_than", older_than, low=0)


def check_within(value: float) -> None:
    """Raise TypeError or ValueError unless it is a number of seconds from 0 up."""
    check_number("within", value, low=0)


def _check_optional(name: str, value: float | None) -> None:
    if value is not None:
        check_number(name, value, low=0, exclusive=True)
