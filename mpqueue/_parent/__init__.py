"""What runs in the parent process, and only there: threads, lanes, the coordinator."""
