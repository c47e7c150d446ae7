"""Small models: every order in which a few threads can run the real code of a few lines."""
