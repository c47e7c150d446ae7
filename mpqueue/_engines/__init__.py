"""The engines, each in a folder or a module. `mpqueue._parent.lane_protocol` defines an engine."""
