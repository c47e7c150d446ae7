"""A whole parent in simulated time: the real queue, coordinator, scheduler, journal and listeners, on one thread."""
