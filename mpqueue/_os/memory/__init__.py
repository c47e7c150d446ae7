"""Memory as the system gives it: files in memory, mappings, semaphores, and what is used and left."""
