"""What runs in the worker process, and only there."""
