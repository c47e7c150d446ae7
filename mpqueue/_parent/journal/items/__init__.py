"""The items of a job, as a journal knows them: what each is, which are recorded, and their payloads."""
