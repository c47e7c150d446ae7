"""How fast mpqueue is, and where others are faster: one question a file, in `benchmarks.questions`.

`python -m benchmarks` runs them, `python -m benchmarks.report` writes the page and draws its picture. README.md says
how to set up, and how far the figures can be trusted.
"""
