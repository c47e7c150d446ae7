"""Rules that say what could make a job quicker, by its figures: `rule.py` defines them, `_report/advice.py` chooses."""
