"""Memory of the system: files in memory, mappings, semaphores, and how much is used and left."""
