"""What a page remembers of its looks at the queue: how jobs stand and how fast they go, what workers were at."""
