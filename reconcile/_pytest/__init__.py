"""What the pytest plugin registers where there is something to do for it."""
