"""The output of a job, for people and for files: progress, bars, exports."""
