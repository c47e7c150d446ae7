"""Decisions, and nothing else: no thread, no process, no clock, no input or output."""
