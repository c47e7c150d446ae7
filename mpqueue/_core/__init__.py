"""Decisions only: no thread, no process, no clock, no input or output."""
