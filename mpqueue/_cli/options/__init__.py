"""Options of commands, each with what its words mean."""
