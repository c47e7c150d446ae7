"""The parts of a job's report on why it is slow: figures, advice, and their forms as text and page.

It reads a job's books, also those of a closed queue; the first call of `Job.report` loads it.
"""
