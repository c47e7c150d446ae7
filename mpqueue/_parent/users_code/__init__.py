"""Code of users' classes that runs in the program: on threads of its own, never on the coordinator's."""
