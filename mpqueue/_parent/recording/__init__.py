"""Recordings for bug reports: what the scheduler heard and what it asked for, and both once more, step by step."""
