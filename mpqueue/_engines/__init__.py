"""The engines, a folder or a module each. What an engine is, `mpqueue._parent.lane_protocol` says."""
