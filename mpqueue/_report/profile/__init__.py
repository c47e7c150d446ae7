"""Where a job's handlers were, to the line: what workers have sampled, merged, written as files and drawn."""
