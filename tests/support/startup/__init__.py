"""A folder for PYTHONPATH: what each Python process of the tests runs first."""
