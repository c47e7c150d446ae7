"""Takes 0.4 CPU seconds to import, as a library of many parts does."""

from benchmarks.bad_programs.program import spin

spin(0.4)
