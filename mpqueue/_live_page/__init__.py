"""The live page of a queue: a server on its own thread, and what it serves.

`queue.serve()` makes a `server.Page`. It looks at the queue's books ten times a second, as a bar does, and tells all
browsers what has changed: a job costs the same with it and without it, however many items it has. Nothing here is
imported before a page is asked for, and only here are Starlette and uvicorn known.
"""
