"""Everything about the operating system: differences between systems are known here, and nowhere else in the package.

A house rule checks this (`tests/unit/test_house_rules.py`): no `fcntl`, `ctypes`, `sys.platform`, ``/proc`` or the like
elsewhere. If a facility has a form for Linux and a portable one, both are in its module, under one contract, and
`system.choose` takes one of them while the module is loaded. A form for Linux falls back to the portable one if a
sandbox or an old kernel refuses it: it is tried out each time, or only once if trying is expensive.

=======================  ===========================================================================================
module                   what it offers
=======================  ===========================================================================================
system                   the name of this system, the choice of forms; the C library; the clock of both sides
windows                  the forms for Windows, in a folder of their own
facts                    the facilities that work on this system
files                    files by their descriptors: opened, read and written at an offset
alarm                    a timer that is set again without waking a thread
descriptors              open descriptors, their limits, reopening; room for more, and for threads; *channels*: the ends
                         of pipes and sockets between processes, each by a number; waiting for many of them
standard_streams         numbers 0, 1 and 2 if a program has closed them, and Python's streams over them
file_system              the kind of file system that a file is on; locks on files, which end with their process
process_handle           a handle on one process: signals, its end; the unique name of this process, and its forks
process_facts            processes: numbers, start times, environments, threads, use of CPU and memory; the memory left
process_signals          signals: killing, asking for stacks, their state in a worker, SIGTERM; waits that signals end
parent_death             a process ends with its parent; the leash, and other things that it gets while it is spawned
shell_words              words of a command line, quoted for the system's shell
memory_files             unnamed files in memory: made, shared, sealed, opened by others; leases on them; mappings
locks                    semaphores without a name
=======================  ===========================================================================================

Knows nothing of jobs, lanes or workers' protocols. It raises OSError, and returns None if a system does not report
something.
"""
