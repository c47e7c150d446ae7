"""24 programs that are slow, each for one reason that people really meet, and the same programs repaired.

The report of each has to name its reason first, and nothing wrong beside it. `python -m benchmarks --only advice` runs
them; their figures, recorded by `python -m benchmarks.bad_programs`, are what the tests hold the rules against.
"""
