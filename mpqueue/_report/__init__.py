"""The parts of a job's report on why it is slow: figures, advice, and their forms as text, page and trace.

It reads a job's books, also those of a closed queue; the first call of `Job.report` or `Job.trace` loads it.
"""
