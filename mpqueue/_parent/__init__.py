"""The code that runs only in the parent process: threads, lanes, the coordinator."""
