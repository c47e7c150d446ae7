"""Jobs whose items arrive while they run: streams, on which the drop-ins are built, and open jobs, which users make."""
