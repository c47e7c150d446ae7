"""What could make a job quicker: rules over its figures. `rule.py` says what one is, `_report/advice.py` chooses."""
