"""The objects that users hold: `JobQueue`, and the jobs, items and runs that come of it."""
