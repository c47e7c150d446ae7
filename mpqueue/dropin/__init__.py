"""Drop-ins: what people already wrote runs on mpqueue, by changing an import.

Each module keeps the interface of what it replaces, and knows the engine through `mpqueue.queue` and `mpqueue.stream`
only.
"""
