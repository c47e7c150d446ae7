"""Open jobs in a journal: jobs with a list of items that grows, each of which is written as it comes."""
