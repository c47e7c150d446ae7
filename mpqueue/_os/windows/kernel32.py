"""Functions of Windows that Python does not offer, with their types. A failed one raises OSError by `checked`."""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes
from typing import Any

assert sys.platform == "win32"

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_kernel32, name)
    function.restype, function.argtypes = result, arguments
    return function


class Overlapped(ctypes.Structure):
    """``OVERLAPPED``: the place in a file to read, write or lock."""

    _fields_ = (
        ("internal", ctypes.c_size_t),
        ("internal_high", ctypes.c_size_t),
        ("offset", wintypes.DWORD),
        ("offset_high", wintypes.DWORD),
        ("event", wintypes.HANDLE),
    )


def at(offset: int) -> Overlapped:
    """Return that place in a file, in the system's form."""
    return Overlapped(offset=offset & 0xFFFFFFFF, offset_high=offset >> 32)


class _JobLimits(ctypes.Structure):
    """``JOBOBJECT_EXTENDED_LIMIT_INFORMATION``."""

    _fields_ = (
        ("times", ctypes.c_int64 * 2),
        ("flags", wintypes.DWORD),
        ("working_set", ctypes.c_size_t * 2),
        ("processes", wintypes.DWORD),
        ("affinity", ctypes.c_size_t),
        ("classes", wintypes.DWORD * 2),
        ("io", ctypes.c_uint64 * 6),
        ("memory", ctypes.c_size_t * 4),
    )


class MemoryStatus(ctypes.Structure):
    """``MEMORYSTATUSEX``."""

    _fields_ = (
        ("length", wintypes.DWORD),
        ("load", wintypes.DWORD),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 5),
    )


_PointerTo = ctypes.POINTER

create_job = _function("CreateJobObjectW", wintypes.HANDLE, ctypes.c_void_p, wintypes.LPCWSTR)
_set_job = _function(
    "SetInformationJobObject", wintypes.BOOL, wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD
)
assign_process = _function("AssignProcessToJobObject", wintypes.BOOL, wintypes.HANDLE, wintypes.HANDLE)
terminate_job = _function("TerminateJobObject", wintypes.BOOL, wintypes.HANDLE, wintypes.UINT)
resume_thread = _function("ResumeThread", wintypes.DWORD, wintypes.HANDLE)
create_event = _function(
    "CreateEventW", wintypes.HANDLE, ctypes.c_void_p, wintypes.BOOL, wintypes.BOOL, ctypes.c_void_p
)
set_event = _function("SetEvent", wintypes.BOOL, wintypes.HANDLE)
process_times = _function("GetProcessTimes", wintypes.BOOL, wintypes.HANDLE, *[_PointerTo(wintypes.FILETIME)] * 4)
create_file = _function(
    "CreateFileW",
    wintypes.HANDLE,
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
)
final_path = _function(
    "GetFinalPathNameByHandleW", wintypes.DWORD, wintypes.HANDLE, wintypes.LPWSTR, wintypes.DWORD, wintypes.DWORD
)
_io = (wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD, _PointerTo(wintypes.DWORD), _PointerTo(Overlapped))
read_file = _function("ReadFile", wintypes.BOOL, *_io)
write_file = _function("WriteFile", wintypes.BOOL, *_io)
lock_file = _function(
    "LockFileEx",
    wintypes.BOOL,
    wintypes.HANDLE,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    _PointerTo(Overlapped),
)
unlock_file = _function(
    "UnlockFileEx",
    wintypes.BOOL,
    wintypes.HANDLE,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    _PointerTo(Overlapped),
)
control_device = _function(
    "DeviceIoControl",
    wintypes.BOOL,
    wintypes.HANDLE,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    _PointerTo(wintypes.DWORD),
    ctypes.c_void_p,
)
standard_handle = _function("GetStdHandle", wintypes.HANDLE, wintypes.DWORD)
console_mode = _function("GetConsoleMode", wintypes.BOOL, wintypes.HANDLE, _PointerTo(wintypes.DWORD))
set_console_mode = _function("SetConsoleMode", wintypes.BOOL, wintypes.HANDLE, wintypes.DWORD)
drive_type = _function("GetDriveTypeW", wintypes.UINT, wintypes.LPCWSTR)
error_mode = _function("SetErrorMode", wintypes.UINT, wintypes.UINT)
performance_counter = _function("QueryPerformanceCounter", wintypes.BOOL, _PointerTo(ctypes.c_int64))
performance_frequency = _function("QueryPerformanceFrequency", wintypes.BOOL, _PointerTo(ctypes.c_int64))
memory_status = _function("GlobalMemoryStatusEx", wintypes.BOOL, _PointerTo(MemoryStatus))

_EXTENDED_LIMITS = 9
_KILL_ON_CLOSE = 0x2000


def checked(result: Any) -> Any:
    """Return the result of a function; if it is zero, raise the OSError of its failure."""
    if not result:
        raise ctypes.WinError(ctypes.get_last_error())
    return result


def make_job() -> int:
    """Make a job object: its processes, and all that they start, end when its last handle is closed. Raises OSError."""
    job: int = checked(create_job(None, None))
    limits = _JobLimits(flags=_KILL_ON_CLOSE)
    checked(_set_job(job, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits)))
    return job


def machine_memory() -> MemoryStatus:
    """Bytes of memory in total, and available now. Raises OSError."""
    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    checked(memory_status(status))
    return status


# -- The system's counter: the same for all processes, and independent of libraries that freeze Python's clocks. -------

assert sys.platform == "win32"


_frequency = ctypes.c_int64()
checked(performance_frequency(_frequency))
_PER_SECOND = _frequency.value


def monotonic_ns() -> int:
    """Nanoseconds since the machine was started. 1 us."""
    count = ctypes.c_int64()
    performance_counter(count)
    return count.value * 1_000_000_000 // _PER_SECOND


def monotonic() -> float:
    """Seconds since the machine was started. 1 us."""
    count = ctypes.c_int64()
    performance_counter(count)
    return count.value / _PER_SECOND
