"""Recordings for bug reports: the scheduler's messages and commands, and both once more, step by step."""
