"""Drop-ins: what people already wrote runs on mpqueue, by changing an import.

Each module keeps the interface of what it replaces, and knows what is below through `mpqueue._queue.job_queue` and
`mpqueue._queue.growing.stream` only.
"""
