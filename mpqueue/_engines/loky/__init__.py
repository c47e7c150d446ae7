"""loky, the engine that mpqueue brings along: worker processes on this machine."""
