"""An agent: a queue's lanes on a node of a cluster, for an engine that reaches that node."""
