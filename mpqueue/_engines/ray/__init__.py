"""Ray as the engine: a lane is an actor."""
