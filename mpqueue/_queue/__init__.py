"""The objects that users hold: `JobQueue`, and its jobs, items and runs."""
