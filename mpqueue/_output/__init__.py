"""How far a job is and what came of it, for people and for files: progress, bars, exports."""
