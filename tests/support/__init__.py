"""What tests share: handlers named by verb, waiting, the leak check."""
