"""Processes as the system sees them: their identities, their ends, and their use of resources."""
