"""Why is this slow? What a job's report is made of: figures, advice, and their forms as text, as a page and as a trace.

Reads a job's books, also those of a queue that was closed; loaded by the first call of `Job.report` or `Job.trace`.
"""
