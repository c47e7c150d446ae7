"""Handlers, each named by what it does. All can be imported, so workers load them by name.

A plain one takes an item and does its thing. The ones at the end build a handler from others::

    only("b", segfault)  # the item "b" dies, its neighbours succeed
    at_first(segfault)  # the first attempt dies, the next succeeds
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import functools
import gc
import io
import mmap
import multiprocessing
import os
import pickle
import random
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import mpqueue
from tests.support.this_system import IS_WINDOWS, KILL
from tests.support.waiting import Gate, spend

if sys.platform != "win32":
    import resource

Handler = Callable[[Any], Any]

#: Seconds; as good as for ever, and still an end for what a broken test leaves.
FOREVER = 300.0


# --- that end well --------------------------------------------------------------------------------------------------


def succeed(item: Any) -> Any:
    """Return the item."""
    return item


class Noted:
    """A result which it may be Ctrl-C to read."""

    is_interrupted = False

    def __init__(self, item: Any) -> None:
        self.item = item

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.is_interrupted:
            signal.raise_signal(signal.SIGINT)


def note_call(item: Any) -> Noted:
    """Note in a file of the current folder that it was called."""
    with open(f"called-{item}", "a", encoding="utf-8") as file:
        file.write("called ")
    return Noted(item)


def double(item: Any) -> Any:
    """Return twice the item."""
    return item * 2


def count_up_array(array: Any) -> float:
    """Add one to each of the array's numbers; returns the first."""
    array += 1
    return float(array[0])


def square(item: Any) -> Any:
    """Return the item squared."""
    return item * item


def return_pid(item: Any) -> int:
    """Return the worker's process id."""
    return os.getpid()


def big_result(item: int) -> bytes:
    """Return that many bytes."""
    return bytes(item)


def return_length(item: bytes) -> int:
    """Return the item's length."""
    return len(item)


async def succeed_later(item: Any) -> Any:
    """Return the item, from a coroutine."""
    import asyncio

    await asyncio.sleep(0)
    return item


# --- that raise -----------------------------------------------------------------------------------------------------


class TwoArgumentError(Exception):
    """Pickles, and can't be unpickled: `Exception` gives only one argument back."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")


class LockHolderError(Exception):
    """Can't be pickled: it holds a lock."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class SilentError(Exception):
    """Has no message."""


class TextlessError(Exception):
    """Its ``str()`` raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class ReprlessError(Exception):
    """Its ``repr()`` raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def fail(item: Any) -> NoReturn:
    """Raise a `ValueError` that names the item."""
    raise ValueError(f"cannot do {item!r}")


def fail_silently(item: Any) -> NoReturn:
    """Raise an error without a message."""
    raise SilentError


def fail_with_cause(item: Any) -> NoReturn:
    """Raise a `ValueError` from a `KeyError`."""
    try:
        raise KeyError("missing")
    except KeyError as error:
        raise ValueError(f"cannot do {item!r}") from error


def raise_unpicklable(item: Any) -> NoReturn:
    """Raise an error that can't be pickled."""

    class LocalError(Exception):
        def __reduce__(self) -> NoReturn:
            raise TypeError("this error refuses to be pickled")

    raise LocalError(f"cannot do {item!r}")


def raise_two_argument_error(item: Any) -> NoReturn:
    """Raise an error that can be pickled but not unpickled."""
    raise TwoArgumentError("two", "arguments")


def raise_lock_holder(item: Any) -> NoReturn:
    """Raise an error that holds a lock."""
    raise LockHolderError("held")


class FalseError(Exception):
    """A collection of errors, which has none: as a condition it is false."""

    def __len__(self) -> int:
        return 0


#: What a handler raises that uses mpqueue itself, and does not catch what that raises.
ERRORS_OF_INNER_CALLS = (
    mpqueue.ItemPicklingError("inner"),
    mpqueue.ResultPicklingError("inner", "a value", "a reason"),
    mpqueue.ItemCancelledError("inner"),
    mpqueue.SetupError("inner"),
    mpqueue.WorkerCrashedError("inner", 1),
    mpqueue.WorkerStartError("inner"),
    mpqueue.TooManyFailuresError("inner"),
    mpqueue.RemoteError("builtins.SystemExit", "inner", "", ("builtins.SystemExit", "builtins.Exception")),
)


class Lengthless:
    """0, 1 and 2, of which ``len`` returns or raises what is given: tqdm's bar over a generator returns None."""

    def __init__(self, length: object) -> None:
        self._length = length

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))

    def __len__(self) -> Any:
        if isinstance(self._length, BaseException):
            raise self._length
        return self._length


def sys_exit(item: Any) -> NoReturn:
    """Call `sys.exit(3)`."""
    sys.exit(3)


def raise_keyboard_interrupt(item: Any) -> NoReturn:
    """Raise `KeyboardInterrupt`."""
    raise KeyboardInterrupt


def raise_base_exception(item: Any) -> NoReturn:
    """Raise a bare `BaseException`."""
    raise BaseException("base")  # the very thing that is tried here


def raise_stop_iteration(item: Any) -> NoReturn:
    """Raise `StopIteration`, which would end a loop over a `map` early and silently."""
    raise StopIteration


def raise_memory_error(item: Any) -> NoReturn:
    """Ask for more memory than there is."""
    bytearray(1 << 60)
    raise AssertionError("there was that much")


def recurse_for_ever(item: Any) -> Any:
    """Recurse until Python stops it."""
    return recurse_for_ever(item)


def ask_for_retry(item: Any) -> NoReturn:
    """Raise `mpqueue.Retry` with no delay."""
    raise mpqueue.Retry(delay=0)


def give_up(item: Any) -> NoReturn:
    """Raise `mpqueue.GiveUp`."""
    raise mpqueue.GiveUp("hopeless")


async def fail_later(item: Any) -> NoReturn:
    """Raise a `ValueError` from a coroutine."""
    raise ValueError(f"cannot do {item!r}")


async def exit_later(item: Any) -> NoReturn:
    """Raise `SystemExit` from a coroutine, which ends a running event loop."""
    raise SystemExit(3)


async def interrupt_later(item: Any) -> NoReturn:
    """Raise `KeyboardInterrupt` from a coroutine, which ends a running event loop."""
    raise KeyboardInterrupt


async def cancel_later(item: Any) -> Any:
    """Cancel the task that this coroutine runs in."""
    import asyncio

    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def hang_later(item: Any) -> Any:
    """Await what never comes."""
    import asyncio

    return await asyncio.get_running_loop().create_future()


def raise_generator_exit(item: Any) -> NoReturn:
    """Raise `GeneratorExit`, a `BaseException` that Python itself treats as none."""
    raise GeneratorExit


def raise_without_text(item: Any) -> NoReturn:
    """Raise an error whose ``str()`` raises."""
    raise TextlessError


def raise_reprless(item: Any) -> NoReturn:
    """Raise an error whose ``repr()`` raises."""
    raise ReprlessError


def raise_group(item: Any) -> NoReturn:
    """Raise a group that holds an error which can't be unpickled."""
    raise ExceptionGroup("two at once", [ValueError("one"), TwoArgumentError("two", "arguments")])


# --- whose result is the trouble ------------------------------------------------------------------------------------


class Ununpicklable:
    """Pickles, and raises when it is unpickled, in whichever process that is."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ("this object refuses to be unpickled",)


def _refuse(message: str) -> NoReturn:
    raise RuntimeError(message)


class Unpicklable:
    """Raises when it is pickled."""

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("this object refuses to be pickled")


class WhenPickled:
    """Does ``bad`` wherever it is pickled."""

    def __init__(self, bad: Handler) -> None:
        self.bad = bad

    def __reduce__(self) -> tuple[Any, ...]:
        self.bad(self)
        return WhenPickled, (self.bad,)


class WhenUnpickled:
    """Does ``bad`` wherever it is unpickled. As a handler it returns the item."""

    def __init__(self, bad: Handler) -> None:
        self.bad = bad

    def __call__(self, item: Any) -> Any:
        return item

    def __reduce__(self) -> tuple[Any, ...]:
        return self.bad, (None,)


class ErrorWhenPickled(Exception):
    """Does ``bad`` wherever it is pickled."""

    def __init__(self, bad: Handler) -> None:
        super().__init__("bad when pickled")
        self.bad = bad

    def __reduce__(self) -> tuple[Any, ...]:
        self.bad(None)
        return ErrorWhenPickled, (self.bad,)


class ErrorWhenUnpickled(Exception):
    """Does ``bad`` wherever it is unpickled."""

    def __init__(self, bad: Handler) -> None:
        super().__init__("bad when unpickled")
        self.bad = bad

    def __reduce__(self) -> tuple[Any, ...]:
        return self.bad, (None,)


def return_value(value: Any) -> Handler:
    """A handler that returns ``value``."""
    return functools.partial(_return, value)


def _return(value: Any, item: Any) -> Any:
    return value


def return_made(make: Callable[[Handler], Any], bad: Handler) -> Handler:
    """A handler that makes its result with ``make(bad)``, so that neither handler nor item is like it."""
    return functools.partial(_return_made, make, bad)


def _return_made(make: Callable[[Handler], Any], bad: Handler, item: Any) -> Any:
    return make(bad)


def raise_made(make: Callable[[Handler], BaseException], bad: Handler) -> Handler:
    """A handler that makes its exception with ``make(bad)``."""
    return functools.partial(_raise_made, make, bad)


def _raise_made(make: Callable[[Handler], BaseException], bad: Handler, item: Any) -> NoReturn:
    raise make(bad)


def return_lock(item: Any) -> Any:
    """Return a lock, the usual thing that can't be pickled."""
    return threading.Lock()


def return_ununpicklable(item: Any) -> Any:
    """Return something that pickles and can't be unpickled."""
    return Ununpicklable()


def return_what_is_only_here(item: Any) -> Any:
    """Return an object of a module that this worker alone has."""
    module = types.ModuleType("only_in_the_worker")
    module.Thing = type("Thing", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    return module.Thing()


# --- that take the worker with them ---------------------------------------------------------------------------------


def exit_zero(item: Any) -> NoReturn:
    """Leave the process at once, with exit code 0."""
    os._exit(0)


def segfault(item: Any) -> NoReturn:
    """Read address 0."""
    if IS_WINDOWS:  # where ctypes makes an OSError of it
        faulthandler._read_null()  # type: ignore[attr-defined]
    ctypes.string_at(0)
    raise AssertionError("address 0 could be read")


def abort(item: Any) -> NoReturn:
    """Abort, as C code does on a failed assertion."""
    os.abort()


def kill_self(item: Any) -> NoReturn:
    """SIGKILL this process, as the kernel does when memory runs out."""
    os.kill(os.getpid(), KILL)
    raise AssertionError("survived SIGKILL")


def exit_in_thread(item: Any) -> Any:
    """Leave the process with exit code 7 from a thread, while the handler sleeps."""
    threading.Thread(target=os._exit, args=(7,)).start()
    return hang_sleep(item)


def close_all_fds(item: Any) -> Any:
    """Close every descriptor but the standard three, then return the item."""
    os.closerange(3, 4096)
    return item


# --- that meddle with what the worker uses ---------------------------------------------------------------------------


def _descriptors() -> list[int]:
    """All that are open, but the standard three."""
    return [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2]


def _sockets() -> list[socket.socket]:
    """Copies of all that are open."""
    found = []
    for fd in _descriptors():
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.append(socket.socket(fileno=os.dup(fd)))
    return found


def write_garbage_everywhere(item: Any) -> Any:
    """Write 64 bytes without a meaning into every descriptor but the standard three."""
    for fd in _descriptors():
        with contextlib.suppress(OSError):
            os.write(fd, bytes(range(100, 164)))
    return item


def write_a_length(item: Any) -> Any:
    """Write what would be a terabyte's length, had a message no other header, into every socket."""
    for one in _sockets():
        with one:
            one.send(struct.pack("=Q?", 1 << 40, False))
    return item


def read_sockets_dry(item: Any) -> Any:
    """Read what stands in every socket, or comes within half a second."""
    for one in _sockets():
        with one:
            while select.select([one], [], [], 0.5)[0] and one.recv(1 << 20, socket.MSG_DONTWAIT):
                pass
    return item


def read_a_little(item: Any) -> Any:
    """Read three bytes of what stands in every socket, or comes within half a second."""
    for one in _sockets():
        with one:
            if select.select([one], [], [], 0.5)[0]:
                one.recv(3, socket.MSG_DONTWAIT)
    return item


def shut_sockets(how: int) -> Handler:
    """A handler that shuts every socket down: `socket.SHUT_RD` and its like."""
    return functools.partial(_shut_sockets, how)


def _shut_sockets(how: int, item: Any) -> Any:
    for one in _sockets():
        with one:
            one.shutdown(how)
    return item


def scribble(seed: int, then: Handler = succeed) -> Handler:
    """A handler that fills the worker's page of shared memory with chance (seed 0: zeros), and does ``then``."""
    return functools.partial(_scribble, seed, then)


def _scribble(seed: int, then: Handler, item: Any) -> Any:
    views = [found.obj for found in gc.get_objects() if type(found) is memoryview]
    (page,) = {id(shared): shared for shared in views if isinstance(shared, mmap.mmap)}.values()
    page[:] = random.Random(seed).randbytes(len(page)) if seed else bytes(len(page))
    return then(item)


def close_fds_of(what: str) -> Handler:
    """A handler that closes each descriptor above 2 whose name in /proc has ``what`` in it, and returns the item."""
    return functools.partial(_close_fds_of, what)


def _close_fds_of(what: str, item: Any) -> Any:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(name) > 2 and what in os.readlink(f"/proc/self/fd/{name}"):
                os.close(int(name))
    return item


def close_stdout_and_its_fd(item: Any) -> Any:
    """Close descriptor 1 and the stream over it, then return the item."""
    os.close(1)
    sys.stdout.close()
    return item


# --- that break what pickles ----------------------------------------------------------------------------------------


def take_address_space(item: Any) -> Any:
    """Let this process map no more memory, then return the item."""
    resource.setrlimit(resource.RLIMIT_AS, (1, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return item


def replace_picklers(item: Any) -> Any:
    """Put something that raises in the place of both picklers, for objects that are not plain; return the item."""
    import cloudpickle

    plain = pickle.dumps

    def refuse(self: Any, obj: Any) -> NoReturn:
        raise pickle.PicklingError("nothing can be pickled any more")

    def dumps(obj: Any, *args: Any, **options: Any) -> bytes:
        return plain(obj, *args, **options) if type(obj) in (list, tuple, dict) else refuse(None, obj)

    pickle.dumps = dumps
    cloudpickle.CloudPickler.dump = refuse
    return item


class OddText(str):
    """A string that has no length and can't be pickled."""

    __slots__ = ()

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("this text refuses to be pickled")


class OddlyShown:
    """Can't be pickled, and its ``repr()`` is an `OddText`."""

    def __repr__(self) -> str:
        return OddText("odd")

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("this object refuses to be pickled")


class OddTextError(Exception):
    """Its ``str()`` is an `OddText`."""

    def __str__(self) -> str:
        return OddText("odd")


def return_oddly_shown(item: Any) -> Any:
    """Return what can't be pickled, nor shown in the usual way."""
    return OddlyShown()


def raise_odd_text(item: Any) -> NoReturn:
    """Raise an error whose ``str()`` is no ordinary string."""
    raise OddTextError


class Parcel:
    """More than plain data, and a megabyte where it is pickled; equal to others with the same ``item``."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __reduce__(self) -> tuple[Any, ...]:
        return Parcel, (self.item,), {"load": bytes(1_000_000)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parcel) and other.item == self.item

    def __hash__(self) -> int:
        return hash(self.item)


def return_parcel(item: Any) -> Any:
    """Return the item in a `Parcel`."""
    return Parcel(item)


# --- that hang ------------------------------------------------------------------------------------------------------


def hang_sleep(item: Any) -> Any:
    """Sleep in the kernel."""
    if IS_WINDOWS:
        spend(FOREVER)
    select.select([], [], [], FOREVER)
    return item


def hang_python(item: Any) -> NoReturn:
    """Loop in Python."""
    while True:
        pass


def hang_holding_gil(item: Any) -> Any:
    """Sleep in C code that does not let go of the global lock, for longer than anybody waits."""
    if IS_WINDOWS:
        return ctypes.PyDLL("kernel32").Sleep(0xFFFFFFFF)
    c, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(128)
    c.pthread_mutex_init(mutex, None)
    c.pthread_mutex_lock(mutex)
    return c.pthread_mutex_lock(mutex)  # which no signal cuts short, as it would a sleep


def sigterm_ignore_and_hang(item: Any) -> Any:
    """Ignore SIGTERM and SIGINT, and sleep."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return hang_sleep(item)


def stop_self(item: Any) -> Any:
    """SIGSTOP this process."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return item


# --- that misbehave and return --------------------------------------------------------------------------------------


def print_much(item: Any) -> Any:
    """Write 10 MB to standard output and error, by Python and past it."""
    line = "x" * 1023 + "\n"
    for _ in range(5 * 1024):
        sys.stdout.write(line)
    sys.stdout.flush()
    for _ in range(5 * 1024):
        os.write(2, line.encode())
    return item


def close_standard_streams(item: Any) -> Any:
    """Close standard input, output and error."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()
    return item


class _Harmful:
    """A stream that takes what is written, and raises at all else."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        raise SystemExit("flushed")

    @property
    def closed(self) -> bool:
        raise KeyError("closed")


def put_harmful_stdout(item: Any) -> Any:
    """Put a stream of one's own there that can't be flushed."""
    sys.stdout = _Harmful()
    return item


def replace_stdout(item: Any) -> Any:
    """Put something else in the place of standard output."""
    sys.stdout = io.StringIO()
    return item


def change_cwd(item: Any) -> Any:
    """Go to the root folder."""
    os.chdir("/")
    return item


def ignore_sigint(item: Any) -> Any:
    """Ignore SIGINT from now on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return item


def install_signal_handlers(item: Any) -> Any:
    """Take every signal that can be taken."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number < 32:  # beyond are the C library's own and the real-time ones
            signal.signal(number, lambda *_: None)
    return item


def leave_thread(item: Any) -> Any:
    """Leave a thread behind that no exit waits out: not a daemon, and without an end."""
    threading.Thread(target=hang_sleep, args=(item,), name="left-behind").start()
    return item


def leave_daemon_thread(item: Any) -> Any:
    """Leave a daemon thread behind."""
    threading.Thread(target=hang_sleep, args=(item,), daemon=True, name="left-behind").start()
    return item


def leave_child(item: Any) -> int:
    """Leave a child process behind, in the worker's process group; return its id."""
    return subprocess.Popen(["sleep", str(int(FOREVER))]).pid


def leave_forked_child(item: Any) -> int:
    """Leave a fork of the worker behind, with all that it had open; return its id."""
    pid = os.fork()
    if pid == 0:
        try:
            hang_sleep(item)
        finally:
            os._exit(0)
    return pid


def fork_and_return_twice(item: Any) -> int:
    """Fork, and let the child go on in the worker's code."""
    return os.fork()


def start_process(item: Any) -> Any:
    """Run a `multiprocessing.Process` and return what it sent."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=_send_double, args=(sender, item))
    process.start()
    answer = receiver.recv()
    process.join()
    receiver.close()
    sender.close()
    return answer


def _send_double(sender: Any, item: Any) -> None:
    sender.send(double(item))


def start_pool(item: Any) -> Any:
    """Double the item in a `multiprocessing.Pool` of its own."""
    with multiprocessing.Pool(2) as pool:
        return pool.map(double, [item])[0]


def start_executor(item: Any) -> Any:
    """Double the item in a `ProcessPoolExecutor` of its own."""
    with ProcessPoolExecutor(1) as executor:
        return executor.submit(double, item).result()


def run_false(item: Any) -> int:
    """Run a command that fails, and return its exit code: 1, unless SIGCHLD is ignored here."""
    return subprocess.run(["false"], check=False).returncode


def fill_shared_memory(item: Any) -> Any:
    """Take all that is left of /dev/shm, until the worker ends; only under `tests.support.small_shm`.

    Raises:
        RuntimeError: It would take the machine's memory.
    """
    state = os.statvfs("/dev/shm")
    free = state.f_bavail * state.f_frsize
    if free > 256 * 2**20:
        raise RuntimeError(f"/dev/shm has {free} bytes free, which is the machine's memory: run this under small_shm")
    with tempfile.TemporaryFile(dir="/dev/shm", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, free)
        _kept.append(os.dup(file.fileno()))
    return item


_kept: list[int] = []


# --- that build a handler -------------------------------------------------------------------------------------------


def fail_with(error: BaseException) -> Handler:
    """A handler that raises ``error``."""
    return functools.partial(_raise, error)


def _raise(error: BaseException, item: Any) -> NoReturn:
    raise error


def exit_with(code: int) -> Handler:
    """A handler that leaves the process with ``code``."""
    return functools.partial(_exit, code)


def _exit(code: int, item: Any) -> NoReturn:
    os._exit(code)


def fail_until(attempt: int) -> Handler:
    """A handler that fails at every attempt before that one, and then returns the item."""
    return before_attempt(attempt, fail)


def at_first(bad: Handler) -> Handler:
    """A handler that does ``bad`` at the first attempt, and then returns the item."""
    return before_attempt(2, bad)


def before_attempt(attempt: int, bad: Handler) -> Handler:
    """A handler that does ``bad`` at every attempt before that one, and then returns the item."""
    return functools.partial(_before_attempt, attempt, bad)


def _before_attempt(attempt: int, bad: Handler, item: Any) -> Any:
    return bad(item) if mpqueue.current_item().attempt < attempt else item


def only(culprit: Any, bad: Handler, good: Handler = succeed) -> Handler:
    """A handler that does ``bad`` to the one item that equals ``culprit``, and ``good`` to all others."""
    return functools.partial(_only, culprit, bad, good)


def _only(culprit: Any, bad: Handler, good: Handler, item: Any) -> Any:
    return bad(item) if item == culprit else good(item)


def only_multiples(number: int, bad: Handler) -> Handler:
    """A handler that does ``bad`` to each multiple of the number, and returns all others."""
    return functools.partial(_only_multiples, number, bad)


def _only_multiples(number: int, bad: Handler, item: int) -> Any:
    return item if item % number else bad(item)


def only_from(limit: int, late: Handler, early: Handler) -> Handler:
    """A handler that does ``late`` to the items from ``limit`` on, and ``early`` to those before."""
    return functools.partial(_only_from, limit, late, early)


def _only_from(limit: int, late: Handler, early: Handler, item: int) -> Any:
    return (late if item >= limit else early)(item)


def only_later(culprit: Any, bad: Callable[[Any], Awaitable[Any]]) -> Handler:
    """Like `only`, for coroutines: a handler that awaits ``bad`` for the one item, and returns all others."""
    return functools.partial(_only_later, culprit, bad)


async def _only_later(culprit: Any, bad: Callable[[Any], Awaitable[Any]], item: Any) -> Any:
    return await bad(item) if item == culprit else item


def block_until_told(gate: Gate, then: Handler = succeed) -> Handler:
    """A handler that arrives at ``gate``, waits until it opens, and does ``then``."""
    return functools.partial(_block, gate, then)


def _block(gate: Gate, then: Handler, item: Any) -> Any:
    gate.pass_through(item)
    return then(item)


def announce(gate: Gate, then: Handler = succeed) -> Handler:
    """A handler that arrives at ``gate``, does not wait, and does ``then``."""
    return functools.partial(_announce, gate, then)


def _announce(gate: Gate, then: Handler, item: Any) -> Any:
    gate.announce(item)
    return then(item)


def announce_pid(gate: Gate, then: Handler = hang_sleep) -> Handler:
    """A handler that tells ``gate`` its worker's process id, does not wait, and does ``then``."""
    return functools.partial(_announce_pid, gate, then)


def _announce_pid(gate: Gate, then: Handler, item: Any) -> Any:
    gate.announce(os.getpid())
    return then(item)


def count_present(folder: Path) -> Handler:
    """A handler that returns how many workers were in it at once, as far as it could see."""
    return functools.partial(_count_present, folder)


def _count_present(folder: Path, item: Any) -> int:
    mark = folder / f"{os.getpid()}.present"
    mark.touch()
    try:
        return len(list(folder.glob("*.present")))
    finally:
        mark.unlink()


def exit_when_told(gate: Gate) -> Handler:
    """A handler that leaves a thread behind, which leaves the process with code 3 when ``gate`` opens."""
    return functools.partial(_exit_when_told, gate)


def _exit_when_told(gate: Gate, item: Any) -> Any:
    def wait() -> None:
        gate.pass_through("thread")
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()
    return item


def count_calls(folder: Path, then: Handler = succeed) -> Handler:
    """A handler that adds a byte to the item's file in ``folder``, then does ``then``; see `calls`."""
    return functools.partial(_count, folder, then)


def _count(folder: Path, then: Handler, item: Any) -> Any:
    with (folder / f"{item}.calls").open("ab") as file:
        file.write(b".")
    return then(item)


def calls(folder: Path) -> Iterator[tuple[str, int]]:
    """What `count_calls` wrote: each item, as a string, and how often its handler was called."""
    for path in folder.glob("*.calls"):
        yield path.stem, path.stat().st_size
