"""Processes as the system sees them: who they are, how they end, and what they have used."""
