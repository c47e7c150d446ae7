"""The fault matrix: the same fault for everybody, and who still delivers what. Run by `benchmarks.faults`."""
