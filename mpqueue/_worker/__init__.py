"""The code that runs only in the worker process."""
