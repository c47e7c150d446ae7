"""The data that goes to workers and comes back: frames, pickled items, results, and the segments that hold big data."""
