"""Workers that are at work at once: forked from a process that has imported what they need (`JobQueue(preload=...)`).

    starter --asks--> fork server (parent's side) --socket--> forker (a process) --fork--> worker

See docs/adr/0035-workers-are-forked-where-users-say-so.md.
"""
