"""The one room for the operating system: what differs between systems is known here, and nowhere else in the package.

A rule of the house holds the rest of the package against it (`tests/unit/test_house_rules.py`): no `fcntl`, `ctypes`,
`sys.platform`, ``/proc`` or their like elsewhere. Where a facility has a form for Linux and a portable one, both stand
in its module, under one contract; `system.choose` takes one of them while the module is loaded, and nothing else does.
A form for Linux goes on to the portable one where a sandbox or an old kernel refuses it: that is tried out, and once
only where it costs something.

========================  ==========================================================================================
module                    what it offers
========================  ==========================================================================================
system                    which system this is, which form is used; the C library
windows                   the forms for Windows, in a folder of their own
facts                     which facilities are there
channels                  the ends of pipes and sockets between processes, each by a number; waiting for many of them
files                     files by their descriptors: opened, read and written at an offset
monotonic                 the clock of both sides
alarm                     a timer that is set anew without waking a thread
descriptors               what is open under a number, how many there may be, opening anew, pairs of sockets
room                      whether more descriptors, threads and processes can be had, and what makes room for them
standard_streams          numbers 0, 1 and 2 where a program has closed them, and Python's streams over them
file_system               on what kind of file system a file is
file_lock                 locks on files and on bytes of them, which end with their process
main_thread_waits         long waits that signals can end
process.process_identity  the name of this process, which no other has
process.process_table     the quiet look at other processes: which there are, since when, with which environment
process.process_handle    a hold on one process: signals, its end, how it ended, whether it is stopped
process.process_signals   signals: killing, asking for a stack, how they stand in a worker, SIGTERM
process.parent_death      that a process ends with its parent; the leash
process.cpu_time          how long this process waited for a CPU
process.proc_file         reading a small file of the kernel's
process.inheritance       what a process that is being spawned is handed over
process.shell_words       words of a command line, quoted for the system's shell
process.stacks            where a process is: the stacks of its threads, asked for from outside
process.spawned           a process that is given what it shares before its first step, where there are no forks
memory.memory_files       unnamed files in memory: made, shared, sealed, opened by others
memory.leases             whether such a file is open or mapped somewhere else
memory.mappings           files mapped into memory, and how many may be
memory.locks              semaphores without a name
memory.memory_use         private memory of this process and of others, and its peak
memory.machine_memory     what memory the machine and its control groups leave
========================  ==========================================================================================

Knows nothing of jobs, lanes or workers' protocols. It raises OSError, and says None where a system does not tell.
"""
