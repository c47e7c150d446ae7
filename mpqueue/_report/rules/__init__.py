"""What could make a job quicker: rules over its figures. `rule.py` says what a rule is, `rule_book.py` lists them."""
