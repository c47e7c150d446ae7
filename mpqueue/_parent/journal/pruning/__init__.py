"""Making a journal smaller."""
