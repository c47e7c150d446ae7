"""Drop-ins: existing programs run on mpqueue after a change of an import.

Each module keeps the interface of the module that it replaces, and uses the layers below through
`mpqueue._queue.job_queue` and `mpqueue._queue.growing_jobs` only.
"""
