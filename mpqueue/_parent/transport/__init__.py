"""The data sent to workers and back: frames, pickled items, results, and segments for big data."""
