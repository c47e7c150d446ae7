"""Rules on a job's speed, applied to its figures: `rule.py` defines them, `_report/advice.py` chooses."""
