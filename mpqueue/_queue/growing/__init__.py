"""Jobs whose items come while they run: streams, which the drop-ins stand on, and open jobs, which users make."""
