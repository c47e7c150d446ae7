"""How fast mpqueue is, and where others are faster: one question a file, in `benchmarks.questions`.

`python -m benchmarks` runs them, `python -m benchmarks.report` writes the tables and draws the plots. README.md says
how to set up, and how far the figures can be trusted.
"""
